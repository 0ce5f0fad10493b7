"""Decides when a run is worth a message, and hands it over. Called by the thread that writes the run; never waits or raises.

Imports built-in modules only.
"""

from __future__ import annotations

import time

from epochtop.configuration import is_present, load
from epochtop.notifications.delivery import Delivery
from epochtop.notifications.detection import LossWatch, StallWatch, is_loss

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

MOST_SERIES = 100
"""Most losses of a run that are watched."""


def notifier(run: str, warn: Callable[[str], None]) -> Notifier | None:
    """What sends the messages of the run at this path; None if no route is configured.

    `warn` receives a sentence, once, if a message cannot be sent.
    """
    if not is_present():
        return None
    try:
        configuration = load.load()
    except Exception as error:
        warn(f"the configuration cannot be read: {type(error).__name__}")
        return None
    if not configuration["notifications.webhook"] and not configuration["notifications.command"]:
        return None
    return Notifier(run, configuration.values, warn, configuration.path)


class Notifier:
    """Watches one run."""

    def __init__(
        self, run: str, values: Mapping[str, Any], warn: Callable[[str], None], configuration_path: str
    ) -> None:
        """`values` are those of the configuration at this path."""
        self._run, self._warn, self._configuration_path = run, warn, configuration_path
        self._events = frozenset(values["notifications.events"])
        self._shortest_s = float(values["notifications.shortest_run_s"])
        self._wait_s = float(values["notifications.wait_s"])
        self._stall = StallWatch(values["notifications.stall_factor"], values["notifications.stall_s"])
        self._losses: dict[str, LossWatch] = {}
        self._deliveries: list[Delivery] = []
        self._has_warned = self._has_diverged = False
        self._started_at = time.monotonic()
        self._step = 0
        self._loss: tuple[str, float] | None = None

    # --- what happens ----------------------------------------------------------------------------------------

    def stepped(self, steps: int, values: Mapping[str, Sequence[float]]) -> None:
        """Steps were recorded: the number of steps so far, and the new values of some series."""
        self._stall.stepped(time.monotonic())
        self._step = steps
        for name, new in values.items():
            if len(new) and is_loss(name):
                self._look_at_loss(name, new)

    def _look_at_loss(self, name: str, new: Sequence[float]) -> None:
        self._loss = name, float(new[-1])
        if self._has_diverged or "diverged" not in self._events:
            return
        if name not in self._losses and len(self._losses) >= MOST_SERIES:
            return
        what = self._losses.setdefault(name, LossWatch()).add(new)
        if what:
            self._diverge(f"{name} {what}")

    def reached(self, steps: int | None) -> None:
        """The number of steps, where the process that records the end has not recorded the steps; None if unknown."""
        self._step = max(self._step, steps or 0)

    def paused(self) -> None:
        """The run is paused: it cannot stall."""
        self._stall.pause()

    def resumed(self) -> None:
        """The run goes on."""
        self._stall.resume(time.monotonic())

    def tick(self) -> None:
        """Look at the clock and at what was sent."""
        if "stalled" in self._events:
            gap_s = self._stall.stalled_s(time.monotonic())
            if gap_s is not None:
                self._send("stalled", f"no step for {_duration(gap_s)}")
        for delivery in list(self._deliveries):
            delivery.poll()
            if delivery.is_done:
                self._deliveries.remove(delivery)
                self._report(delivery.failures)

    def ended(self, event: str, reason: str = "") -> None:
        """The run has ended as `finished`, `stopped`, `failed` or `diverged`, and its log is complete."""
        if event == "diverged":
            self._diverge(reason, is_end=True)
        elif event not in ("finished", "stopped") or time.monotonic() - self._started_at >= self._shortest_s:
            self._send(event, reason, is_end=True)

    def wait(self) -> None:
        """Wait for the messages on their way, as long as the user has configured; by default not at all."""
        give_up_at = time.monotonic() + self._wait_s
        for delivery in self._deliveries:
            delivery.wait(give_up_at - time.monotonic())

    # --- sending ---------------------------------------------------------------------------------------------

    def _diverge(self, reason: str, is_end: bool = False) -> None:
        """Report a divergence, once."""
        if not self._has_diverged:
            self._has_diverged = True
            self._send("diverged", reason, is_end)

    def _send(self, event: str, reason: str, is_end: bool = False) -> None:
        if event not in self._events:
            return
        facts = [reason] if reason else []
        if self._step:
            facts.append(f"step {self._step:,}")
        if self._loss is not None:
            facts.append("{} {:.5g}".format(*self._loss))
        facts.append(_duration(time.monotonic() - self._started_at))
        try:
            import json

            message = {"event": event, "text": " · ".join(facts)[:4000], "step": self._step, "path": self._run}
            self._deliveries.append(
                Delivery(json.dumps({**message, "is_end": is_end}).encode(), self._configuration_path)
            )
        except Exception as error:
            self._report([f"the process that sends it cannot be started: {error}"])

    def _report(self, failures: list[str]) -> None:
        if failures and not self._has_warned:
            self._has_warned = True
            self._warn(f"a notification was not sent: {'; '.join(failures)}"[:500])


def _duration(seconds: float) -> str:
    """A duration in words, such as `3 h 12 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
