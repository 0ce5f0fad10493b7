"""The plain loop that experiments compare with takes the steps that the job asks for, by torch's own optimizers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from epochtop.engine.lab.instruments.jobs import PlainLoop, job_of, not_plain
from epochtop.engine.protocol.spec import RunSpec

STEPS = 8
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adam": {},
    "adamw": {},
    "rmsprop": {"momentum": 0.9},
    "adagrad": {},
    "muon": {},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spec_of(**fields: Any) -> RunSpec:
    few = {"dataset": "digits", "hidden": (16,), "batch_size": 64, "threads": 1, "device": "cpu"}
    return RunSpec(**(few | {"learning_rate": 0.01, "weight_decay": 0.01} | fields))


def assert_same_steps(spec: RunSpec) -> None:
    """Losses and weights of the plain loop are those of the engine, to rounding."""
    ours, plain = job_of(spec), PlainLoop(job_of(spec))
    first = [weight.clone() for weight in ours.model.parameters()]
    for _ in range(STEPS):
        torch.testing.assert_close(plain.step(), ours.step(), rtol=1e-4, atol=1e-5)
    for weight, other, before in zip(plain.model.parameters(), ours.model.parameters(), first, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-5)
        assert not torch.equal(weight, before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_plain_loop_has_the_optimizer_of_the_job(name: str) -> None:
    assert_same_steps(spec_of(optimizer=name, **OPTIMIZERS[name]))


@pytest.mark.parametrize("name", ["sgd", "adam", "adagrad"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_it_computes_in_the_precision_of_the_job(name: str, precision: str) -> None:
    assert_same_steps(spec_of(optimizer=name, precision=precision))
    plain = PlainLoop(job_of(spec_of(optimizer=name, precision=precision)))
    seen: list[torch.dtype] = []
    plain.model.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    plain.step()
    assert seen == [{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]]


@pytest.mark.parametrize(
    "fields", [{}, {"precision": "fp16"}, {"clip_norm": 0.1}, {"clip_norm": 0.1, "precision": "fp16"}]
)
def test_it_adds_up_batches_and_clips_as_the_job_asks(fields: dict[str, Any]) -> None:
    """The last step of the epoch has fewer rows: 23 batches in fours."""
    assert_same_steps(spec_of(optimizer="adam", accumulate=4, **fields))


def test_differences_from_the_job_are_named_only_if_the_job_has_them() -> None:
    assert not_plain(spec_of()) == []
    (conclusion,) = not_plain(spec_of(ema=0.99))
    assert "moving average" in conclusion
