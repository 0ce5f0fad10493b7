"""The end of a run with several ranks, as rank 0 makes it; the other ranks are not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from epochtop.engine.distributed.leader import RankGroupLeader
from epochtop.engine.distributed.orders import End
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


def test_a_rank_that_has_gone_already_is_no_error() -> None:
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
