"""A run with a thousand series: opened, listed and exported with work for those that are asked for."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from epochtop.engine.runs.table.table import RunTable
from epochtop.tui.chart import run_series
from epochtop.tui.cli.main import run as command
from tests.support.fakes.script_runs import SCRIPT_STARTED, logged, script_ended, write_script_run
from tests.support.ui.screens import furnished, still_app, until

SERIES, STEPS, WINDOWS = 1_000, 64, 3


@pytest.fixture
def run(home: Path) -> Path:
    """A finished run; series n has the value n at every step, and the loss falls from 192."""
    events: list[Any] = [SCRIPT_STARTED]
    for first in range(0, WINDOWS * STEPS, STEPS):
        values = {f"layer{n}__norm": [float(n)] * STEPS for n in range(SERIES)}
        events.append(logged(first, loss=[float(WINDOWS * STEPS - first - step) for step in range(STEPS)], **values))
    return write_script_run(home, "wide-0001", [*events, script_ended(WINDOWS * STEPS)])


async def test_it_opens_with_the_values_of_what_is_drawn(
    run: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    main_family = run_series.main_family
    monkeypatch.setattr(run_series, "main_family", lambda names: (looks.append(len(names)), main_family(names))[1])
    app = still_app(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await furnished(pilot)
        app.open(run)
        data = app.main.chart.trace.run
        await until(pilot, lambda: (app.beat(), data.steps == WINDOWS * STEPS)[1])
        assert len(data.last_values) == SERIES + 1
        assert data.last_values["layer999/norm"] == 999
        assert data.series.keys() == {"loss"}
        assert looks == [SERIES + 1]


def test_it_is_listed_and_exported(run: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (details,) = RunTable(home).list()
    assert len(details.series) == SERIES + 1
    assert command(["export", "wide", "--series", "layer7/norm", "loss"]) == 0
    head, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert head == ["step", "time", "layer7/norm", "loss"]
    assert [(int(row[0]), float(row[2]), float(row[3])) for row in rows] == [
        (step, 7.0, float(WINDOWS * STEPS - step)) for step in range(WINDOWS * STEPS)
    ]
