"""The setting that a verdict offers, against jobs that have it, can take it, and cannot."""

from __future__ import annotations

import pytest

from epochtop.engine.process.experiment import effective_setting
from epochtop.engine.protocol.spec import RunSpec


@pytest.mark.parametrize(
    ("setting", "spec", "left"),
    [
        ({"executor": "graph"}, RunSpec(), {"executor": "graph"}),
        ({"executor": "graph"}, RunSpec(executor="graph"), {}),
        ({"executor": "graph", "threads": "2"}, RunSpec(threads=2), {"executor": "graph"}),
        ({"device": "cpu"}, RunSpec(device="cpu"), {}),
        ({"processes": "2"}, RunSpec(processes=2, batch_size=16), {}),
        ({"shard": "yes"}, RunSpec(), {}),  # needs two processes
        ({"threads": "many"}, RunSpec(), {}),
        ({}, RunSpec(), {}),
    ],
)
def test_only_what_changes_the_job_is_offered(setting: dict[str, str], spec: RunSpec, left: dict[str, str]) -> None:
    assert effective_setting(setting, spec) == left
