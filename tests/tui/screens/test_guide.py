"""The guide: what it must explain, that it fits, and that it points at experiments that are there."""

from __future__ import annotations

import re

import pytest

from epochtop.engine.lab.catalog import NAMES
from epochtop.tui.cells.rows import uncolored
from epochtop.tui.screens.guide import GUIDE, guide

EXPERIMENTS = {
    *("reads", "anatomy", "crossover", "matmul", "transfer", "precision", "memory", "accumulation", "checkpointing"),
    *("loader", "parallel", "profile", "call", "threads", "executors"),
}


@pytest.mark.parametrize("width", [56, 76, 116, 196])
def test_it_fits_and_leaves_no_word_out(width: int) -> None:
    lines = [uncolored(row) for row in guide(width)]
    assert max(map(len, lines)) <= width
    words = " ".join(" ".join(lines).split())
    for block in GUIDE.split("\n\n"):
        if not block.startswith(">"):
            text = " ".join(block.removeprefix("# ").split())
            assert text.replace(" | ", " ") in words


def test_it_explains_overheads_names_and_calls() -> None:
    for word in (
        "transfer |",
        "launch |",
        "idle units |",
        "90 is the flagship",
        "SUPER |",
        "memory |",
        "nn.Module.__call__",
    ):
        assert word in GUIDE


def test_every_section_points_at_experiments() -> None:
    for section in re.split(r"^# ", GUIDE, flags=re.MULTILINE)[1:]:
        pointed = re.findall(r"^> (\w+) \| \w", section, flags=re.MULTILINE)
        assert pointed
        assert set(pointed) <= EXPERIMENTS


def test_experiments_that_are_not_there_are_not_pointed_at() -> None:
    shown = set(
        re.findall(
            r"(?:See it +|^ +)(?:· )?(\w+): ", "\n".join(uncolored(row) for row in guide(100)), flags=re.MULTILINE
        )
    )
    assert shown <= set(NAMES)
    assert "reads" in shown
