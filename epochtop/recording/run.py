"""A run that a script records: `epochtop.Run`.

`log()` only appends to a queue; everything else happens in the writer's thread. Imports built-in modules only.
"""

from __future__ import annotations

import os
import time

from epochtop.recording import directory, endings, facts
from epochtop.recording.json_text import clean_text, encode
from epochtop.recording.numbers import Numbers, flatten
from epochtop.recording.reports import Reports, UnusableError
from epochtop.recording.series import COMMITTED, UNCOMMITTED
from epochtop.recording.writer import QUEUE_ENTRIES, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any

    from epochtop.recording.later.control import Setting
    from epochtop.recording.values.mappings import Entries

PROTOCOL_VERSION = 1
"""Version of the run format."""
FINISH_S = 30.0
"""Longest time that `finish()` waits for the disk."""
STEPS = 1 << 62
"""Least step that is too high."""


class Run(endings.Recording):
    """Records one training run, so that epochtop shows it.

    `log()` never waits for a device, a disk or a lock, and never raises because recording fails. Processes of other ranks
    than 0 record nothing: there, all methods do nothing.
    """

    url = None
    """For scripts that were written for wandb: a run has no address."""
    config: Entries
    """The configuration. Changes are recorded."""
    summary: Entries
    """Results that the script names. Changes are recorded."""

    def __init__(
        self,
        name: str = "",
        *,
        project: str = "",
        config: object = None,
        group: str = "",
        tags: Iterable[str] = (),
        notes: str = "",
        resume: str | os.PathLike[str] | None = None,
        resume_id: str = "",
        folder: str | os.PathLike[str] | None = None,
        every_rank: bool = False,
        enabled: bool = True,
    ) -> None:
        """Start to record.

        `config` is a mapping, a namespace or a dataclass. `resume` is the id, the path, the `resume_id` or the name of a run
        to continue; a new run is created if there is none. `folder` is the home folder of runs. With `every_rank`, processes of all ranks
        record, each a run of its own. Nothing is recorded if `enabled` is False.
        """
        self.name: str = clean_text(str(name or ""))
        """Display name; empty if it has none."""
        self.project, self.group, self.notes = str(project or ""), str(group or ""), str(notes or "")
        self.tags = tuple(str(tag) for tag in ((tags,) if isinstance(tags, str) else tags or ()))
        self.resume_id = str(resume_id or "")
        """An id that the script has chosen, by which `resume` finds the run."""
        if config is not None:
            self._create_entries("config", config)
        self._report = Reports(self.write_event)
        self._numbers = Numbers()
        self._converters = self._numbers.converters
        self._settings: dict[str, Setting] = {}
        self._writer: Writer | None = None
        self._gate: Callable[[], bool] | None = _refuse
        """What `log()` asks before it records; None if there is nothing to ask."""
        if not enabled or (not every_rank and (facts.rank() != 0 or facts.is_import_of_main())):
            return
        try:
            self._start(self._describe(), resume, folder)
        except Exception as error:  # a failure to record is not a failure of the script
            endings.forget(self)
            self._writer, self._gate = None, _refuse
            self._report(f"cannot record the run: {error}")

    # --- logging -------------------------------------------------------------------------------------------

    def log(
        self, data: dict[str, Any] | None = None, /, step: int | None = None, commit: bool | None = None, **values: Any
    ) -> None:
        """Record values of this step: `log(loss=loss)` or `log({"train/loss": loss}, step=10)`.

        Values are numbers, or tensors and arrays with one element, on any device. Names of nested dictionaries are joined
        with `/`. Without `step`, the values belong to the next step. Several calls with the same `step` belong together,
        and so do calls with `commit=False` and the one after them. Waits while a viewer has paused the run, and raises
        KeyboardInterrupt in the main thread if a viewer stops it; nothing else is raised.
        """
        try:
            if self._gate is not None and not self._gate():
                return
            if data is not None:
                values = self._merged(data, values)
            try:
                for name, value in values.items():
                    if type(value) is not float:
                        values[name] = self._converters[type(value)](value)
            except Exception:  # a type that is new, or a value that is not a number
                self._convert(values)
            place = COMMITTED
            if step is not None:
                place = step if type(step) is int and 0 <= step < STEPS else self._checked_step(step)
            elif commit is False:
                place = UNCOMMITTED
            entries = self._entries
            if len(entries) < QUEUE_ENTRIES:
                entries.append((place, values))
            elif self._writer is not None:
                self._writer.dropped += len(values)
        except Exception as error:
            self._report.ignored(f"log() ignored values: {type(error).__name__}: {error}"[:300])

    def _merged(self, data: Any, values: dict[str, Any]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        try:
            flatten(data, merged)
        except UnusableError as error:
            self._report.ignored(f"log() ignored values: {error}")
        except AttributeError:
            self._report.ignored("log() ignored values: its argument is not a dictionary")
        merged.update(values)
        return merged

    def _convert(self, values: dict[str, Any]) -> None:
        """Replace values by numbers, and remove those that are none."""
        convert = self._numbers.convert
        for name, value in list(values.items()):
            if type(value) is float:
                continue
            if issubclass(type(value), dict):
                del values[name]
                values.update(self._merged({name: value}, {}))
                self._convert(values)
                return
            try:
                values[name] = convert(value)
            except UnusableError as error:
                del values[name]
                if str(error):
                    self._report.ignored(f"{name} is ignored because it is {error}", key=name)
            except Exception as error:
                del values[name]
                self._report.ignored(f"{name} is ignored: {str(error)[:200]}", key=name)

    def _checked_step(self, step: Any) -> int:
        try:
            number = int(step.__index__())
        except Exception:
            number = int(step) if isinstance(step, float) and step.is_integer() else -1
        if not 0 <= number < STEPS:
            self._report.ignored(
                f"step must be a number of 0 or more, not {str(step)[:80]}; the next step is used", key="step"
            )
            return COMMITTED
        return number

    # --- control ---------------------------------------------------------------------------------------------

    def setting(self, name: str, value: float, low: float | None = None, high: float | None = None) -> float:
        """Current value of a setting that viewers may change between `low` and `high`; `value` until somebody does.

        The first call declares the setting. An int stays an int.
        """
        setting = self._settings.get(name)
        if setting is None:
            from epochtop.recording.later.control import Setting

            setting = self._settings.setdefault(name, Setting(value, low, high))
            self.write_event(setting.declaration(name))
        return setting.value

    def obey(self) -> None:
        """Wait while a viewer has paused the run, and raise KeyboardInterrupt if one stops it, as :meth:`log` does."""
        if self._gate is not None:
            self._gate()

    @property
    def stopping(self) -> bool:
        """Whether a viewer asks the script to stop. A script that looks at it is not interrupted by KeyboardInterrupt."""
        return self._writer.control.poll_stop() if self._writer is not None else False

    @property
    def stopped_by(self) -> str | None:
        """The viewer who asked the script to stop, as `user@host:pid`; None if nobody has."""
        return self._writer.stopped_by if self._writer is not None else None

    def on_command(self, kind: str, function: Callable[[dict[str, Any]], None]) -> None:
        """Let `function` obey commands of this type; it is called in the writer's thread."""
        if self._writer is not None:
            self._writer.control.handlers[kind] = function

    def write_event(self, event: dict[str, Any]) -> None:
        """Record an event as docs/run-format.md describes it, after what was logged so far. A step of None is the next one."""
        if self._writer is not None and self.is_recording:
            self._writer.events.append(event)

    # --- facts ---------------------------------------------------------------------------------------------

    @property
    def path(self) -> str | None:
        """The run directory; None if nothing is recorded."""
        return self._writer.path if self._writer is not None else None

    @property
    def id(self) -> str:
        """Name of the run directory; empty if nothing is recorded."""
        return os.path.basename(self.path or "")

    @property
    def is_recording(self) -> bool:
        """Whether values are recorded: not in processes of other ranks, not after :meth:`finish`."""
        return self._writer is not None and self._gate is not _refuse and self._gate is not _finished

    @property
    def is_finished(self) -> bool:
        """Whether the run has ended in this process."""
        return self._gate is _finished

    @property
    def step(self) -> int:
        """Step of the next value that names none."""
        return self._writer.next_step() if self._writer is not None else 0

    def _create_entries(self, name: str, values: object) -> Entries:
        from epochtop.recording.values.mappings import Entries  # a script without a configuration does not wait for it

        kind = "Configured" if name == "config" else "Summarized"
        entries = Entries(values, lambda changed: self.write_event({"type": kind, "values": changed}))
        return self.__dict__.setdefault(name, entries)  # type: ignore[no-any-return] # another thread may create them too

    def _describe(self) -> dict[str, Any]:
        """The record of the script, as docs/run-format.md describes it."""
        config: dict[str, Any] = {}
        if "config" in self.__dict__:
            from epochtop.recording.values.mappings import flat

            config = flat(self.config)
        return {
            "name": self.name,
            "project": self.project,
            "group": self.group,
            "tags": self.tags,
            "notes": self.notes,
            "resume_id": self.resume_id,
            "config": config,
            **facts.of_script(),
        }

    # --- start and end -----------------------------------------------------------------------------------------

    def _start(
        self, script: dict[str, Any], earlier: str | os.PathLike[str] | None, folder: str | os.PathLike[str] | None
    ) -> None:
        home = os.path.abspath(os.path.expanduser(os.fspath(folder)) if folder else directory.home())
        record = {
            "spec": {},
            "script": script,
            "created": round(time.time(), 3),
            "host": directory.host_name(),
            "user": directory.user_name(),
            "pid": os.getpid(),
            "versions": facts.versions(),
            "protocol": PROTOCOL_VERSION,
        }
        stem = directory.slug(self.name or facts.script_name())
        writer = earlier_writer = None
        path = None
        if earlier:
            from epochtop.recording.earlier import resume

            path = resume.find(home, os.fspath(earlier))
            path = None if path == os.environ.get(directory.RUN_TO_JOIN) else path
        joins = path is None and not folder and directory.RUN_TO_JOIN in os.environ
        if joins:
            from epochtop.recording.earlier import joining  # few scripts need it, and every import takes time

            writer = earlier_writer = joining.take_over(script)
        if writer is None:
            writer = Writer(home, stem, encode(record).encode("ascii"), self._report, self._set_gate)
        if path is not None:
            earlier_name = resume.continue_run(writer, path, self._report)
            self.name = self.name or earlier_name
        elif joins and earlier_writer is None:
            joining.join(writer, script)
        writer.on_control = self._set_gate
        self._writer, self._entries = writer, writer.entries
        self._settings = writer.settings
        self._set_gate()
        endings.watch(self, writer.is_guest)
        if earlier_writer is None:
            writer.start()
        if path is not None and script["config"]:
            self.write_event({"type": "Configured", "values": script["config"]})

    def _set_gate(self) -> None:
        """Let `log()` ask for permission only if there is something to obey."""
        assert self._writer is not None
        if self._gate is not _finished:
            self._gate = None if self._writer.is_quiet else self._obey

    def _obey(self) -> bool:
        assert self._writer is not None
        self._writer.control.enter()
        return True

    def finish(self, status: int | str = 0, quiet: bool | None = None) -> None:
        """End the run and wait until everything is written. `status` is an exit status, `finished`, `stopped` or `failed`.

        `quiet` is accepted for scripts that were written for wandb.
        """
        stopped_by = self.stopped_by
        if status in (0, None, "finished"):
            final = {"type": "ScriptEnded", "outcome": "finished", "exit_status": None}
            if stopped_by is not None:
                final = endings.stopped(f"stopped by {stopped_by or 'a viewer'}")
        elif status == "stopped":
            final = endings.stopped("")
        else:
            message = "the script failed" if isinstance(status, str) else f"the script ended with exit status {status}"
            final = {"type": "Failed", "message": message}
        self.end(final, time.monotonic() + FINISH_S)

    def end(self, final: dict[str, Any], deadline: float | None) -> None:
        """End the run with this event, waiting at most until `deadline` of the monotonic clock, or not at all if it is None."""
        endings.forget(self)
        if self._writer is None or self._gate in (_refuse, _finished):
            return
        self._gate = _finished
        if not self._writer.close(final, deadline) and deadline is not None:
            self._report("the disk did not take the last values in time")

    def abandon(self) -> None:
        """Record nothing from now on, in a forked process."""
        self._gate = _refuse
        if self._writer is not None:
            self._writer.abandon()

    def __getattr__(self, name: str) -> Any:
        """`config` and `summary` on first use, and what wandb's runs offer. Raises AttributeError for any other name."""
        if name in ("config", "summary"):
            return self._create_entries(name, None)
        from epochtop.recording.values.ignored import wandb_attribute

        return wandb_attribute(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), "config", "summary"})

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or error is None:
            self.finish()
        elif issubclass(kind, KeyboardInterrupt):
            self.end(endings.stopped(str(error) or "KeyboardInterrupt"), time.monotonic() + FINISH_S)
        elif issubclass(kind, SystemExit):
            self.finish(endings.status_of(getattr(error, "code", None)))
        else:
            message, text = endings.describe(kind, error, traceback)
            self.end({"type": "Failed", "message": message, "traceback": text}, time.monotonic() + FINISH_S)


def _refuse() -> bool:
    """Gate of a run that records nothing."""
    return False


def _finished() -> bool:
    """Gate of a run that has ended."""
    return False
