"""The search for logs in a file or a folder tree.

Opens files to see what they are, whatever their names, except files whose names say that they are something else and
that trees of runs are full of. Imports the standard library only.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Optional
from urllib.parse import unquote

from epochtop.formats import csvlog, huggingface, jsonl, mlflow, tensorboard, trackio, wandb
from epochtop.formats.decoding.growing import read_head
from epochtop.formats.records import HEAD_BYTES, Follower
from epochtop.formats.tensorboard_hparams import settings_folders

DEEPEST = 16
"""Levels below the opened folder that are searched."""
MOST_FILES = 200_000
"""Files that are looked at in one search."""
OTHER_FILES = frozenset(
    [
        ".bin",
        ".bz2",
        ".c",
        ".cfg",
        ".ckpt",
        ".conf",
        ".cpp",
        ".cu",
        ".dat",
        ".gguf",
        ".gif",
        ".gz",
        ".h",
        ".h5",
        ".html",
        ".idx",
        ".ini",
        ".ipynb",
        ".jpeg",
        ".jpg",
        ".js",
        ".lock",
        ".md",
        ".mp4",
        ".msgpack",
        ".npy",
        ".npz",
        ".onnx",
        ".parquet",
        ".pdf",
        ".pickle",
        ".pkl",
        ".png",
        ".pt",
        ".pth",
        ".py",
        ".pyc",
        ".safetensors",
        ".sh",
        ".so",
        ".svg",
        ".tar",
        ".tgz",
        ".toml",
        ".wav",
        ".webp",
        ".whl",
        ".xml",
        ".yaml",
        ".yml",
        ".zip",
        ".zst",
    ]
)
"""Endings of files that are not logs."""
OTHER_FOLDERS = frozenset(("__pycache__", "node_modules", "site-packages"))
RECORD = "run.json"
"""File of a run directory of epochtop."""

EPOCHTOP, TENSORBOARD, CSV, JSONL = "epochtop", "tensorboard", "csv", "jsonl"
TRAINER, WANDB, MLFLOW, TRACKIO = "transformers", "wandb", "mlflow", "trackio"
IN_FILES = {
    TENSORBOARD: tensorboard,
    WANDB: wandb,
    TRAINER: huggingface,
    MLFLOW: mlflow,
    TRACKIO: trackio,
    JSONL: jsonl,
    CSV: csvlog,
}
"""Format modules by kind, in the order in which they are tried."""


class Log(NamedTuple):
    """The log of one run."""

    kind: str
    """Format: one of the kinds above. `epochtop` is a run directory."""
    path: Path
    """What identifies it: a file, a folder, or `FILE/ID` for a run inside a database."""
    name: str
    """Display name: the path below what was opened."""

    def follow(self, last_bytes: int | None = None) -> Follower:
        """A follower from the beginning, or of about the last bytes of each file. Not for run directories of epochtop."""
        if self.kind in (MLFLOW, TRACKIO) and not self.path.is_dir():
            database, run = self.path.parent, unquote(self.path.name)
            if self.kind == TRACKIO:
                return trackio.TrackioFollower(database, run, last_bytes)
            return mlflow.MlflowDatabaseFollower(database, run, last_bytes)
        return _FOLLOWERS[self.kind](self.path, last_bytes)


_FOLLOWERS: dict[str, Callable[[Path, Optional[int]], Follower]] = {
    TENSORBOARD: tensorboard.TensorBoardFollower,
    WANDB: wandb.WandbFollower,
    TRAINER: huggingface.TrainerFollower,
    MLFLOW: mlflow.MlflowFolderFollower,
    JSONL: jsonl.JsonLinesFollower,
    CSV: csvlog.CsvFollower,
}


class Scan(NamedTuple):
    """Result of a search."""

    logs: list[Log]
    """In the order of their paths."""
    problems: list[str]
    """What could not be searched, and why; one sentence each."""


def find_logs(root: Path) -> Scan:
    """All logs at `root`: in the file, or in the folder and below it. Reports what it cannot read and continues."""
    return _Search(root).run()


def log_at(path: Path) -> Log | None:
    """The log that `path` identifies, as :attr:`Log.path` does; None if there is none."""
    try:
        if path.is_dir():
            search = _Search(path)
            search.look(path, 0)
            logs = [log for log in search.logs if log.path == path]
            if not logs and huggingface.state_files(path):
                logs = [Log(TRAINER, path, path.name)]
        elif path.exists():
            logs = _in_file(path, path.name)
            logs = [log for log in logs if log.path == path]
        elif path.parent.is_file():
            logs = [log for log in _in_file(path.parent, path.parent.name) if log.path == path]
        else:
            logs = []
    except OSError:
        return None
    return logs[0] if logs else None


class _Search:
    """One search in a tree."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.logs: list[Log] = []
        self._problems: list[str] = []
        self._visited: set[tuple[int, int]] = set()
        self._links: list[tuple[Path, int]] = []
        """Links to folders, and their depths. They are searched last, so that a folder is found under its own name."""
        self._files = 0

    def run(self) -> Scan:
        """Search the whole tree."""
        try:
            if not self._root.is_dir():
                read_head(self._root, 1)
                self.logs = _in_file(self._root, self._root.name)
                if not self.logs:
                    self._problems.append(f"{self._root} is not a log in a format that epochtop reads")
                return Scan(self.logs, self._problems)
        except OSError as error:
            return Scan([], [f"{self._root} cannot be read: {error.strerror}"])
        pending = [(self._root, 0)]
        while pending or self._links:
            folder, depth = pending.pop() if pending else self._links.pop(0)
            below = self.look(folder, depth)
            if depth < DEEPEST:
                pending += [(child, depth + 1) for child in below]
            elif below:
                self._problems.append(f"{folder} is {DEEPEST} levels deep; what is below it was not searched")
        logs = _without_copies(self.logs)
        return Scan(sorted(logs, key=lambda log: log.path), self._problems)

    def look(self, folder: Path, depth: int) -> list[Path]:
        """Add the logs in one folder. Returns the folders in it that are to be searched."""
        try:
            facts = os.stat(folder)
            if (facts.st_dev, facts.st_ino) in self._visited:  # a link to a folder around it, or a second link
                return []
            self._visited.add((facts.st_dev, facts.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self._problems.append(f"{folder} cannot be read: {error.strerror}")
            return []
        names = {entry.name for entry in entries}
        if RECORD in names and "events.jsonl" in names:
            self._add(Log(EPOCHTOP, folder, self._name(folder)))
            return []
        if mlflow.META in names and mlflow.is_run_folder(folder):
            self._add(Log(MLFLOW, folder, self._name(folder)))
            return []
        below = []
        for entry in entries:
            if _is_folder(entry):
                if entry.name.startswith(".") or entry.name in OTHER_FOLDERS:
                    continue
                if entry.is_symlink() and depth < DEEPEST:
                    self._links.append((Path(entry.path), depth + 1))
                else:
                    below.append(Path(entry.path))
            elif os.path.splitext(entry.name)[1].lower() not in OTHER_FILES and not entry.name.startswith("."):
                self._look_at_file(Path(entry.path))
        return below[::-1]

    def _look_at_file(self, path: Path) -> None:
        self._files += 1
        if self._files > MOST_FILES:
            if self._files == MOST_FILES + 1:
                self._problems.append(f"{self._root} has more than {MOST_FILES:,} files; the rest was not searched")
            return
        try:
            for log in _in_file(path, self._name(path)):
                if log.path not in (other.path for other in self.logs[-2:]):  # several files of one run
                    self._add(log)
        except OSError as error:
            self._problems.append(f"{path} cannot be read: {error.strerror}")

    def _add(self, log: Log) -> None:
        self.logs.append(log)

    def _name(self, path: Path) -> str:
        relative = path.relative_to(self._root).as_posix()
        return self._root.absolute().name if relative == "." else relative


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _in_file(path: Path, name: str) -> list[Log]:
    """The logs in one file. Raises OSError if it cannot be read."""
    try:
        head = read_head(path, HEAD_BYTES)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):  # removed meanwhile, or a link to nothing or to itself
            return []
        raise
    kind = next((kind for kind, module in IN_FILES.items() if module.recognize(path, head)), None)
    folder_name = name.rpartition("/")[0] or path.absolute().parent.name
    if kind is None:
        return []
    if kind == TENSORBOARD:
        return [Log(kind, path.parent, folder_name)]
    if kind == TRAINER:
        folder = huggingface.output_folder(path)
        return [
            Log(kind, folder, folder_name if folder == path.parent else folder_name.rpartition("/")[0] or folder.name)
        ]
    if kind in (MLFLOW, TRACKIO):
        ids = mlflow.run_ids(path) if kind == MLFLOW else trackio.run_ids(path)
        return [Log(kind, path / _escaped(run), f"{name}/{run}") for run in ids if run]
    return [Log(kind, path, _shorter(path, name))]


def _escaped(run: str) -> str:
    """The id of a run in a database as a name in a path."""
    escaped = run.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return escaped.replace(".", "%2E") if escaped in (".", "..") else escaped


def _shorter(path: Path, name: str) -> str:
    """A name without the part that all logs of a tool share."""
    shared = path.name in ("metrics.csv", "results.csv", "metrics.jsonl") or path.suffix == ".wandb"
    return (name.rpartition("/")[0] or path.absolute().parent.name) if shared else name


def _without_copies(logs: list[Log]) -> list[Log]:
    """Each log once; no state of a Trainer whose event files are in the same output folder, as they have more; no folder
    with settings of the run in the folder above."""
    unique = {log.path: log for log in sorted(logs, key=lambda log: log.kind != TENSORBOARD, reverse=True)}
    detailed = {parent for log in logs if log.kind == TENSORBOARD for parent in (log.path, *log.path.parents)}
    boards = {log.path for log in logs if log.kind == TENSORBOARD}
    parts = {part for run in {path.parent for path in boards} & boards for part in settings_folders(run)}
    return [
        log for log in unique.values() if log.path not in parts and (log.kind != TRAINER or log.path not in detailed)
    ]
