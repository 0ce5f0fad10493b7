"""Figures in printed lines; and none in ordinary text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from epochtop.supervisor.printed import METRICS, parse

PROGRESS = [
    ("epoch 3 loss: 0.69", 3, {"loss": 0.69}),
    ("Epoch [3/10], Step [100/600], Loss: 0.5123", 1900, {"loss": 0.5123}),
    ("Epoch: 7 | train loss 0.41 | val loss 0.52 | val acc 81.3%", 7, {"train_loss": 0.41, "val_loss": 0.52, "val_acc": 81.3}),
    ("iter 250: loss 2.4071, time 22.3ms, mfu 1.2%", 250, {"loss": 2.4071}),
    ("step=1200 lr=3e-4 train/loss=nan", 1200, {"lr": 3e-4, "train/loss": float("nan")}),
    ("{'loss': 0.5, 'grad_norm': 1.25, 'epoch': 1.0}", None, {"loss": 0.5, "grad_norm": 1.25, "epoch": 1.0}),
    ("{'eval_loss': '0.61', 'step': 40}", 40, {"eval_loss": 0.61}),
    ("loss: 0.25, accuracy: 0.9", None, {"loss": 0.25, "accuracy": 0.9}),
    ("Epoch 2:  50%|█████     | 16/32 [00:01<00:01, 12.1it/s, loss=0.33, v_num=4]", 80, {"loss": 0.33}),
    ("100%|██████████| 32/32 [00:02<00:00, 15.9it/s, loss=0.31]", None, {"loss": 0.31}),
    ("938/938 ━━━━━━━━━━ 2s 2ms/step - accuracy: 0.91 - loss: 0.3 - val_loss: 0.28", None, {"accuracy": 0.91, "loss": 0.3, "val_loss": 0.28}),
    ("\x1b[32mepoch 4\x1b[0m loss: \x1b[1m0.5\x1b[0m", 4, {"loss": 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "step", "values"), PROGRESS, ids=[line for line, _, _ in PROGRESS])
def test_progress_is_read(line: str, step: int | None, values: dict[str, float]) -> None:
    printed = parse(line)
    assert printed is not None
    assert printed.step == step
    assert printed.values == pytest.approx(values, nan_ok=True)


WORDS = (
    "loading",
    "model",
    "weights",
    "from",
    "cache",
    "GPU",
    "memory",
    "INFO",
    "WARNING:",
    "found",
    "files",
    "seed",
    "took",
    "using",
    "device",
    "lossless",
    "batch",
    "size",
)
ORDINARY = [
    *("", "loss", "epoch 3", "step 4 of 5", "lr: 0.001", "learning_rate: 0.001", "error: 3 files are missing", "return: 0"),
    *("map: 3", "precision: 16", "loading weights: 45%|████ | 12/30 [00:01<00:02]", "2026-01-02 10:00:00 INFO started"),
    *("{'lr': 0.1, 'batch_size': 32}", "{'loss': 'mse', 'lr': 0.1}", "{'loss': None}", "label smoothing loss: mse", "{}"),
    *("loss of signal at step 5", "torch 2.13.0 loss.py:120", "step 5: saved checkpoint loss-0.3.pt", "x" * 5000 + " loss: 1"),
]  # fmt: skip


@pytest.mark.parametrize("line", ORDINARY)
def test_ordinary_text_is_not_progress(line: str) -> None:
    assert parse(line) is None


sentences = st.lists(
    st.one_of(
        st.sampled_from(WORDS),
        st.from_regex(r"[a-z]{2,10}[:=]?", fullmatch=True).filter(lambda word: not word.strip(":=").endswith(METRICS)),
        st.integers(0, 10**6).map(str),
        st.floats(0, 1e6).map(lambda number: f"{number:.3f}"),
        st.from_regex(r"/[a-z]{1,6}/[a-z]{1,6}\.py:[0-9]{1,3}", fullmatch=True),
    ),
    max_size=12,
).map(" ".join)


@given(sentences)
@example("epoch 3 took 12.000 s")
def test_text_without_the_name_of_a_metric_is_not_progress(line: str) -> None:
    assert parse(line) is None


@given(st.text(max_size=200))
def test_no_text_breaks_the_parser(line: str) -> None:
    parse(line)
