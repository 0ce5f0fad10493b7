"""The home folder of runs: summaries of runs in every state; finding, renaming, deleting."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path
from typing import IO

import msgspec
import pytest

from epochtop.engine.protocol.events import AnyEvent, Evaluated, Losses, Paused, Resumed, encode
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import index, paths
from epochtop.engine.runs.index import delete, find, find_any, rename, run_paths, summarize
from epochtop.engine.runs.reader import Follower, read_record
from epochtop.engine.runs.writer import create
from tests.support.logs import FAILED, FINISHED, LOSSES, STARTED, end, log, packed
from tests.support.runs import engine_alive


def summary_of(live: tuple[Path, IO[bytes]], *written: AnyEvent) -> index.RunSummary:
    """The summary of a run whose engine is gone."""
    return summarize(end(live, *written))


def test_a_live_run_is_listed_as_running_with_its_latest_values(live: tuple[Path, IO[bytes]]) -> None:
    run, lock = live
    with lock:
        assert summarize(run).state == "running"
        newest = Losses(first_step=3, seconds=0.5, values=packed(1.0, 0.25), reads=2, waited=0.0)
        tested = Evaluated(step=4, seconds=0.4, loss=0.5, metric=0.75)
        (run / paths.EVENTS).write_bytes(log(*map(encode, [STARTED, LOSSES, tested, newest])) + b'{"type":"Fini')
        summary = summarize(run)
        assert summary.state == "running"
        assert (summary.name, summary.dataset, summary.device) == ("night run", "iris", "cpu")
        assert (summary.steps, summary.final_loss, summary.seconds) == (5, 0.25, 0.5)
        assert (summary.test_loss, summary.test_metric, summary.note) == (0.5, 0.75, "")


@pytest.mark.parametrize(("after", "state"), [([], "paused"), ([Resumed(step=3)], "running")])
def test_a_run_is_listed_as_paused_until_it_resumes(
    live: tuple[Path, IO[bytes]], after: list[AnyEvent], state: str
) -> None:
    run, lock = live
    with lock:
        (run / paths.EVENTS).write_bytes(log(*map(encode, [STARTED, LOSSES, Paused(step=3), *after])))
        assert summarize(run).state == state


@pytest.mark.parametrize("written", [(), (STARTED, LOSSES), (STARTED, LOSSES, Paused(step=3))], ids=len)
def test_an_engine_that_ended_without_a_last_event_died(
    live: tuple[Path, IO[bytes]], written: tuple[AnyEvent, ...]
) -> None:
    summary = summary_of(live, *written)
    assert summary.state == "died"
    assert summary.note == "the engine died"
    (live[0] / paths.OUTPUT).write_text("Segmentation fault\n")
    assert "output.log" in summarize(live[0]).note


def test_a_finished_run_is_listed_with_its_summary(live: tuple[Path, IO[bytes]]) -> None:
    summary = summary_of(live, STARTED, LOSSES, FINISHED)
    assert (summary.state, summary.steps, summary.seconds) == ("finished", 3, 0.125)
    assert (summary.final_loss, summary.test_loss, summary.test_metric, summary.note) == (0.75, 0.25, 0.9, "")


@pytest.mark.parametrize("outcome", ["stopped", "diverged"])
def test_a_run_that_ended_early_is_listed_with_reason_and_advice(live: tuple[Path, IO[bytes]], outcome: str) -> None:
    changes = {"outcome": outcome, "reason": "the reason", "advice": "the advice"}
    summary = summary_of(live, STARTED, LOSSES, msgspec.structs.replace(FINISHED, **changes))
    assert summary.state == outcome
    assert "the reason" in summary.note
    assert "the advice" in summary.note


def test_a_failed_run_is_listed_with_its_message(live: tuple[Path, IO[bytes]]) -> None:
    summary = summary_of(live, STARTED, LOSSES, FAILED)
    assert (summary.state, summary.note) == ("failed", "out of memory")


def test_a_last_line_longer_than_the_first_read_of_the_end_is_found(live: tuple[Path, IO[bytes]]) -> None:
    huge = Losses(first_step=0, seconds=60.0, values=packed(*[2.0] * 499_999, 0.5), reads=1, waited=0.0)
    assert len(encode(huge)) > 2 * 2**20
    run = end(live, STARTED, huge)
    summary = summarize(run)
    assert (summary.steps, summary.final_loss, summary.device) == (500_000, 0.5, "cpu")
    with closing(Follower(run)) as follower:
        seen = []
        while len(seen) < 2:
            seen += follower.read()
    assert seen == [STARTED, huge]


def test_the_end_of_a_long_log_is_found_without_its_middle(live: tuple[Path, IO[bytes]]) -> None:
    middle = [
        Losses(first_step=100 * n, seconds=n / 10, values=packed(*[1.0] * 100), reads=n, waited=0.0)
        for n in range(3000)
    ]
    summary = summary_of(live, STARTED, *middle, FINISHED)
    assert (summary.state, summary.device) == ("finished", "cpu")


def create_run(home: Path, name: str, age: float, dataset: str = "iris") -> Path:
    """A run that is over; `age` orders the list."""
    run, lock = create(home, RunSpec(name=name, dataset=dataset), {}, time.time())
    lock.close()
    os.utime(run / paths.LOCK, (1e9 - age, 1e9 - age))
    return run


def test_a_run_is_found_by_id_prefix_name_and_last(home: Path) -> None:
    old, new, other = create_run(home, "old one", 30), create_run(home, "", 10), create_run(home, "other", 20, "wine")
    (home / ".new-left-over").mkdir()
    (home / "no run").mkdir()
    assert run_paths(home) == [new, other, old]
    assert find(home, "last") == new
    assert find(home, other.name) == other
    assert find(home, "wine") == other
    assert find(home, "old one") == old
    with pytest.raises(Invalid) as ambiguous:
        find(home, "iris-mlp")
    assert "2 runs" in ambiguous.value.message
    assert old.name in ambiguous.value.message
    assert new.name in ambiguous.value.message
    for query in ("digits", "", "../runs", old.name + "x"):
        with pytest.raises(Invalid, match="there is no run"):
            find(home, query)


def test_a_name_of_two_runs_is_ambiguous_unless_a_live_one_is_preferred(home: Path) -> None:
    create_run(home, "twin", 1)
    live = create_run(home, "twin", 2)
    with pytest.raises(Invalid, match="2 runs"):
        find(home, "twin")
    with pytest.raises(Invalid, match="2 runs"):
        find_any(home, "twin", prefers_live=True)
    with engine_alive(live):
        assert find_any(home, "twin", prefers_live=True) == live


def test_a_home_folder_without_runs_explains_how_to_start_one(home: Path) -> None:
    assert run_paths(home) == []
    with pytest.raises(Invalid, match="epochtop train"):
        find(home, "last")


def test_a_renamed_run_keeps_its_id_and_everything_else(home: Path) -> None:
    run = create_run(home, "before", 1)
    record = read_record(run)
    rename(run, "  after dinner ")
    assert read_record(run) == msgspec.structs.replace(record, spec=RunSpec(name="after dinner"))
    assert find(home, "after dinner") == run
    with pytest.raises(Invalid, match="letters"):
        rename(run, "a/b")
    assert read_record(run).spec.name == "after dinner"


def test_a_live_run_is_not_deleted_and_a_dead_one_is_gone(live: tuple[Path, IO[bytes]]) -> None:
    run, lock = live
    with lock, pytest.raises(Invalid, match="still running; stop it first"):
        delete(run)
    assert run.exists()
    delete(run)
    assert not run.exists()
    with pytest.raises(Invalid, match="cannot delete"):
        delete(run)
