"""The transformer sees the past only, and begins as unsure as it can be."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch
from torch.nn import functional

from epochtop.engine.models.build import build_model
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.support.prepared import MNIST, TEXT, codes, images

SPEC = RunSpec(model="transformer", dataset="text:book.txt", width=16, heads=4, layers=2, context=12)
CHARACTERS = 5


def changed(**fields: object) -> RunSpec:
    return msgspec.structs.replace(SPEC, **fields)


def test_its_parameters_are_those_counted_by_hand() -> None:
    model = build_model(SPEC, TEXT, CHARACTERS)
    width = 16
    embedding = CHARACTERS * width + 12 * width
    attention = (width + 1) * 3 * width + (width + 1) * width
    inner = (width + 1) * 4 * width + (4 * width + 1) * width
    norms = 2 * 2 * width
    expected = embedding + 2 * (attention + inner + norms) + 2 * width + width * CHARACTERS
    assert sum(weight.numel() for weight in model.parameters()) == expected


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("length", [1, 7, 12])
def test_every_position_gets_logits(dtype: torch.dtype, length: int) -> None:
    model = build_model(SPEC, TEXT, CHARACTERS)
    assert model(codes(3, length, CHARACTERS).to(dtype)).shape == (3, length, CHARACTERS)


@pytest.mark.parametrize("place", range(12))
def test_a_later_character_changes_nothing_before_it(place: int) -> None:
    model = build_model(SPEC, TEXT, CHARACTERS).eval()
    text = codes(2, 12, CHARACTERS)
    other = text.clone()
    other[:, place] = (other[:, place] + 1) % CHARACTERS
    before, after = model(text), model(other)
    assert torch.equal(before[:, :place], after[:, :place])
    for later in range(place, 12):
        assert not torch.equal(before[:, later], after[:, later])


def test_initial_weights_prefer_no_character() -> None:
    """The loss of guessing among N characters is log N."""
    torch.manual_seed(1)
    model = build_model(changed(width=64), TEXT, 50)
    text = codes(16, 12, 50).long()
    loss = functional.cross_entropy(model(text).flatten(0, 1), text.flatten())
    assert loss.item() == pytest.approx(math.log(50), abs=0.1)


def test_it_memorizes_a_sentence() -> None:
    torch.manual_seed(1)
    sentence = torch.tensor([list(b"abcabdabcabe")], dtype=torch.uint8) - ord("a")
    model = build_model(SPEC, TEXT, CHARACTERS)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        loss = functional.cross_entropy(model(sentence[:, :-1]).flatten(0, 1), sentence[:, 1:].flatten().long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(model(sentence[:, :-1]).argmax(-1)[0, 1:], sentence[0, 2:].long())


@pytest.mark.parametrize("autocast", [False, True])
def test_every_weight_gets_a_gradient(autocast: bool) -> None:
    model = build_model(changed(dropout=0.1), TEXT, CHARACTERS)
    text = codes(4, 12, CHARACTERS)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = functional.cross_entropy(model(text).flatten(0, 1), text.flatten().long())
    for gradient in torch.autograd.grad(loss, list(model.parameters())):
        assert gradient.isfinite().all()


def test_dropout_acts_while_training_only() -> None:
    model = build_model(changed(dropout=0.5), TEXT, CHARACTERS)
    text = codes(2, 12, CHARACTERS)
    assert not torch.equal(model(text), model(text))
    model.eval()
    assert torch.equal(model(text), model(text))


def test_rows_longer_than_the_context_are_explained() -> None:
    with pytest.raises(ValueError, match=r"13 characters.*context of 12"):
        build_model(SPEC, TEXT, CHARACTERS)(codes(1, 13, CHARACTERS))


@pytest.mark.parametrize(
    ("spec", "preparation", "says"),
    [
        (SPEC, images(MNIST), "transformer cannot read images; use mlp or cnn or resnet"),
        (changed(model="mlp"), TEXT, "mlp cannot read a text; use transformer"),
        (changed(heads=3), TEXT, "width 16 is not a multiple of 3 heads"),
    ],
)
def test_what_does_not_fit_is_refused(spec: RunSpec, preparation: object, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        build_model(spec, preparation, CHARACTERS)  # type: ignore[arg-type]
