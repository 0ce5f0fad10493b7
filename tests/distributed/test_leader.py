"""Steps and the end of a run with several ranks, as rank 0 orders them; the other ranks are not there."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from epochtop.engine.distributed.leader import RankGroupLeader
from epochtop.engine.distributed.orders import End
from epochtop.engine.training import loop as loop_module
from epochtop.engine.training.loop import Loop


class Launcher:
    """Ranks that are told to end."""

    world_size = 2

    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1


class Group:
    """A group that notes what is done with it."""

    def __init__(self, fails: bool = False) -> None:
        self.done: list[object] = []
        self._fails = fails

    def send(self, order: object) -> None:
        if self._fails:
            raise RuntimeError("Connection closed by peer")
        self.done.append(type(order))

    def close(self) -> None:
        self.done.append("closed")


def leader_of(group: Group) -> tuple[RankGroupLeader, Launcher]:
    launcher: Any = Launcher()
    leader = RankGroupLeader(launcher)
    leader._group = group  # type: ignore[assignment]
    return leader, launcher


def test_rank_0_leaves_the_group_with_the_others() -> None:
    """NCCL lets the other ranks leave only together with it; they waited ten seconds."""
    group = Group()
    leader, launcher = leader_of(group)
    leader.end()
    assert group.done == [End, "closed"]
    assert launcher.released == 1


def test_a_rank_that_has_gone_already_is_not_an_error() -> None:
    group = Group(fails=True)
    leader, launcher = leader_of(group)
    leader.end()
    assert (group.done, launcher.released) == ([], 1)


def rescued(is_ready: bool) -> list[object]:
    """What a loop with other ranks publishes after an exception."""
    published: list[object] = []
    loop: Any = SimpleNamespace(
        leader=object(),
        window=SimpleNamespace(is_ready=is_ready, drain=lambda: "the last window"),
        _publish=published.append,
    )
    Loop.rescue(loop)
    return published


def test_an_exchange_that_never_ends_is_not_waited_for() -> None:
    """A lost rank leaves an all-reduce on the device that nothing completes."""
    assert rescued(is_ready=False) == []
    assert rescued(is_ready=True) == ["the last window"]


def test_ranks_take_no_more_steps_than_their_device_does_in_a_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enqueueing takes almost no time, so the clock of the host would allow any number of steps."""
    ordered: list[int] = []
    boundaries: list[int] = []

    def boundary() -> None:
        boundaries.append(loop.step)
        loop._enqueue_limit = loop.step + 30  # of the device

    loop: Any = SimpleNamespace(
        step=0, ending=None, rate=0.1, refresh_s=0.1, deadline=math.inf, window=None,
        job=SimpleNamespace(schedule=SimpleNamespace(state_dict=dict)),
        _pace=SimpleNamespace(steps=50, update=lambda *_: None), _enqueue_limit=30, _boundary=boundary,
    )  # fmt: skip
    leader: Any = SimpleNamespace(take_steps=lambda count, *_: ordered.append(count))
    monkeypatch.setattr(loop_module, "run_steps", lambda *_: None)
    Loop._run_together(loop, leader, 100)
    assert ordered == [30, 30, 30, 10]
    assert boundaries == [30, 60, 90]
