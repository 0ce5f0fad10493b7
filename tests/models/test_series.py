"""Networks for series and documents against torch's own layers and sums by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.models.build import build_model
from epochtop.engine.models.summary import summary_of
from epochtop.engine.protocol.spec import Invalid, RunSpec

TIME, FEATURES, WIDTH, OUTPUTS = 9, 3, 8, 5
SERIES = Preparation(kind="series", loss="cross_entropy", series=(TIME, FEATURES), classes=tuple("abcde"))
DOCUMENT = Preparation(kind="document", loss="cross_entropy", length=7, ngrams=2, classes=tuple("abcde"))


def model_of(model: str, preparation: Preparation = SERIES, **fields: object) -> nn.Module:
    torch.manual_seed(2)
    spec = RunSpec(model=model, width=WIDTH, heads=2, layers=2, hidden=(), **fields)  # type: ignore[arg-type]
    return build_model(spec, preparation, OUTPUTS).eval()


def rows(count: int = 4) -> torch.Tensor:
    return torch.randn(count, TIME, FEATURES, generator=torch.Generator().manual_seed(1))


def test_the_lstm_is_that_of_torch() -> None:
    model = model_of("lstm")
    own = nn.LSTM(FEATURES, WIDTH, 2, batch_first=True)
    weights = model.state_dict()
    own.load_state_dict({name: weights[f"lstm.lstm.{name}"] for name in own.state_dict()})
    expected = own(rows())[0][:, -1] @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(model(rows()), expected)


def test_the_encoder_sees_every_time_step_and_its_place() -> None:
    model = model_of("transformer")
    x = rows(1)
    for step in range(TIME):
        changed = x.clone()
        changed[:, step] += 1
        assert not torch.allclose(model(changed), model(x))
    assert not torch.allclose(model(x.flip(1)), model(x))
    attention = 4 * (WIDTH + 1) * WIDTH
    inner = (WIDTH + 1) * 4 * WIDTH + (4 * WIDTH + 1) * WIDTH
    expected = (FEATURES + 1) * WIDTH + TIME * WIDTH + 2 * (attention + inner + 4 * WIDTH) + 2 * WIDTH
    assert sum(weight.numel() for weight in model.parameters()) == expected + (WIDTH + 1) * OUTPUTS


@pytest.mark.parametrize("time", [1, 2, 7, 30])
def test_the_cnn_takes_series_of_any_length(time: int) -> None:
    kept = Preparation(kind="series", loss="cross_entropy", series=(time, FEATURES), classes=tuple("abcde"))
    assert model_of("cnn", kept)(torch.randn(4, time, FEATURES)).shape == (4, OUTPUTS)


def test_a_document_is_the_mean_of_its_codes() -> None:
    model = model_of("mlp", DOCUMENT)
    codes = torch.tensor([[5, 9, 5, 0, 0, 0, 0], [0] * 7, [7, 0, 0, 0, 0, 0, 0]])
    table = model.state_dict()["embedding.codes.weight"]
    means = torch.stack(((2 * table[5] + table[9]) / 3, torch.zeros(WIDTH), table[7]))
    weights = model.state_dict()
    torch.testing.assert_close(model(codes), means @ weights["mlp.0.weight"].T + weights["mlp.0.bias"])


def test_the_order_of_words_matters_to_the_encoder_only() -> None:
    codes = torch.tensor([[5, 9, 4, 0, 0, 0, 0]])
    turned = torch.tensor([[4, 9, 5, 0, 0, 0, 0]])
    assert not torch.allclose(model_of("transformer", DOCUMENT)(codes), model_of("transformer", DOCUMENT)(turned))
    torch.testing.assert_close(model_of("mlp", DOCUMENT)(codes), model_of("mlp", DOCUMENT)(turned))
    assert model_of("transformer", DOCUMENT)(torch.zeros(2, 7, dtype=torch.int64)).isfinite().all()


@pytest.mark.parametrize(("model", "preparation"), [(m, SERIES) for m in ("mlp", "cnn", "lstm", "transformer")] + [
    (m, DOCUMENT) for m in ("mlp", "transformer")
])  # fmt: skip
def test_the_summary_counts_the_parameters(model: str, preparation: Preparation) -> None:
    spec = RunSpec(model=model, width=WIDTH, heads=2, layers=2, hidden=(4,))  # type: ignore[arg-type]
    built = build_model(spec, preparation, OUTPUTS)
    facts = summary_of(spec, preparation, OUTPUTS, 6)
    assert facts.parameters == sum(weight.numel() for weight in built.parameters())
    assert facts.activation_bytes > 0


def test_a_model_for_other_rows_is_refused() -> None:
    for model, preparation, usable in (
        ("resnet", SERIES, "mlp or cnn or lstm"),
        ("lstm", DOCUMENT, "mlp or transformer"),
    ):
        with pytest.raises(Invalid, match=usable):
            model_of(model, preparation)
