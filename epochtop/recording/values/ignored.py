"""What scripts that were written for wandb use and epochtop does not record: accepted, reported once and ignored.

Imports built-in modules only.
"""

from __future__ import annotations

import os

from epochtop.recording.reports import Reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IGNORED = frozenset(
    [
        "AlertLevel",
        "Api",
        "Artifact",
        "Audio",
        "Bokeh",
        "Classes",
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
        "data_types",
        "define_metric",
        "display",
        "env",
        "finish_artifact",
        "history",
        "integration",
        "link_artifact",
        "link_model",
        "log_artifact",
        "log_code",
        "log_model",
        "mark_preempting",
        "plot",
        "plot_table",
        "restore",
        "save",
        "sdk",
        "settings",
        "setup",
        "sklearn",
        "status",
        "teardown",
        "termerror",
        "termlog",
        "termwarn",
        "to_html",
        "unwatch",
        "upsert_artifact",
        "use_artifact",
        "use_model",
        "watch",
    ]
)
"""Names of the wandb package and of its runs that are accepted and ignored."""

NEUTRAL = {
    "disabled": False,
    "entity": "",
    "job_type": "",
    "mode": "offline",
    "offline": True,
    "project_url": "",
    "resumed": False,
    "starting_step": 0,
    "sweep_id": None,
    "sweep_url": "",
}
"""Facts about a run of wandb that a run of epochtop does not have."""


class Error(Exception):
    """Stands for every error of wandb in `except` clauses. Never raised."""


class _Errors:
    """`wandb.errors`, whatever error a script looks up."""

    def __getattr__(self, name: str) -> type[Error]:
        if name.startswith("__"):
            raise AttributeError(name)
        return Error


class _Util:
    """`wandb.util`."""

    @staticmethod
    def generate_id(length: int = 8) -> str:
        """A random id for a run."""
        return "".join("0123456789abcdefghijklmnopqrstuvwxyz"[byte % 36] for byte in os.urandom(length))

    def __getattr__(self, name: str) -> Ignored:
        if name.startswith("__"):
            raise AttributeError(name)
        return Ignored(f"util.{name}")


def wandb_module_attribute(name: str) -> Any:
    """What the wandb package offers under this name and epochtop does not. Raises AttributeError for any other name."""
    if name in ("Error", "CommError", "UsageError"):
        return Error
    if name == "errors":
        return _Errors()
    if name == "util":
        return _Util()
    if name in IGNORED:
        return Ignored(name)
    raise AttributeError(f"module 'epochtop' has no attribute {name!r}")


def wandb_attribute(run: Any, name: str) -> Any:
    """What a run of wandb offers under this name and :class:`Run` does not. Raises AttributeError for any other name.

    `dir` is a folder for files of the script: `files` in the run directory, or a temporary one if nothing is recorded.
    """
    if name == "dir":
        return _files_folder(run.path)
    if name in NEUTRAL:
        return NEUTRAL[name]
    if name in ("get_url", "project_name"):
        return lambda: ""
    if name in IGNORED:
        return Ignored(name)
    raise AttributeError(f"a run has no attribute {name!r}")


def _files_folder(run_path: str | None) -> str:
    if run_path is None:
        import tempfile

        return tempfile.mkdtemp(prefix="epochtop-")
    folder = os.path.join(run_path, "files")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        _report(f"cannot create {folder}: {error.strerror}")
    return folder


class Ignored:
    """Stands for something that epochtop does not record: accepts every call, attribute and item."""

    _name: str

    def __init__(self, name: str) -> None:
        """The first call reports `name`; none does if it is empty."""
        object.__setattr__(self, "_name", name)

    def __call__(self, *_: Any, **__: Any) -> Ignored:
        if self._name:
            _report.ignored(f"{self._name} is ignored: epochtop records numbers, the configuration and the summary")
        return Ignored("")

    def __getattr__(self, name: str) -> Ignored:
        if name.startswith("__"):
            raise AttributeError(name)
        return Ignored(self._name and f"{self._name}.{name}")

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


def _write_event(event: dict[str, Any]) -> None:
    """Record an event in the newest run of this process, if there is one."""
    from epochtop.recording import endings

    run: Any = endings.newest()
    if run is not None:
        run.write_event(event)


_report = Reports(_write_event)
