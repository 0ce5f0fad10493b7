"""Several processes × one run or one home at the same moment: one of them gets it, and nothing is lost."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from epochtop.engine.protocol.commands import Pause, Resume, Set, Stop
from epochtop.engine.protocol.events import Changed, Logged
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import run_paths, summarize
from epochtop.engine.runs.reader import is_alive
from epochtop.engine.runs.writer import create, reopen, send
from tests.support.engines import Engine, Watch, events, losses, train_here

SPEC = RunSpec(epochs=10**9, threads=1, device="cpu", executor="eager", refresh_ms=10, save_every=0.05)


def test_runs_that_start_together_get_folders_of_their_own(home: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: create(home, RunSpec(), {}, 0.0), range(64)))
    for _, lock in made:
        lock.close()
    assert len({path for path, _ in made}) == len(run_paths(home)) == 64


def test_one_of_several_engines_takes_a_run_up(home: Path) -> None:
    run = train_here(RunSpec(epochs=20, threads=1, device="cpu", executor="eager"), home)

    def attempt(_: int) -> object:
        try:
            return reopen(run)
        except Invalid as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(attempt, range(8)))
    taken = [one for one in results if not isinstance(one, Invalid)]
    assert len(taken) == 1
    assert all("still running" in str(one) for one in results if isinstance(one, Invalid))
    taken[0].close()  # type: ignore[attr-defined]


def test_viewers_that_command_at_once_are_all_answered(engine: Engine, home: Path) -> None:
    watch = Watch(engine.train(SPEC, home))
    watch.until(Logged)
    rates = [round(0.001 * (number + 1), 3) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda rate: send(watch.run, Set(field="learning_rate", value=rate, by=f"viewer {rate}")), rates))
    for rate in rates:
        watch.until(Changed, lambda event, rate=rate: event.value == rate)  # type: ignore[misc]
    send(watch.run, Pause())
    send(watch.run, Resume())
    send(watch.run, Stop())
    assert engine.wait() == 0
    changed = [event.value for event in events(watch.run) if isinstance(event, Changed)]
    assert sorted(changed) == rates


@pytest.mark.parametrize("fault", ["deleted", "renamed"])
def test_a_folder_that_disappears_ends_nothing_else(fault: str, home: Path) -> None:
    """The engine keeps its open files; the run ends in order or with a reason, and other runs are not affected."""
    other = train_here(RunSpec(epochs=20, threads=1, device="cpu", executor="eager"), home)
    with Engine() as engine:
        watch = Watch(engine.train(SPEC, home))
        watch.until(Logged)
        run = watch.run
        if fault == "deleted":
            shutil.rmtree(run, ignore_errors=True)
            shutil.rmtree(run, ignore_errors=True)  # the engine may have written in between
        else:
            run.rename(home / "elsewhere-mlp-0000")
        time.sleep(0.3)
        engine.process.terminate()
        engine.wait()
    assert summarize(other).state == "finished"
    assert other in run_paths(home)
    if fault == "renamed":
        moved = home / "elsewhere-mlp-0000"
        assert not is_alive(moved)
        assert len(losses(moved)) > 0
