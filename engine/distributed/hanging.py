"""A rank that keeps the others waiting: rank 0 finds it, names it, and lets Stop end the run nevertheless.

An exchange between ranks has no time limit, because a pause may last for days and a step for minutes. So a rank hangs if it
does not take part while others wait for it in an exchange, for a time and without any progress of any rank.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from epochtop.engine.distributed.orders import RankFailure
from epochtop.engine.distributed.presence import BEAT_S, Presence, Progress, presence_of

PATIENCE = "EPOCHTOP_RANK_PATIENCE"
"""Environment variable with another patience in seconds."""
PATIENCE_S = 20.0
"""How long a rank may keep others waiting before it is named."""
SUSPENDED_BEATS = 3
"""A process that misses this many beats in a row is not running."""


def patience_s() -> float:
    """The patience that the environment asks for."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(os.environ.get(PATIENCE, PATIENCE_S)))
    return PATIENCE_S


@dataclass(frozen=True)
class Hang:
    """A rank that keeps others waiting."""

    rank: int
    seconds: float
    presence: Presence
    """What the rank has told last."""
    suspended: bool
    """Whether its process does not run."""

    def reason(self) -> str:
        """What the rank does, for people."""
        pid, place = self.presence.pid, self.presence.place
        if self.suspended:
            return f"process {pid} is not running (last at {place}); `kill -CONT {pid}` may continue it"
        return f"it is at {place}"

    def message(self) -> str:
        """The warning."""
        return (
            f"rank {self.rank} has kept the other ranks waiting for {self.seconds:.0f} s: {self.reason()}; "
            "Stop ends the run at its last checkpoint"
        )

    def failure(self) -> RankFailure:
        """How the run ends if it is stopped now."""
        message = f"rank {self.rank} kept the other ranks waiting until the run was stopped: {self.reason()}"
        return RankFailure(rank=self.rank, message=message, advice="resume continues from the last checkpoint")


class HangDetector:
    """Decides which rank hangs, from what the ranks tell. Knows nothing of processes and clocks."""

    def __init__(self, patience_s: float, beat_s: float = BEAT_S) -> None:
        self._suspended_s = SUSPENDED_BEATS * beat_s
        self._patience_s, self._busy_s = patience_s, max(patience_s, self._suspended_s + beat_s)
        """A rank counts as busy only after it would have been seen to be suspended: its last word may be old."""
        self._beats: dict[int, tuple[int, float]] = {}
        """By rank: its last beat, and when it was new."""
        self._situation: object = None
        self._since = 0.0

    def reset(self) -> None:
        """Forget what was seen: this process itself did not run for a while."""
        self._beats, self._situation = {}, None

    def see(self, presences: Mapping[int, Presence], now: float) -> Hang | None:
        """The rank that has kept others waiting for the patience, given the last word of each rank; None if none has."""
        for rank, presence in presences.items():
            if self._beats.get(rank, (-1, now))[0] != presence.beat:
                self._beats[rank] = presence.beat, now
        suspended = [rank for rank in presences if now - self._beats[rank][1] > self._suspended_s]
        busy = [rank for rank, presence in presences.items() if rank not in suspended and not presence.waits_for]
        waiting = [rank for rank in presences if rank not in suspended and presences[rank].waits_for == "others"]
        if not waiting or not (suspended or busy):
            self._situation = None
            return None
        situation = suspended, busy, [presence.orders for presence in presences.values()]
        if situation != self._situation:
            self._situation, self._since = situation, now
        if now - self._since < (self._patience_s if suspended else self._busy_s):
            return None
        rank = (suspended or busy)[0]
        return Hang(rank, now - self._since, presences[rank], rank in suspended)


@dataclass(frozen=True)
class Reactions:
    """What rank 0 does about a hanging rank. All are called from the thread that watches."""

    name: Callable[[str], None]
    """Report it. Takes a message."""
    recovered: Callable[[int], None]
    """Report that the rank takes part again."""
    stop_requested: Callable[[], bool]
    """Whether someone has asked the run to stop."""
    give_up: Callable[[RankFailure], None]
    """End this process, whose main thread waits or loops."""


class Ranks(Protocol):
    """The processes of the ranks."""

    world_size: int

    def connect(self) -> Any:
        """A connection to the store, for the thread that watches."""

    def end_rank(self, report: RankFailure) -> bool:
        """End the process of a rank, which frees the others. False if that is not possible from here."""


class HangWatch:
    """Watches the ranks in a thread of rank 0."""

    def __init__(self, ranks: Ranks, progress: Progress, reactions: Reactions) -> None:
        """`progress` is that of rank 0."""
        self._ranks, self._progress, self._reactions = ranks, progress, reactions
        self.ending = False
        """Whether the run has its result, so that nothing needs a hanging rank any more."""
        self._over = threading.Event()

    @property
    def stop_requested(self) -> bool:
        """Whether someone has asked the run to stop."""
        return self._reactions.stop_requested()

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._work, name="hanging ranks", daemon=True).start()

    def close(self) -> None:
        """Stop watching soon."""
        self._over.set()

    def _work(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is closed
            self._watch(self._ranks.connect(), HangDetector(patience_s(), BEAT_S))

    def _watch(self, store: Any, detector: HangDetector) -> None:
        named: Hang | None = None
        looked_at = monotonic()
        while not self._over.wait(BEAT_S):
            previous, looked_at = looked_at, monotonic()
            if looked_at - previous > SUSPENDED_BEATS * BEAT_S:
                detector.reset()
                continue
            hang = detector.see(self._presences(store), looked_at)
            if hang is None:
                if named is not None:
                    self._reactions.recovered(named.rank)
            elif named is None or named.rank != hang.rank:
                self._reactions.name(hang.message())
            named = hang
            if hang is not None and (self.ending or self.stop_requested):
                if not self._ranks.end_rank(hang.failure()):
                    self._reactions.give_up(hang.failure())
                return

    def _presences(self, store: Any) -> dict[int, Presence]:
        others = {rank: presence_of(store, rank) for rank in range(1, self._ranks.world_size)}
        return {0: self._progress.presence()} | {
            rank: presence for rank, presence in others.items() if presence is not None
        }
