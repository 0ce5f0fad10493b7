"""Logs of other tools in the app: followed like runs, listed among them, never deleted."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from epochtop.engine.protocol.events import AnyEvent, Event
from epochtop.engine.runs.opened import folders
from epochtop.engine.runs.opened.sources import record_of
from epochtop.tui.client.follower import Following
from epochtop.tui.screens.run_list import Lister
from epochtop.tui.state.run import RunState
from tests.formats.test_scan import put
from tests.formats.writers import TIME, losses, single, tensorboard, tfrecord
from tests.runs.opened.test_follower import values_of
from tests.support.engines import wait_until
from tests.support.runs import finished, losses_like_iris, started, windows, write_run


def event_file(folder: Path, count: int) -> Path:
    """A TensorBoard run that ended long ago."""
    path = put(folder / "tb" / "events.out.tfevents.1", tensorboard(losses(count)))
    os.utime(path, (TIME, TIME))
    return path


def test_a_log_is_followed_as_it_grows(tmp_path: Path) -> None:
    path = event_file(tmp_path, 5)
    state, events = RunState(record_of(path.parent)), list[AnyEvent]()
    with closing(Following(path.parent)) as following:

        def steps() -> int:
            for event in following.next_batch():
                if isinstance(event, Event):
                    events.append(event)
                    state.apply(event)
            return len(values_of(events).get("train/loss", {}))

        wait_until(lambda: steps() == 5 and state.state == "finished")
        with open(path, "ab") as file:
            file.write(b"".join(map(tfrecord, losses(8)[5:])))
        wait_until(lambda: steps() == 8)
        assert not following.done
    assert state.name == "tb"
    assert values_of(events)["train/loss"] == {step: single(1 / (step + 1)) for step in range(8)}


def test_a_log_that_is_removed_ends(tmp_path: Path) -> None:
    path = event_file(tmp_path, 5)
    with closing(Following(path.parent)) as following:
        wait_until(lambda: following.waiting > 0)
        path.unlink()
        path.parent.rmdir()

        def done() -> bool:
            following.next_batch()
            return following.done

        wait_until(done)


def test_runs_and_opened_logs_are_one_list(tmp_path: Path) -> None:
    home, values = tmp_path / "home", losses_like_iris(100)
    own = write_run(home, "iris-mlp-a4f0", [started(100), *windows(values), finished("finished", values)])
    path = event_file(tmp_path / "logs", 5)
    lister = Lister(home)
    assert [run.id for run in lister.list()] == [own.name]
    folders.add(home, [tmp_path / "logs"])
    board = path.parent
    listed = {run.id: run for run in lister.list()}
    assert listed.keys() == {own.name, str(board)}
    assert (home / str(board), listed[str(board)].name, listed[str(board)].state) == (board, "tb", "finished")
    event_file(tmp_path / "logs", 9)
    os.utime(path, (TIME + 1, TIME + 1))
    assert {run.id: run.steps for run in lister.list()}[str(board)] == 9
    folders.hide(home, board)
    assert [run.id for run in lister.list()] == [own.name]
    assert path.exists()
