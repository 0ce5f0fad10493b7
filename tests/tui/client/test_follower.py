"""Following a run: what is history and what is news, and that what changes apart is painted apart."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from textual.geometry import Region
from textual.widget import Widget

from epochtop.engine.protocol.events import AnyEvent, Continued, Failed, Finished, Logged, ScriptStarted, encode
from epochtop.engine.runs.heartbeat import DEAD_S
from epochtop.engine.runs.paths import EVENTS, HEARTBEAT
from epochtop.engine.runs.reader import READ_BYTES, read_record
from epochtop.tui.client.follower import AHEAD, Death, Following
from epochtop.tui.client.session import Session
from epochtop.tui.client.starter import Starter
from epochtop.tui.state.run import RunState
from tests.support.engines import HANGING_S, wait_until
from tests.support.fakes.script_runs import SCRIPT_STARTED, logged, script_ended, write_script_run
from tests.support.runs import STEPS, engine_alive, finished, losses_like_iris, started, windows, write_run
from tests.support.ui.screens import furnished, show_run, still_app


def test_history_is_distinguished_from_news(tmp_path: Path) -> None:
    values = [1.0] * (READ_BYTES // 2)
    run = write_run(tmp_path, "iris-mlp-0001", [started(len(values)), *windows(values), finished("finished", values)])
    with closing(Following(run)) as following:
        wait_until(lambda: following.waiting > 1)
        assert following.behind
        taken = []
        while not following.done:
            taken += following.next_batch()
        assert len(taken) == len(windows(values)) + 2
        assert not following.behind


@pytest.mark.parametrize("last", [True, False], ids=["ended", "died"])
def test_a_run_that_is_over_is_followed_when_another_process_resumes_it(tmp_path: Path, last: bool) -> None:
    values = [1.0] * 10
    ending = [finished("stopped", values)] if last else []
    run = write_run(tmp_path, "iris-mlp-0001", [started(20), *windows(values), *ending])
    taken: list[object] = []

    def take() -> bool:
        taken.extend(following.next_batch())
        return following.done

    with closing(Following(run)) as following:
        wait_until(take)
        assert isinstance(taken[-1], Finished if last else Death)
        with engine_alive(run):
            continued = Continued(time=0.0, step=10, recorded=10, device="cpu")
            with open(run / EVENTS, "ab") as log:
                log.write(encode(continued) + b"\n")
            wait_until(lambda: (take(), continued in taken)[1])
            assert not following.done
        wait_until(take)  # its new process has ended without a last event
        assert isinstance(taken[-1], Death)


def test_windows_of_a_live_run_are_not_history_however_many_wait(tmp_path: Path) -> None:
    news = windows([1.0] * 5_000)
    run = write_run(tmp_path, "iris-mlp-0001", [started(), news[0]])
    with engine_alive(run), closing(Following(run)) as following:
        for count, window in enumerate(news[1 : AHEAD - 1], 1):
            wait_until(lambda count=count: following.waiting == count)
            looks: set[float] = set()  # an engine leaves time for them between its windows
            wait_until(lambda looks=looks: (looks.add(following._look_at), len(looks) > 2)[1])
            with open(run / EVENTS, "ab") as log:
                log.write(encode(window) + b"\n")
        wait_until(lambda: following.waiting == AHEAD - 1)
        assert not following.behind


def test_a_killed_script_is_dead_soon_also_where_locks_have_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After everything is read, the heartbeat ends one second before it is too old."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    run = write_script_run(tmp_path, "resnet-1a2b", [SCRIPT_STARTED, logged(0, loss=[1.0])])
    (run / HEARTBEAT).write_text(f"{socket.gethostname()} 7 0\n")
    os.utime(run / HEARTBEAT, (time.time() + HANGING_S, time.time() + HANGING_S))
    with closing(Following(run)) as following:
        wait_until(lambda: following.waiting)
        assert [type(event) for event in following.next_batch()] == [ScriptStarted, Logged]
        assert not following.done
        os.utime(run / HEARTBEAT, (time.time() - DEAD_S + 1, time.time() - DEAD_S + 1))
        wait_until(lambda: following.waiting)
        assert [type(event) for event in following.next_batch()] == [Death]
        wait_until(lambda: following.done)


def test_an_exit_status_that_comes_a_moment_after_the_death_is_shown(tmp_path: Path) -> None:
    """An engine releases the lock of its run before its exit status is known."""
    run = write_run(tmp_path, "iris-mlp-0001", [started(), *windows([1.0] * 10)])
    starter, state = Starter(lambda _: None), RunState(read_record(run))
    with subprocess.Popen(["sh", "-c", "sleep 0.5; kill -KILL $$"]) as engine:
        starter._engines[run] = SimpleNamespace(process=engine)  # type: ignore[assignment]
        with closing(Session(run, state, starter.exit_code)) as viewed:
            wait_until(lambda: (viewed.drain(), state.over)[1])
    starter.close()
    assert "killed by SIGKILL" in state.verdict()


@pytest.mark.parametrize("last", [script_ended(1), Failed(time=1.0, step=1, message="x")], ids=["ended", "failed"])
def test_a_script_that_ended_did_not_die_and_one_that_continued_did(tmp_path: Path, last: AnyEvent) -> None:
    ended = write_script_run(tmp_path, "a-0001", [SCRIPT_STARTED, last])
    continued = write_script_run(tmp_path, "a-0002", [SCRIPT_STARTED, last, SCRIPT_STARTED])
    for run, died in ((ended, False), (continued, True)):
        with closing(Following(run)) as following:
            news: list[object] = []
            while not following.done:
                news += following.next_batch()
            assert (type(news[-1]) is Death) is died


async def test_the_chart_and_the_lines_of_figures_are_painted_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = losses_like_iris(STEPS)
    run = write_run(tmp_path, "iris-mlp-0001", [started(), *windows(values)[:20]])
    app = still_app(tmp_path)
    with engine_alive(run):
        async with app.run_test(size=(120, 40)) as pilot:
            await furnished(pilot)
            await show_run(pilot, run, 10_000)
            with open(run / EVENTS, "ab") as log:
                log.writelines(encode(window) + b"\n" for window in windows(values)[20:])
            session = app.runs.session
            assert session is not None
            while not session.following.waiting:
                await asyncio.sleep(0.01)
            painted: set[Widget] = set()
            chart, line = app.main.chart, app.main.status_line
            for widget in (chart, line):
                monkeypatch.setattr(widget, "refresh", _noting(widget, painted))
            seen = []
            for _ in range(2 * app.pulses_per_picture):
                app._pulse()
                seen.append((chart in painted, line in painted))
                painted.clear()
            assert (True, True) not in seen
            assert (True, False) in seen
            assert (False, True) in seen


def _noting(widget: Widget, painted: set[Widget]) -> Callable[..., object]:
    refresh = widget.refresh

    def noted(*regions: Region, **how: bool) -> object:
        painted.add(widget)
        return refresh(*regions, **how)

    return noted
