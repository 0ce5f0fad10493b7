"""CUDA's numbers of GPUs in environments that hide and reorder them."""

from __future__ import annotations

import pytest

from epochtop.engine.hardware.gpu.visibility import BY_SPEED, HIDDEN, cuda_indices

SAME, MIXED = ["NVIDIA A100"] * 3, ["NVIDIA T4", "NVIDIA A100", "NVIDIA T4"]
UUIDS = ["GPU-aa11", "GPU-ab22", "GPU-cc33"]
ORDERED = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def numbers(names: list[str], visible: str | None = None, **environment: str) -> list[int | None]:
    variable = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return [fact.value for fact in cuda_indices(UUIDS, names, {**variable, **environment})]


def test_equal_cards_keep_the_order_of_the_bus() -> None:
    assert numbers(SAME) == [0, 1, 2]


def test_different_cards_are_ordered_by_speed_which_only_cuda_can_tell() -> None:
    facts = cuda_indices(UUIDS, MIXED, {})
    assert [fact.reason for fact in facts] == [BY_SPEED] * 3
    assert numbers(MIXED, **ORDERED) == [0, 1, 2]


def test_a_single_card_is_number_0() -> None:
    assert cuda_indices(["GPU-aa11"], [None], {})[0].value == 0


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("2,0", [1, None, 0]),
        ("1", [None, 0, None]),
        (" 1 , 2 ", [None, 0, 1]),
        ("", [None, None, None]),
        ("-1", [None, None, None]),
        ("0,-1,2", [0, None, None]),  # the list ends before the first entry that names nothing
        ("0,7,2", [0, None, None]),
        ("NoDevFiles", [None, None, None]),
        ("1,1", [None, None, None]),  # a device named twice hides all
        ("GPU-cc33,GPU-aa", [1, None, 0]),
        ("GPU-a,GPU-cc33", [None, None, None]),  # GPU-a begins two of them
    ],
)
def test_listed_cards_are_visible_in_the_order_of_the_list(visible: str, expected: list[int | None]) -> None:
    assert numbers(SAME, visible) == expected


def test_hidden_cards_have_that_reason() -> None:
    assert cuda_indices(UUIDS, SAME, {"CUDA_VISIBLE_DEVICES": "1"})[0].reason == HIDDEN


def test_numbers_of_different_cards_cannot_be_resolved_but_uuids_can() -> None:
    assert numbers(MIXED, "0,1") == [None, None, None]
    assert numbers(MIXED, "0,1", **ORDERED) == [0, 1, None]
    assert numbers(MIXED, "GPU-cc33,GPU-aa11") == [1, None, 0]
