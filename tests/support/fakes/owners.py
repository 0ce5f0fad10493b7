"""Files that belong to another user, for tests that run as root."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

OTHER = next(user for user in pwd.getpwall() if 0 < user.pw_uid < 1000 and user.pw_uid != os.getuid())
"""A user who is neither root nor the one that runs the tests."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def give_away(path: Path) -> None:
    """Make a file, or a folder with all it holds, belong to another user."""
    for entry in (path, *(path.rglob("*") if path.is_dir() else ())):
        os.chown(entry, OTHER.pw_uid, OTHER.pw_gid, follow_symlinks=False)
