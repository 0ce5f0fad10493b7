"""Logs of other tools in the folders that were opened on this machine: the files that may be logs, and what they gain.

A file that is too large is named to the viewer, which would otherwise lack a log without a word.

The viewer knows the formats; names decide here which files are worth sending. Reads regular files only, and never follows a
link. Imports the standard library and modules that are sent with it only.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from epochtop.configuration.load import load
from epochtop.engine.runs.regular import open_file, read_regular
from epochtop.recording.directory import OPENED, RECORD
from epochtop.remote.following import GrowingFile
from epochtop.remote.frames import is_file_path
from epochtop.remote.listing import modified_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from epochtop.remote.databases import SentDatabase
    from epochtop.remote.frames import Frame

DATABASES = (".db", ".sqlite", ".sqlite3")
"""Endings of files that may be databases."""
MAGIC = b"SQLite format 3\0"
"""What a database begins with."""
SCAN_S = 5.0
"""Least seconds between two searches of the folders."""
SHARE = 20
"""Searches take at most one part in SHARE of the time."""
MOST_ENTRIES, MOST_FILES = 50_000, 2_000
"""Most files that are looked at in a search, and that are sent."""
LARGEST_LOG, LARGEST_WHOLE = 64 << 20, 4 << 20
"""Most bytes of a file that grows, and of one that may be rewritten at any time."""
SENT = ("offset", "identity", "fresh", "table", "columns", "modified")
"""What the viewer learns about a part."""
PARTS = 4
"""Most parts that are sent between two looks at the runs."""


def is_growing(name: str) -> bool:
    """Whether a tool appends to files of this name."""
    return "tfevents" in os.path.basename(name) or name.endswith((".jsonl", ".wandb", *DATABASES))


def is_rewritten(name: str, folder: str) -> bool:
    """Whether files of this name are logs, or their settings, that a tool rewrites."""
    is_mlflow = os.path.basename(folder) in ("metrics", "params", "tags")
    return name.endswith((".csv", ".yaml", "trainer_state.json")) or (is_mlflow and "." not in name)


class RewrittenFile:
    """A short file, sent as a whole whenever it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sent: tuple[int, int, int] | None = None

    def next_part(self) -> Frame | None:
        """The file, if it has changed."""
        try:
            facts = self._path.stat()
            state = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
            if state == self._sent:
                return None
            self._sent = state
            return {"offset": 0, "identity": facts.st_ino, "fresh": True}, read_regular(self._path, LARGEST_WHOLE)
        except OSError:
            return None


class OpenedFolders:
    """What the viewer knows about the logs in opened folders. `known` is what it has from earlier connections, by name."""

    def __init__(self, home: Path, known: dict[str, Any]) -> None:
        self._home, self._known = home, known
        self._files: dict[str, tuple[Path, GrowingFile | RewrittenFile | SentDatabase]] = {}
        """By the name that the viewer uses: number and name of the opened path, and the path below it."""
        self._left_out: dict[str, str] = {}
        """Why logs are not sent, by name; empty once the viewer knows."""
        self._next_scan = 0.0

    def next_frames(self) -> Iterator[Frame]:
        """What is new, a few parts of it."""
        now = time.monotonic()
        if now >= self._next_scan:
            self._search()
            took = time.monotonic() - now
            self._next_scan = time.monotonic() + max(SCAN_S, SHARE * took)
            yield from self._reports()
        sent = 0
        for name, (path, file) in self._files.items():
            part = file.next_part()
            if part is not None:
                header = {key: part[0][key] for key in SENT if key in part[0]}
                kind = "rows" if "table" in header else "log"
                yield {"type": kind, "name": name, "modified": modified_time(path), **header}, part[1]
                sent += 1
            if sent == PARTS:
                return

    def _reports(self) -> Iterator[Frame]:
        for name, reason in self._left_out.items():
            if reason:
                self._left_out[name] = ""
                yield {"type": "left_out", "name": name, "reason": reason}, b""

    def _search(self) -> None:
        for number, root in enumerate(self._roots()):
            for path in _files_of(root):
                name = f"{number}/{os.path.relpath(path, os.path.dirname(root))}"
                if (
                    name not in self._files
                    and name not in self._left_out
                    and len(self._files) < MOST_FILES
                    and is_file_path(name)
                ):
                    self._add(name, path)

    def count_roots(self) -> int:
        """How many files and folders are opened."""
        return len(self._roots())

    def _roots(self) -> list[str]:
        opened: Any = {}
        try:
            opened = json.loads(read_regular(self._home / OPENED))
        except (OSError, ValueError):
            pass
        paths = opened.get("paths", []) if isinstance(opened, dict) else []
        return [os.path.abspath(os.path.expanduser(str(path))) for path in (*load()["folders"], *paths)]

    def _add(self, name: str, path: str) -> None:
        try:
            size = os.lstat(path).st_size
        except OSError:
            return
        place, known, grows = Path(path), self._known.get(name), is_growing(path)
        if size > (LARGEST_LOG if grows else LARGEST_WHOLE):
            if grows:  # others are rarely logs
                self._left_out[name] = f"it has more than {LARGEST_LOG >> 20} MiB"
        elif not path.endswith(DATABASES):
            self._files[name] = (place, GrowingFile(place, known, whole=True) if grows else RewrittenFile(place))
        elif _is_database(place):
            self._add_database(name, place, known)

    def _add_database(self, name: str, path: Path, known: dict[str, Any] | None) -> None:
        try:
            from epochtop.remote.databases import SentDatabase
        except ImportError:
            self._left_out[name] = "the Python there was built without sqlite3"
            return
        self._files[name] = (path, SentDatabase(path, known))


def _is_database(path: Path) -> bool:
    """Whether a file is a database of SQLite; an empty file may become one."""
    try:
        with open_file(path) as file:
            return bool(file.read(len(MAGIC)) == MAGIC)
    except OSError:
        return False


def _files_of(root: str) -> Iterator[str]:
    """The files at or below a path that may be logs. Run directories of epochtop are left out."""
    if os.path.isfile(root):
        yield root
        return
    seen = 0
    for folder, folders, names in os.walk(root):
        seen += len(names)
        if RECORD in names or seen > MOST_ENTRIES:
            folders.clear()
            continue
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if (is_growing(name) or is_rewritten(name, folder)) and not os.path.islink(path):
                yield path
