"""The private folder of a mirror, in the cache; a lock tells that its process lives. Never imports torch, numpy or Textual."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.ownership import trusted_cache

SESSION = ".session"
"""File in a mirror that is locked while its process lives."""


def new_folder(name: str) -> tuple[Path, int]:
    """A private folder for a mirror, and its session's lock. Removes mirrors of processes that were killed. Raises Invalid."""
    cache = trusted_cache("remote").path
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in cache.iterdir():
            _remove_left_over(folder)
        prefix = re.sub(r"[^\w.-]", "_", name)[:40]
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=cache))
        session = os.open(folder / SESSION, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(session, fcntl.LOCK_EX)
    except OSError as error:
        raise Invalid(
            "", f"cannot mirror runs in {cache}: {error.strerror}; set EPOCHTOP_CACHE to another folder"
        ) from None
    return folder, session


def _remove_left_over(folder: Path) -> None:
    """Remove a mirror whose process is gone."""
    try:
        session = os.open(folder / SESSION, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # it is being created, or is not a mirror
        return
    try:
        fcntl.flock(session, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass
    finally:
        os.close(session)
