"""`epochtop.Run` writes a run directory that every reader of the format understands."""

from __future__ import annotations

import argparse
import math
import os
import threading
import time
from collections import UserDict, UserList
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from epochtop.engine.protocol.events import (
    Configured,
    Failed,
    Logged,
    ScriptEnded,
    ScriptStarted,
    Summarized,
)
from epochtop.engine.runs import paths
from epochtop.engine.runs.reader import Follower, is_alive, read_record
from epochtop.recording import directory
from epochtop.recording.run import Run
from tests.recording.scripts import decode, only_run, recorded, run, series
from tests.support.engines import wait_until


@pytest.fixture
def recording() -> Iterator[Run]:
    """A run that ends with the test."""
    with Run("Night run", config={"lr": 0.1}) as started:
        yield started


def path_of(run: Run) -> Path:
    assert run.path is not None
    return Path(run.path)


# --- the directory -------------------------------------------------------------------------------------------


def test_a_run_is_complete_and_alive_from_the_start(recording: Run, home: Path) -> None:
    path = only_run(home)
    assert path == path_of(recording)
    assert path.name.startswith("night-run-")
    assert is_alive(path)
    assert path.stat().st_mode & 0o777 == 0o700
    record = read_record(path)
    assert (record.name, record.pid, record.protocol) == ("Night run", os.getpid(), 1)
    assert record.script is not None
    assert record.script.config == {"lr": 0.1}
    recording.finish()
    assert not is_alive(path)
    assert not (path / ".reserve").exists()


def test_values_arrive_without_any_further_call(recording: Run) -> None:
    recording.log(loss=0.5)
    wait_until(lambda: series(path_of(recording)).get("loss") == [(0, 0.5)])


def test_the_first_and_the_last_event_frame_the_run(home: Path) -> None:
    before = time.time()
    with Run() as recording:
        for value in range(10):
            recording.log(loss=value)
    first, *_, last = recorded(only_run(home))
    assert isinstance(first, ScriptStarted)
    assert (first.pid, first.step) == (os.getpid(), 0)
    assert isinstance(last, ScriptEnded)
    assert (last.outcome, last.steps, last.dropped) == ("finished", 10, 0)
    assert before - 1 < first.time <= last.time < time.time() + 1
    assert 0 < last.seconds < time.time() - before + 1


