"""Where hooks record: the script's own run if it has one, else a run that this process joins with its first value.

Never raises into the script, except KeyboardInterrupt when a viewer stops it.
"""

from __future__ import annotations

import os
import sys

from epochtop.hooks.loggers import CallDepth
from epochtop.recording import directory, endings
from epochtop.recording.earlier import joining
from epochtop.recording.earlier.joining import log_row
from epochtop.recording.run import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

REPORTS = 20
"""Most problems that are reported."""


class Recorder:
    """Records values of hooks and of loggers in one run."""

    def __init__(self, is_measured: Callable[[str], bool], on_start: Callable[[Run, int], None]) -> None:
        """`is_measured` tells whether the hooks measure a series of this name. `on_start` gets a run that they add to, and its
        number of steps so far.
        """
        self.calls = CallDepth()
        self._is_measured, self._on_start = is_measured, on_start
        self._run: Run | None = None
        self._first_step = 0
        """Number of steps that an earlier process of the command has recorded."""
        self._owners: dict[str, str] = {}
        """Logger whose values a series has."""
        self._reported: set[str] = set()
        self._starting = False
        self.has_begun = False
        """Whether hooks have begun a run in this process."""

    def emit(self, step: int, values: dict[str, Any]) -> None:
        """Record values that the hooks have measured; called after every step. May wait, or raise KeyboardInterrupt."""
        run = self._run
        if run is None or not log_row(run, step + self._first_step, values):
            run = self._start()
            if run is not None:
                log_row(run, step + self._first_step, values)

    def log(self, source: str, values: Mapping[str, Any], step: int | None) -> None:
        """Record values that the script has sent to a logger. A second logger of the same series adds nothing."""
        try:
            run = self._run
            if run is None or run.is_finished:
                run = self._start()
            if run is not None:
                numbers = {str(name): value for name, value in values.items() if is_number(value)}
                own = {self._name(source, name): v for name, v in numbers.items() if self._belongs(source, name)}
                if own:
                    run.log(own, step=None if step is None else step + self._first_step)
        except Exception as error:
            self.report(f"values for {source} are not recorded: {type(error).__name__}: {error}")

    def describe(self, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Add what the script tells a logger to the configuration and the summary, if it does not record a run by itself."""
        try:
            run = self._run or self._start()
            if run is not None and run is joining.hooked:
                for entries, new in ((run.config, config), (run.summary, summary)):
                    changed = {name: value for name, value in new.items() if entries.get(name, entries) != value}
                    if changed:
                        entries.update(changed)
        except Exception as error:
            self.report(f"the configuration is not recorded: {type(error).__name__}: {error}")

    def _belongs(self, source: str, name: str) -> bool:
        return self._owners.setdefault(name, source) == source

    def _name(self, source: str, name: str) -> str:
        """The name of a series; behind that of the logger if the hooks measure one of that name."""
        return f"{source}/{name}" if self._is_measured(name) else name

    def _start(self) -> Run | None:
        """Add to the script's own run, or begin one."""
        if self._starting or os.environ.get(directory.RUN_TO_JOIN) is None:
            return None
        self._starting = True
        try:
            run = endings.newest()
            if run is None and not self.has_begun:
                self.has_begun = True
                run = joining.hooked = Run()  # records nothing on other ranks than 0
                self._first_step = run.step
            if not isinstance(run, Run) or not run.is_recording:
                return None
            self._run = run
            self._on_start(run, self._first_step)
            return run
        finally:
            self._starting = False

    def report(self, message: str) -> None:
        """Tell the user about a problem, once."""
        if message not in self._reported and len(self._reported) < REPORTS:
            self._reported.add(message)
            sys.stderr.write(f"epochtop: {message}\n")

    def event(self, event: dict[str, Any]) -> None:
        """Record an event of docs/run-format.md."""
        if self._run is not None:
            self._run.write_event(event)


def is_number(value: Any) -> bool:
    """Whether a logged value may be a number; anything else that loggers accept is passed over."""
    return not isinstance(value, (str, bytes, dict, list, tuple, type(None))) and hasattr(value, "__float__")
