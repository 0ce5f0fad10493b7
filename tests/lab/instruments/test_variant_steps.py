"""The time in which the steps of variants are measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from epochtop.engine.lab.experiment import ExperimentContext, NoFields
from epochtop.engine.lab.instruments import variants
from epochtop.engine.protocol.spec import RunSpec


def test_steps_are_measured_even_if_building_the_variants_took_all_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[float] = []

    def interleave(context: ExperimentContext, cases: object, seconds: float) -> Iterator[object]:
        measured.append(seconds)
        return iter(())

    monkeypatch.setattr(variants, "interleave", interleave)
    context = ExperimentContext(NoFields(), RunSpec(), ("cpu",), 4.0, tmp_path)
    built = variants.Variants("cpu", {}, None)
    for share_s in (0.0, 3.0):
        list(variants.steps(context, built, {}, share_s))
    assert measured == [2.0, 3.0]