def test_the_home_folder_is_the_one_that_the_app_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variables in ({"EPOCHTOP_HOME": "~/x"}, {"XDG_DATA_HOME": str(tmp_path)}, {"XDG_DATA_HOME": " "}, {}):
        for name in ("EPOCHTOP_HOME", "XDG_DATA_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert directory.home() == str(paths.home())


def test_two_runs_of_one_name_are_two_runs(home: Path) -> None:
    with Run("same") as first, Run("same") as second:
        first.log(loss=1.0)
        second.log(loss=2.0)
    assert series(path_of(first)) == {"loss": [(0, 1.0)]}
    assert series(path_of(second)) == {"loss": [(0, 2.0)]}
    assert len(list(home.iterdir())) == 2


def test_a_home_folder_that_cannot_be_written_is_reported_and_nothing_is_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with Run("nowhere", folder=blocked / "runs") as recording:
        recording.log(loss=1.0)
        assert recording.path is None
        assert capsys.readouterr().err.count("/runs: Not a directory") == 1
        blocked.unlink()
        assert recording._writer is not None
        recording._writer._next_try = 0.0
        wait_until(lambda: recording.path is not None and "loss" in series(path_of(recording)))


# --- steps -----------------------------------------------------------------------------------------------------


def test_steps_follow_each_other_unless_the_script_names_them(home: Path) -> None:
    with Run() as recording:
        recording.log(loss=1.0)
        recording.log(loss=2.0)
        assert recording.step == 2
        recording.log(loss=3.0, step=10)
        recording.log(accuracy=0.5, step=10)
        recording.log(loss=4.0)
        recording.log(loss=5.0, step=0)
        recording.log({"a": 1.0}, commit=False)
        recording.log({"b": 2.0})
        recording.log(loss=6.0, step=np.int64(20))
        recording.log(loss=7.0, step=21.0)  # type: ignore[arg-type]
    assert series(only_run(home)) == {
        "loss": [(0, 1.0), (1, 2.0), (10, 3.0), (11, 4.0), (0, 5.0), (20, 6.0), (21, 7.0)],
        "accuracy": [(10, 0.5)],
        "a": [(1, 1.0)],
        "b": [(1, 2.0)],
    }


@pytest.mark.parametrize("step", [-1, "5", 1 << 70, math.nan, [1]])
def test_a_wrong_step_is_reported_and_the_next_one_is_used(
    step: object, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run() as recording:
        recording.log(loss=1.0)
        recording.log(loss=2.0, step=step)  # type: ignore[arg-type]
    assert series(only_run(home)) == {"loss": [(0, 1.0), (1, 2.0)]}
    assert capsys.readouterr().err.startswith("epochtop: step must be")


def test_values_of_several_threads_all_arrive(home: Path) -> None:
    with Run() as recording:
        threads = [
            threading.Thread(target=lambda n=n: [recording.log({f"t{n}": i}) for i in range(500)]) for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    values = series(only_run(home))
    assert {name: [value for _, value in pairs] for name, pairs in values.items()} == {
        f"t{n}": list(range(500)) for n in range(4)
    }
    assert sorted(step for pairs in values.values() for step, _ in pairs) == list(range(2000))


# --- reading while it is written ------------------------------------------------------------------------------


def test_two_viewers_read_the_same_while_it_is_written(home: Path) -> None:
    recording = Run()
    path = path_of(recording)
    seen: list[list[Logged]] = [[], []]

    def follow(events: list[Logged]) -> None:
        follower = Follower(path)
        while True:
            batch = follower.read()
            events += [event for event in batch if isinstance(event, Logged)]
            if any(isinstance(event, ScriptEnded) for event in batch):
                follower.close()
                return

    viewers = [threading.Thread(target=follow, args=(events,)) for events in seen]
    for viewer in viewers:
        viewer.start()
    for step in range(3000):
        recording.log(loss=float(step))
        if step % 500 == 0:
            time.sleep(0.05)
    recording.finish()
    for viewer in viewers:
        viewer.join()
    for events in seen:
        assert [pair for event in events for pair in decode(event)["loss"]] == [(step, step) for step in range(3000)]


# --- configuration and summary ------------------------------------------------------------------------------------


@dataclass
class Nested:
    depth: int = 3
    path: Path = Path("a/b")


def test_the_configuration_is_stored_flat_and_reads_as_it_was_given(home: Path) -> None:
    config = {"lr": 0.1, "model": Nested(), "list": [1, (2, "x")], "huge": 1 << 80, "f": print, "t": np.float32(0.5)}
    with Run(config=config) as recording:
        assert recording.config["model"].depth == 3
        assert recording.config.lr == 0.1
        recording.config.update({"lr": 0.2, "data": {"name": "x"}})
        recording.config.epochs = 5
        recording.config.setdefaults({"lr": 9, "seed": 1})
        assert dict(recording.config)["lr"] == 0.2
    record = read_record(only_run(home))
    assert record.script is not None
    assert record.script.config == {
        "lr": 0.1, "model/depth": 3, "model/path": "a/b", "list": [1, [2, "x"]], "huge": str(1 << 80),
        "f": "builtins.print", "t": 0.5,
    }  # fmt: skip
    changes = [event.values for event in recorded(only_run(home)) if isinstance(event, Configured)]
    assert changes == [{"lr": 0.2, "data/name": "x"}, {"epochs": 5}, {"seed": 1}]


class Hostile:
    """An object that raises whenever it is looked at."""

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


def test_a_configuration_of_hostile_and_endless_values_is_described(home: Path) -> None:
    endless: dict[str, object] = {"a": 1}
    endless["self"] = endless
    Run(config={"x": Hostile(), "lr": 1, "endless": endless}).finish()
    record = read_record(only_run(home))
    assert record.script is not None
    assert record.script.config["lr"] == 1
    assert record.script.config["endless/a"] == 1
    assert "Hostile" in record.script.config["x"]


class Fields(SimpleNamespace):
    """An object with named fields, as pydantic makes them."""

    model_fields = ("rate",)


class Unset(UserDict[str, object]):
    """A mapping of which an entry has no value, as OmegaConf's `???`, in a class that is no `dict`."""

    def __getitem__(self, name: str) -> object:
        if self.data[name] == "???":
            raise LookupError(f"missing mandatory value: {name}")
        return self.data[name]


def test_the_configuration_of_a_library_is_stored_flat(home: Path) -> None:
    model = Unset(sizes=UserList([1, 2]), name="???", inner=Unset(depth=3))
    config = Unset(model=model, data=SimpleNamespace(path="x"), fields=Fields(rate=0.5), folder="???")
    Run(config=config).finish()
    record = read_record(only_run(home))
    assert record.script is not None
    assert record.script.config == {
        "model/sizes": [1, 2], "model/name": None, "model/inner/depth": 3, "data/path": "x", "fields/rate": 0.5, "folder": None,
    }  # fmt: skip


def test_a_namespace_is_a_configuration(home: Path) -> None:
    Run(config=argparse.Namespace(lr=0.1, name="x")).finish()
    record = read_record(only_run(home))
    assert record.script is not None
    assert record.script.config == {"lr": 0.1, "name": "x"}


def test_a_summary_is_recorded(home: Path) -> None:
    with Run() as recording:
        recording.summary["best"] = torch.tensor([0.5])
        recording.summary["best"] = 0.9
        recording.summary.update(epoch=3)
    assert [event.values for event in recorded(only_run(home)) if isinstance(event, Summarized)] == [
        {"best": 0.5},
        {"best": 0.9},
        {"epoch": 3},
    ]


# --- continuing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["id", "name", "path"])
def test_a_run_continues_at_its_next_step(query: str, home: Path) -> None:
    with Run("night") as first:
        first.log(loss=1.0)
        first.log(loss=2.0, step=7)
        first.log(loss=3.0, step=5)
    again = {"id": first.id, "name": "night", "path": path_of(first)}[query]
    with Run(resume=again) as second:
        assert (second.id, second.step, second.name) == (first.id, 8, "night")
        second.log(loss=4.0)
    path = only_run(home)
    assert series(path) == {"loss": [(0, 1.0), (7, 2.0), (5, 3.0), (8, 4.0)]}
    starts = [event.step for event in recorded(path) if isinstance(event, ScriptStarted)]
    ends = [event for event in recorded(path) if isinstance(event, ScriptEnded)]
    assert starts == [0, 8]
    assert [event.steps for event in ends] == [8, 9]
    assert ends[0].seconds < ends[1].seconds


def test_a_run_that_is_still_recorded_is_not_continued(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run("night") as first, Run(resume=first.id) as second:
        assert second.id != first.id
    assert "is being recorded by another process" in capsys.readouterr().err


def test_a_log_cut_off_at_any_byte_and_continued_loses_no_other_record(home: Path, tmp_path: Path) -> None:
    with Run() as recording:
        for value in range(3):
            recording.log(loss=value)
            assert recording._writer is not None
            recording._writer.wake()
            time.sleep(0.005)
        recording.summary["best"] = 1
    whole = (path_of(recording) / "events.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "heartbeat").touch()
    for size in range(len(lines[0]), len(whole)):
        (tmp_path / "lock").touch()
        (tmp_path / "events.jsonl").write_bytes(whole[:size])
        directory.lock_again(str(tmp_path)).close()
        with open(tmp_path / "events.jsonl", "ab") as log:
            log.write(lines[-1])
        complete = []
        for line in lines:
            if sum(map(len, complete)) + len(line) - 1 > size:
                break
            complete.append(line)
        kept = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
        assert kept[: len(complete)] == complete
        assert kept[-1] == lines[-1]
        assert len(kept) <= len(complete) + 2


# --- many processes --------------------------------------------------------------------------------------------


MANY = """
    import os
    from epochtop import Run

    for number in range(32):
        if os.fork() == 0:
            run = Run("many")
            for record in range(1000):
                run.log(value=number * 1000 + record)
            run.finish()
            os._exit(0)
    for _ in range(32):
        assert os.wait()[1] == 0
"""


def test_32_processes_record_into_one_home_without_loss(home: Path) -> None:
    status, _, errors = run(MANY, home)
    assert (status, errors) == (0, "")
    recorded = sorted(series(path)["value"] for path in home.iterdir())
    assert recorded == [[(i, n * 1000 + i) for i in range(1000)] for n in range(32)]


def test_a_failure_is_recorded_with_its_traceback(home: Path) -> None:
    def train() -> float:
        with Run() as recording:
            recording.log(loss=1.0)
            return 1 / 0

    with pytest.raises(ZeroDivisionError):
        train()
    last = recorded(only_run(home))[-1]
    assert isinstance(last, Failed)
    assert last.message == "ZeroDivisionError: division by zero"
    assert "1 / 0" in last.traceback
    assert last.step == 1
