"""Nested batches keep their structure, whatever containers they are made of."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import default_collate

from epochtop.engine.models.nested import collated, joined, mapped, rows_first, tensors_of


class Pair(NamedTuple):
    ids: Any
    mask: Any = None


class Checked(NamedTuple):
    """A namedtuple without a default."""

    first: Any
    second: Any


@dataclass
class Output:
    loss: Any = None
    logits: Any = None


@dataclass(frozen=True)
class Frozen:
    x: Any

    def __post_init__(self) -> None:
        assert isinstance(self.x, Tensor)


@dataclass(frozen=True, slots=True)
class Slotted:
    x: Any


class ReadOnly(Mapping[str, Any]):
    """A mapping that cannot be built from a dict."""

    def __init__(self, *, x: Any) -> None:
        self._x = x

    def __getitem__(self, key: str) -> Any:
        return {"x": self._x}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("x",))

    def __len__(self) -> int:
        return 1


@dataclass
class ModelOutput(OrderedDict[str, Any]):
    """The part of the class of the same name in transformers that matters: items and attributes are the same."""

    loss: Any = None
    logits: Any = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                self[field.name] = value

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.keys() and value is not None:
            super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __reduce__(self) -> Any:
        callable_, _, *rest = super().__reduce__()
        return callable_, tuple(getattr(self, field.name) for field in fields(self)), *rest


ONE, TWO = torch.tensor([1.0, 2.0]), torch.tensor([3, 4])

STRUCTURES: dict[str, tuple[Any, list[Tensor]]] = {
    "a tensor": (ONE, [ONE]),
    "a dict": ({"a": ONE, "b": TWO}, [ONE, TWO]),
    "a tuple": ((ONE, TWO), [ONE, TWO]),
    "a list in a dict": ({"a": [ONE, {"b": TWO}]}, [ONE, TWO]),
    "a namedtuple": (Pair(ONE, TWO), [ONE, TWO]),
    "a namedtuple with None": (Pair(ONE), [ONE]),
    "a namedtuple without defaults": (Checked(ONE, "text"), [ONE]),
    "a dataclass": (Output(logits=ONE), [ONE]),
    "a frozen dataclass": (Frozen(ONE), [ONE]),
    "a frozen dataclass with slots": (Slotted((ONE, TWO)), [ONE, TWO]),
    "a dataclass that is a mapping": (ModelOutput(logits=ONE), [ONE]),
    "an ordered dict": (OrderedDict(b=ONE, a=TWO), [ONE, TWO]),
    "a defaultdict": (defaultdict(list, a=ONE), [ONE]),
    "a UserDict": (UserDict(a=ONE, b="text"), [ONE]),
    "a read-only mapping": (MappingProxyType({"a": ONE}), [ONE]),
    "None, text, numbers": ([None, "text", b"bytes", 3, 2.5, True, ONE], [ONE]),
    "nothing": ({}, []),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_tensor_is_found_in_order(name: str) -> None:
    structure, expected = STRUCTURES[name]
    assert [id(tensor) for tensor in tensors_of(structure)] == [id(tensor) for tensor in expected]


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_mapped_structure_has_the_same_types_and_other_tensors(name: str) -> None:
    structure, expected = STRUCTURES[name]
    result = mapped(structure, lambda tensor: tensor * 10)
    assert type(result) is type(structure)
    assert [tensor.tolist() for tensor in tensors_of(result)] == [(tensor * 10).tolist() for tensor in expected]
    assert [id(tensor) for tensor in tensors_of(structure)] == [id(tensor) for tensor in expected]


def test_what_is_not_a_tensor_stays() -> None:
    assert mapped(Checked("text", (None, 3)), torch.neg) == Checked("text", (None, 3))
    assert mapped({"a": None, "b": 3}, torch.neg, other=lambda _: "leaf") == {"a": "leaf", "b": "leaf"}


def test_items_and_attributes_of_a_model_output_stay_the_same() -> None:
    result = mapped(ModelOutput(logits=ONE), torch.neg)
    assert result.logits is result["logits"]
    assert result.loss is None
    assert list(result) == ["logits"]


def test_a_mapping_that_cannot_be_built_becomes_a_dict() -> None:
    assert mapped(ReadOnly(x=3), torch.neg) == {"x": 3}


def test_a_packed_sequence_keeps_its_batch_sizes() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    result = mapped(packed, lambda tensor: tensor.to("meta"))
    assert isinstance(result, PackedSequence)
    assert result.data.is_meta
    assert result.batch_sizes.tolist() == [2, 1, 1]


def test_the_first_tensor_with_a_row_per_row() -> None:
    loss, logits = torch.ones(()), torch.ones(2, 3)
    assert rows_first(Output(loss, logits), 2) is logits
    assert rows_first({"hidden": torch.ones(5, 2), "logits": logits}, 2) is logits
    assert rows_first(None, 2) is None


def test_joined_batches() -> None:
    batches = [{"a": torch.tensor([1, 2]), "b": (torch.tensor([5, 6]), "text")}, {"a": torch.tensor([3]), "b": (torch.tensor([7]), "text")}]  # fmt: skip
    result = joined(batches)
    assert result["a"].tolist() == [1, 2, 3]
    assert result["b"][0].tolist() == [5, 6, 7]


TORCH_ROWS: dict[str, list[Any]] = {
    "pairs": [(ONE, 0), (ONE, 1)],
    "dicts": [{"ids": ONE, "name": "a"}, {"ids": ONE * 2, "name": "b"}],
    "namedtuples": [Pair(ONE, 1.5), Pair(ONE, 2.5)],
    "nested": [(ONE, (TWO, {"w": 0.5})), (ONE, (TWO, {"w": 1.5}))],
}


@pytest.mark.parametrize("name", TORCH_ROWS)
def test_rows_that_torch_collates_are_collated_as_torch_does(name: str) -> None:
    assert str(collated(TORCH_ROWS[name])) == str(default_collate(TORCH_ROWS[name]))


def test_rows_with_dataclasses_and_none_make_a_batch() -> None:
    rows = [(Output(logits=ONE), Pair({"ids": at})) for at in range(2)]
    with pytest.raises(TypeError):
        default_collate(rows)
    output, pair = collated(rows)
    assert output.loss is None
    assert output.logits.tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert isinstance(pair, Pair)
    assert pair.ids["ids"].tolist() == [0, 1]
    assert pair.mask is None


def test_rows_in_which_only_some_have_none_are_refused() -> None:
    with pytest.raises(TypeError, match="some rows have None"):
        collated([{"a": None}, {"a": ONE}])
