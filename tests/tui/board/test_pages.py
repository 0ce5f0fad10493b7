"""Shapes, groups, pages and boxes of the grid."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.geometry import Region

from epochtop.tui.board.pages import Shape, arranged, boxes, group_of, groups, largest_shape, page_count, shape_of
from epochtop.tui.board.tiles import fitted_name

FAMILIES = ["loss", "accuracy", "norm", "optimizer/lr", "system/gpu0/percent", "system/gpu0/power_w", "step"]


@pytest.mark.parametrize(
    ("width", "height", "shape"), [(78, 10, Shape(1, 2)), (79, 26, Shape(2, 2)), (136, 31, Shape(4, 3))]
)
def test_a_page_has_the_shape_for_its_region(width: int, height: int, shape: Shape) -> None:
    assert largest_shape(width, height) == shape
    assert shape_of(40, width, height) == shape


def test_fewer_charts_are_larger() -> None:
    assert shape_of(1, 136, 31) == Shape(1, 1)
    assert shape_of(2, 79, 26) == Shape(2, 1)
    assert shape_of(3, 79, 26) == Shape(2, 2)


def test_groups_are_the_first_parts_of_paths() -> None:
    assert groups(FAMILIES) == ["", "optimizer", "system"]
    assert group_of("system/gpu0/percent") == "system"


def test_system_series_stand_below_the_loss() -> None:
    order = arranged(FAMILIES, Shape(2, 2))
    assert order[:4] == ["loss", "accuracy", "system/gpu0/percent", "norm"]
    assert arranged(FAMILIES, Shape(4, 3))[::3] == ["loss", "system/gpu0/percent", "system/gpu0/power_w"]
    assert arranged(FAMILIES, Shape(1, 2)) == FAMILIES


names = st.lists(st.text(st.sampled_from("ab/_"), min_size=1, max_size=6), max_size=30, unique=True)
shapes = st.builds(Shape, st.integers(1, 4), st.integers(1, 3))


@given(names, st.lists(st.sampled_from(("system/a", "system/b", "loss", "step")), unique=True), shapes)
def test_arranging_keeps_every_family_once(others: list[str], special: list[str], shape: Shape) -> None:
    families = [*special, *others]
    assert sorted(arranged(families, shape)) == sorted(families)


@given(st.integers(0, 200), st.integers(20, 220), st.integers(6, 70))
def test_all_charts_are_on_pages_and_their_boxes_do_not_overlap(count: int, width: int, height: int) -> None:
    shape = shape_of(count, width, height)
    assert page_count(count, shape) * shape.size >= count
    placed = boxes(min(count, shape.size), shape, width, height)
    areas = [Region(box.left, box.top, box.width, box.height) for box in placed]
    assert all(Region(0, 0, width, height).contains_region(area) for area in areas)
    assert not any(one.overlaps(other) for one, other in combinations(areas, 2))


@given(names)
def test_groups_hold_every_family_once(families: list[str]) -> None:
    parts = [[family for family in families if group_of(family) == group] for group in groups(families)]
    assert sorted(family for part in parts for family in part) == sorted(families)


def test_long_names_lose_whole_parts() -> None:
    assert fitted_name("system/gpu0/memory_bytes", 24) == "system/gpu0/memory_bytes"
    assert fitted_name("system/gpu0/memory_bytes", 20) == "…/gpu0/memory_bytes"
    assert fitted_name("system/gpu0/memory_bytes", 15) == "…/memory_bytes"
    assert fitted_name("memory_bytes", 8) == "…bytes"
    assert len(fitted_name("a" * 40, 9)) == 9
