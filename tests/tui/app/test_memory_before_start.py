"""The memory a job needs is shown before Start, and in red with advice where it does not fit."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from textual.widgets import Static

from epochtop.engine.hardware import training_bytes
from epochtop.engine.hardware.meaning import SEVEN_B, running_bytes
from epochtop.engine.protocol.datasets import ColumnFact
from epochtop.engine.protocol.requests import Plan, Refused
from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.client.messages import RunPlanned, RunRefused
from tests.support.engines import Engine
from tests.support.fakes.machines import a_machine
from tests.support.ui.screens import furnished, still_app, until

GIB = 1 << 30


@pytest.mark.parametrize(
    ("precision", "optimizer", "each"),
    [
        ("float32", "sgd", 4 + 4),
        ("float32", "momentum", 4 + 4 + 4),
        ("float32", "adam", 4 + 4 + 4 + 4),
        ("bfloat16", "adamw", 2 + 2 + 2 + 2),
    ],
)
def test_the_rule(precision: str, optimizer: str, each: int) -> None:
    assert training_bytes(1000, precision, optimizer) == 1000 * each


def test_a_7_b_model_by_the_rule() -> None:
    assert training_bytes(SEVEN_B) / GIB == pytest.approx(100.4, abs=0.1)  # 16 bytes a parameter
    assert running_bytes(SEVEN_B) / GIB == pytest.approx(12.55, abs=0.01)  # as large as its published 16-bit weights


def a_plan(needed: int, free: int | None) -> Plan:
    return Plan(
        device="cpu", rows=120, test_rows=30, features=4, outputs=3, parameters=83, steps=20_000, steps_per_epoch=1,
        memory_bytes=needed, available_bytes=free,
    )  # fmt: skip


async def test_the_form_shows_what_a_job_needs_of_what_is_free(home: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        app.post_message(RunPlanned(RunSpec(), a_plan(600_000, 8 * GIB)))
        await pilot.pause()
        line = str(app.main.form.query_one("#plan", Static).content)
        assert line.endswith("needs about 586 KiB of 8.0 GiB free")
        age = ColumnFact(name="age", kind="number", missing=3, treatment="filled")
        app.post_message(RunPlanned(RunSpec(), msgspec.structs.replace(a_plan(600_000, None), columns=(age,))))
        await pilot.pause()
        assert str(app.main.form.query_one("#plan", Static).content).endswith("needs about 586 KiB")
        assert str(app.main.form.query_one("#columns", Static).content) == "age (number): 3 missing; filled"


async def test_the_form_shows_the_problem_and_why(home: Path) -> None:
    app = still_app(home)
    note = "target 'age': 45 distinct whole numbers in 90 rows make this a regression [/data]"
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        plan = msgspec.structs.replace(a_plan(600_000, None), problem="regression", notes=(note,))
        app.post_message(RunPlanned(RunSpec(), plan))
        await pilot.pause()
        first, second = str(app.main.form.query_one("#plan", Static).content).splitlines()
        assert first.startswith("regression · 20,000 steps on cpu")
        assert second == note


async def test_what_does_not_fit_is_red_with_advice(home: Path, engine: Engine) -> None:
    spec = RunSpec(hidden=(10**6, 10**6), device="cpu")
    refused = engine.describe(spec)
    assert isinstance(refused, Refused)
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        app.post_message(RunRefused(refused, starting=False))
        await pilot.pause()
        row = app.main.form.query_one("#row-hidden")
        assert row.has_class("-invalid")
        shown = str(row.query_one(".error", Static).content)
        assert "free; use smaller layers or a smaller batch" in shown
        color = row.query_one(".error").styles.color
        assert color.r > max(color.g, color.b)


async def test_what_speaks_against_the_job_on_this_machine_is_below_the_plan(home: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        plan = a_plan(int(7.5 * GIB), 8 * GIB)
        app.main.machine.show_machine(a_machine())
        app.post_message(RunPlanned(RunSpec(), plan))
        line = app.main.form.query_one("#plan", Static)
        await until(pilot, lambda: "take a smaller batch" in str(line.content))
