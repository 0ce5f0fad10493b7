"""The current run of this process, for scripts that use functions: `epochtop.init()`, `epochtop.log()`, `epochtop.finish()`.

`import epochtop as wandb` works for most scripts: what epochtop does not record is accepted, reported once and ignored.
Imports built-in modules only.
"""

from __future__ import annotations

from epochtop.recording import facts
from epochtop.recording.run import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import Any

_current: Run | None = None


def init(
    name: str | None = None,
    *,
    project: str | None = None,
    config: object = None,
    group: str | None = None,
    tags: Iterable[str] | None = None,
    notes: str | None = None,
    resume: Any = None,
    id: str | None = None,  # noqa: A002 - wandb's name
    folder: str | os.PathLike[str] | None = None,
    reinit: Any = None,
    mode: str | None = None,
    **ignored: Any,
) -> Run:
    """Start the current run; see :class:`Run`. A run that is still current ends, unless the call names nothing. The `name` of
    a run without one is its id, as scripts that were written for wandb use it in names of files.

    `resume` is a run to continue, or wandb's `"allow"`, `"must"` or True together with `id`. The mode `"disabled"` records
    nothing. Other arguments of wandb are accepted and ignored.
    """
    global _current
    is_plain = not any((name, project, config, group, tags, notes, resume, id, folder, mode))
    if _current is not None and _current.is_recording:
        if is_plain or reinit in (False, "return_previous"):
            return _current
        _current.finish()
    earlier = resume if isinstance(resume, str) and resume not in ("allow", "must", "never", "auto") else None
    if earlier is None and resume not in (None, False, "never"):
        earlier = id or name
    _current = Run(
        name or id or "",
        project=project or "",
        config=config,
        group=group or "",
        tags=tags or (),
        notes=notes or "",
        resume=earlier,
        resume_id=id or "",
        folder=folder,
        enabled=mode != "disabled",
    )
    _current.name = _current.name or _current.id or facts.script_name()
    return _current


def current() -> Run | None:
    """The current run; None if there is none."""
    return _current if _current is not None and not _current.is_finished else None


def current_or_new() -> Run:
    """The current run, which is started if there is none."""
    return current() or init()


def log(
    data: dict[str, Any] | None = None, /, step: int | None = None, commit: bool | None = None, **values: Any
) -> None:
    """Record values of the current run, which is started if there is none; see :meth:`Run.log`."""
    run = _current
    if run is None or run.is_finished:
        run = init()
    run.log(data, step=step, commit=commit, **values)


def finish(exit_code: int | None = None, quiet: bool | None = None) -> None:
    """End the current run; does nothing if there is none."""
    global _current
    run, _current = _current, None
    if run is not None:
        run.finish(exit_code or 0)


def login(*_: Any, **__: Any) -> bool:
    """Accepted for scripts that were written for wandb: epochtop has no accounts."""
    return True
