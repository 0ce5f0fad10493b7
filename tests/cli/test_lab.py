"""`epochtop lab` as a process without a terminal: one object, a stop that keeps rows, clear errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from epochtop.engine.lab.catalog import NAMES, experiments
from epochtop.engine.protocol.commands import BATCH_SIGNALS
from epochtop.engine.protocol.events import Concluded, Event, Measured, Prepared
from epochtop.engine.runs.paths import lab_home
from epochtop.engine.runs.reader import is_alive, read_record
from epochtop.tui.client.foreground import stop_on_signals
from tests.cli.test_commands import command, epochtop
from tests.support.engines import HANGING_S, events, wait_until
from tests.support.ui.commands import Command

KEYS = {
    "experiment", "fields", "run", "machine", "devices", "seconds", "outcome", "failure", "cannot_see", "rows", "verdict",
}  # fmt: skip
ON_CPU = ("--device", "cpu", "--threads", "1")


def results(home: Path) -> list[Path]:
    return sorted(path for path in lab_home(home).iterdir() if not path.name.startswith("."))


def count_of(home: Path, kind: type[Event]) -> int:
    """How many events of a kind the only experiment has recorded so far."""
    if not lab_home(home).exists() or not results(home):
        return 0
    return sum(isinstance(event, kind) for event in events(results(home)[0]))


def test_without_a_name_it_lists_every_experiment() -> None:
    done = epochtop("lab")
    assert done.returncode == 0
    for experiment in experiments():
        assert f"  {experiment.name}" in done.stdout
        assert experiment.title in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_explains_itself(name: str) -> None:
    done = epochtop("lab", name, "--help")
    assert done.returncode == 0
    assert "--quick" in done.stdout
    assert "Why:" in done.stdout


def test_one_object_has_everything(home: Path) -> None:
    done = epochtop("lab", "reads", "--quick", "--json", *ON_CPU)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert set(printed) == KEYS
    assert printed["experiment"] == "reads"
    assert printed["outcome"] == "finished"
    assert printed["devices"] == ["cpu"]
    assert printed["machine"]["usable_cpus"] >= 1
    assert set(printed["verdict"]) == {"finding", "evidence", "next_step", "uncertainty", "setting", "estimates"}
    (run,) = results(home)
    assert run.name == printed["run"]
    recorded = events(run)
    assert isinstance(recorded[-1], Concluded)
    assert [event.values for event in recorded if isinstance(event, Measured)] == printed["rows"]
    record = read_record(run)
    assert record.experiment is not None
    assert (record.experiment.name, record.experiment.quick) == ("reads", True)
    wait_until(lambda: not is_alive(run))


def test_ctrl_c_keeps_the_rows_so_far(home: Path) -> None:
    process = subprocess.Popen(
        command("lab", "reads", "--json", *ON_CPU), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: count_of(home, Measured) > 2)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=HANGING_S)
    assert process.returncode == 0, err
    printed = json.loads(out)
    assert printed["outcome"] == "stopped"
    assert len(printed["rows"]) > 2
    assert printed["verdict"]["finding"]
    assert printed["seconds"] < 45


def test_a_stop_that_cannot_be_written_is_reported_and_the_next_one_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handled = (signal.SIGINT, signal.SIGTERM, *BATCH_SIGNALS)
    before = [signal.getsignal(number) for number in handled]
    try:
        stop_on_signals(tmp_path / "gone", lambda: None)
        signal.raise_signal(signal.SIGINT)
        assert capsys.readouterr().err == (
            "epochtop: cannot stop gone: No such file or directory; press Ctrl-C again to leave it\n"
        )
        with pytest.raises(SystemExit) as left:
            signal.raise_signal(signal.SIGTERM)
        assert left.value.code == 130
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)


def test_a_killed_viewer_leaves_the_experiment_alone(home: Path) -> None:
    process = Command("lab", "reads", "--quick", *ON_CPU, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: count_of(home, Prepared) > 0)
    process.kill()
    process.wait()
    (run,) = results(home)
    wait_until(lambda: not is_alive(run))
    assert isinstance(events(run)[-1], Concluded)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "there is no experiment 'nonsense'; choose one of reads"),
        (["reads", "--steps", "few"], "steps: 'few' is not a whole number from 1,000"),
        (["reads", "--hidden", "0"], "hidden: '0' is not whole numbers from 1"),
        (["reads", "--device", "cuda:7"], "device: cuda:7 is not on this machine"),
        (["reads", "--dataset", "csv:/nowhere.csv", "--target", "y"], "nowhere.csv"),
    ],
)
def test_bad_input_is_one_clear_line(home: Path, arguments: list[str], message: str) -> None:
    done = epochtop("lab", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not lab_home(home).exists() or results(home) == []
