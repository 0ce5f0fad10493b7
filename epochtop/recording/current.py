"""The current run of this process, for scripts that use functions: `epochtop.init()`, `epochtop.log()`, `epochtop.finish()`.

`import epochtop as wandb` works for most scripts: what epochtop does not record is accepted, reported once and ignored.
Imports built-in modules only.
"""

from __future__ import annotations

import sys

from epochtop.recording.run import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import Any

IGNORED = frozenset(
    [
        "Api",
        "Artifact",
        "Audio",
        "Bokeh",
        "Graph",
        "Histogram",
        "Html",
        "Image",
        "JoinedTable",
        "Molecule",
        "Object3D",
        "Plotly",
        "Settings",
        "Table",
        "Video",
        "alert",
        "define_metric",
        "link_artifact",
        "log_artifact",
        "log_code",
        "log_model",
        "mark_preempting",
        "plot",
        "plot_table",
        "restore",
        "save",
        "setup",
        "teardown",
        "unwatch",
        "use_artifact",
        "use_model",
        "watch",
    ]
)
"""Names of the wandb package that are accepted and ignored."""

_current: Run | None = None


class Ignored:
    """Stands for something that epochtop does not record: accepts every call, attribute and item."""

    _name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __call__(self, *_: Any, **__: Any) -> Ignored:
        report(f"{self._name} is ignored: epochtop records numbers, the configuration and the summary")
        return Ignored(self._name)

    def __getattr__(self, name: str) -> Ignored:
        if name.startswith("__"):
            raise AttributeError(name)
        return Ignored(f"{self._name}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        pass

    def __getitem__(self, name: Any) -> Ignored:
        return self

    def __setitem__(self, name: Any, value: Any) -> None:
        pass

    def __iter__(self) -> Any:
        return iter(())

    def __enter__(self) -> Ignored:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


_reported: set[str] = set()


def report(message: str) -> None:
    """Tell the user something, once."""
    if message not in _reported and len(_reported) < 100:
        _reported.add(message)
        try:
            sys.stderr.write(f"epochtop: {message}\n")
        except Exception:
            pass


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
    **ignored: Any,
) -> Run:
    """Start the current run; see :class:`Run`. A run that is still current ends, unless the call names nothing.

    `resume` is a run to continue, or wandb's `"allow"`, `"must"` or True together with `id`. Other arguments of wandb are
    accepted and ignored.
    """
    global _current
    is_plain = not any((name, project, config, group, tags, notes, resume, id, folder))
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
        folder=folder,
    )
    return _current


def current() -> Run | None:
    """The current run; None if there is none."""
    return _current if _current is not None and not _current.is_finished else None


def current_or_new() -> Run:
    """The current run, which is started if there is none."""
    return current() or init()


def log(
    data: dict[str, Any] | None = None, /, *, step: int | None = None, commit: bool | None = None, **values: Any
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
