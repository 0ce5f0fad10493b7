"""Runs for programs: `epochtop.runs()` and `epochtop.open(path)`.

Reads run directories and logs of other tools alike, and changes nothing. Arrays are numpy arrays if numpy is installed,
else arrays of the standard library. Never imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from epochtop.engine.runs.opened import lookup
from epochtop.engine.runs.paths import home
from epochtop.engine.runs.values import history

if TYPE_CHECKING:
    from array import array

    from numpy.typing import NDArray

    Numbers = NDArray[Any] | array[Any]


class SeriesData:
    """One series of a run: each step once, in ascending order, with the value that was logged last."""

    def __init__(self, values: history.SeriesValues) -> None:
        self._values = values
        self.name = values.name

    def __len__(self) -> int:
        return len(self._values.steps)

    def __repr__(self) -> str:
        return f"<series {self.name!r} with {len(self)} values>"

    @cached_property
    def steps(self) -> Numbers:
        """Steps, as int64."""
        return _numbers(self._values.steps)

    @cached_property
    def values(self) -> Numbers:
        """Values, as float64."""
        return _numbers(self._values.values)

    @cached_property
    def times(self) -> Numbers:
        """Unix times in seconds, as float64; NaN where the log has none."""
        return _numbers(self._values.times)


class RunData:
    """One run. It is read completely at the first use of anything but its path; :meth:`reload` reads it again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<run {str(self.path)!r}>"

    @cached_property
    def _history(self) -> history.RunHistory:
        return history.load(self.path)

    @property
    def id(self) -> str:
        """Id of a run directory; the absolute path of another tool's log."""
        return self._history.id

    @property
    def name(self) -> str:
        """Display name; the id if it has none."""
        return self._history.name or self._history.id

    @property
    def format(self) -> str:
        """`epochtop` for a run directory, else the format of the log, such as `tensorboard`."""
        return self._history.kind

    @property
    def state(self) -> str:
        """State, such as `running` or `finished`."""
        return self._history.state

    @property
    def created(self) -> float:
        """Unix time in seconds of its beginning."""
        return self._history.created

    @property
    def config(self) -> Mapping[str, Any]:
        """Configuration by name; nested names are joined with `/`."""
        return MappingProxyType(self._history.config)

    @cached_property
    def series(self) -> Mapping[str, SeriesData]:
        """Series by name."""
        return MappingProxyType({name: SeriesData(values) for name, values in self._history.series.items()})

    def reload(self) -> None:
        """Read the run again at the next use, with what was logged since."""
        for name in ("_history", "series"):
            self.__dict__.pop(name, None)


def runs(*paths: str | os.PathLike[str]) -> list[RunData]:
    """The runs at these paths; without paths, those in the home folder, the newest first, and in opened folders.

    A path is a run directory, a log of another tool, or a folder with any number of them. Raises ValueError if a path does
    not exist.
    """
    return [RunData(log.path) for log in lookup.all_runs(home(), [Path(path) for path in paths])]


def open(path: str | os.PathLike[str]) -> RunData:  # noqa: A001 - the public name
    """One run: the path of a run directory, of another tool's log, or of a folder with one of them; or the id or name of a
    run in the home folder, or `last`.

    Raises ValueError if there is none, or more than one.
    """
    return RunData(lookup.find_run(home(), os.fspath(path)))


def _numbers(values: array[Any]) -> Numbers:
    """The same numbers as a numpy array, if numpy is installed."""
    try:
        import numpy as np
    except ImportError:
        return values
    return np.array(values)
