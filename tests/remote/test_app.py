"""The app with the runs of another machine: drawn like local ones, and honest while the connection is down."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import index
from epochtop.engine.runs.paths import COMMANDS, EVENTS
from epochtop.engine.runs.remote import mirror as mirrors
from epochtop.engine.runs.remote.host import Host
from epochtop.engine.runs.remote.mirror import Mirror
from epochtop.engine.runs.table.table import RunTable
from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.cli import main as command_line
from epochtop.tui.cli.runs.remote import with_host
from epochtop.tui.client.remote.starter import RemoteStarter
from tests.remote.machines import StandIn
from tests.support.engines import wait_until
from tests.support.runs import engine_alive, events_of, write_run
from tests.support.ui.screens import furnished, still_app, until
from tests.tui.app.test_begin import entered

RUN = "iris-mlp-0001"


def notified(app: EpochtopApp, text: str) -> bool:
    """Whether the app has shown this text."""
    return any(text in notification.message for notification in app._notifications)


async def test_a_run_of_another_machine_is_drawn_and_commanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, box = tmp_path / "there", StandIn(tmp_path / "box")
    box.use(monkeypatch)
    run = write_run(there, RUN, events_of("running"))
    with engine_alive(run), closing(Mirror(Host("box", str(there)))) as mirror:
        mirror.wait_until_listed()
        app = still_app(mirror.folder)
        app.engine.watch_elsewhere("box")
        async with app.run_test(size=(120, 40)) as pilot:
            await furnished(pilot)

            def shows(step: int) -> bool:
                app.beat()
                return app.main.chart.trace.steps == step

            app.open(mirror.folder / RUN)
            await until(pilot, lambda: shows(9_500))
            assert app.main.machine.border_title == "Machine box"
            box.unplug()
            await until(pilot, lambda: (app.beat(), "connection to box lost" in app.main.status_line._shown)[1])
            app.action_pause()
            app.requests.start()
            await until(pilot, lambda: notified(app, "no connection to box, so the command was not sent"))
            await until(pilot, lambda: notified(app, "no epochtop was found on box"))
            box.plug()
            await until(pilot, lambda: (app.beat(), "9,500 of 20,000" in app.main.status_line._shown)[1])
            app.action_pause()
            await until(pilot, lambda: (run / COMMANDS).read_text().startswith('{"type":"Pause"'))


def test_the_table_reads_figures_of_complete_logs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, box = tmp_path / "there", StandIn(tmp_path / "box")
    box.use(monkeypatch)
    for number in range(6):
        write_run(there, f"iris-mlp-000{number}", events_of("finished"))
    monkeypatch.setattr(mirrors, "AT_ONCE", 2)
    right = {run.id: run.series for run in RunTable(there).list()}
    with closing(Mirror(Host("box", str(there)))) as mirror:
        mirror.wait_until_listed()
        assert all((path / EVENTS).stat().st_size < 30_000 for path in index.run_paths(mirror.folder))
        table = RunTable(mirror.folder)
        assert all(run.series in ({}, right[run.id]) for run in table.list())
        wait_until(lambda: {run.id: run.series for run in table.list()} == right)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--host box runs --json", "runs --json --host box"),
        ("--host=box:/r attach last", "attach last --host box:/r"),
        ("stop last --host box", "stop last --host box"),
        ("--host box --start", "--host box --start"),
        ("--start --host lab", "--start --host lab"),
        ("run python serve.py --host lab", "run python serve.py --host lab"),
        ("lab reads --quick", "lab reads --quick"),
        ("lab reads --host=box:/r", "`epochtop lab` works on this machine only; log in to box to use it there"),
        ("--host box lab", "`epochtop lab` works on this machine only; log in to box to use it there"),
        ("--host box run x", "`epochtop run` works on this machine only; log in to box to use it there"),
    ],
)
def test_the_host_may_come_first_and_is_refused_for_commands_of_this_machine(line: str, expected: str) -> None:
    try:
        result = " ".join(with_host(line.split(), command_line.COMMANDS))
    except Invalid as error:
        result = error.message
    assert result == expected


class Program:
    """An epochtop on the machine `box`. It refuses everything."""

    name = "box"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def start(self, arguments: Sequence[str]) -> Path:
        return Path(self.run_program(arguments))

    def run_program(self, arguments: Sequence[str]) -> str:
        self.asked.append(list(arguments))
        raise Invalid("", f"refusal {len(self.asked)}")


async def test_runs_scripts_and_logs_are_begun_on_the_other_machine(home: Path) -> None:
    app, program = still_app(home), Program()
    app.engine.watch_elsewhere("box", RemoteStarter(app.post_message, program))
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        for key, typed, expected in (
            ("ctrl+s", "", ["train", "--detach"]),
            ("R", "python3 train.py --lr '1 2'", ["run", "--detach", "--", "python3", "train.py", "--lr", "1 2"]),
            ("O", " logs of tb", ["open", "--", "logs of tb"]),
        ):
            await (entered(pilot, key, typed) if typed else pilot.press(key))
            await until(pilot, lambda: notified(app, f"refusal {len(program.asked)}") and not app.engine.starting)
            assert program.asked[-1] == expected
        run = write_run(home, RUN, events_of("stopped"))
        app.requests.resume(run)
        await until(pilot, lambda: notified(app, "refusal 4"))
        assert program.asked[-1] == ["resume", "--detach", RUN]
        assert "runs of box" in app.engine.idle
