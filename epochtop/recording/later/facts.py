"""Facts about a script that take a while to find: versions of packages and uncommitted changes. They complete its record.

The writer's thread collects them some time after the start. Imports built-in modules only; json when they are there.
"""

from __future__ import annotations

import os
import sys

from epochtop.configuration.regular import read_regular
from epochtop.recording import directory
from epochtop.recording.facts import versions, working_folder
from epochtop.recording.json_text import encode

DIFF_BYTES = 1 << 20
"""Most bytes of uncommitted changes that are stored."""


class GitChanges:
    """Collects the difference of tracked files from the commit that is checked out, in a process of its own.

    It does without `subprocess`, which would import `threading` in the writer's thread and make that the main thread.
    """

    def __init__(self, folder: str) -> None:
        """Start git. Raises OSError if that is impossible."""
        safe = (
            "-c",
            "core.fsmonitor=false",
            "--no-optional-locks",
        )  # the repository names programs that git would start
        arguments = ["git", *safe, "-C", folder, "diff", "--no-ext-diff", "--no-textconv", "--no-color"]
        self._pipe, output = os.pipe()
        try:
            os.set_blocking(self._pipe, False)
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ]
            self._pid = os.posix_spawnp("git", [*arguments, "HEAD"], os.environ, file_actions=actions)
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(output)
        self._changes = b""

    def poll(self) -> bool:
        """Whether git has ended or has written enough. Never waits."""
        try:
            while len(self._changes) <= DIFF_BYTES:
                new = os.read(self._pipe, 1 << 16)
                if not new:
                    return True
                self._changes += new
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def end(self) -> bytes | None:
        """Stop git. Returns at most 1 MiB of the changes; None if git cannot tell."""
        os.close(self._pipe)
        complete = len(self._changes) > DIFF_BYTES
        try:
            if complete:
                os.kill(self._pid, 9)
            _, status = os.waitpid(self._pid, 0)
        except OSError:  # the script has waited for all its children
            status = 0 if self._changes else 1
        return self._changes[:DIFF_BYTES] if complete or status == 0 else None

    def cancel(self) -> None:
        """Stop git because the script ends."""
        try:
            os.kill(self._pid, 9)
        except OSError:
            pass
        self.end()


class LateFacts:
    """Completes run.json with what takes a while to find: versions of packages and uncommitted changes."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._changes: GitChanges | None = None
        self.is_complete = False
        """Whether nothing is left to collect."""

    def collect(self) -> None:
        """Do what is due. Never waits for git. Raises OSError if run.json cannot be written."""
        if self._changes is None:
            try:
                self._changes = GitChanges(working_folder() or os.sep)
            except (OSError, ValueError, AttributeError):
                self._complete(None)
        elif self._changes.poll():
            self._complete(self._changes.end())

    def cancel(self) -> None:
        """Stop collecting, because the run ends."""
        if not self.is_complete and self._changes is not None:
            self._changes.cancel()
        self.is_complete = True

    def _complete(self, changes: bytes | None) -> None:
        self.is_complete = True
        import json

        path = os.path.join(self._run, directory.RECORD)
        record = json.loads(read_regular(path))
        git = (record.get("script") or {}).get("git")
        if git is not None and changes is not None:
            git["dirty"] = bool(changes)
            if changes:
                directory.write_atomically(os.path.join(self._run, directory.DIFF), changes)
        record["versions"] = {**record.get("versions", {}), **versions(), **_own_version()}
        directory.write_atomically(path, encode(record).encode("ascii"))


def _own_version() -> dict[str, str]:
    if "threading" not in sys.modules:  # the import below would import it in the wrong thread
        return {}
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {"epochtop": version("epochtop")}
    except PackageNotFoundError:
        return {}
