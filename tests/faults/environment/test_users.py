"""User × folder × action: another user sees what the owner shows, changes nothing, and is told why."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import Finished
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import delete, rename, run_paths, summarize
from epochtop.engine.runs.paths import RECORD
from epochtop.engine.runs.reader import Follower, is_alive
from epochtop.engine.runs.table.table import RunTable
from epochtop.engine.runs.writer import create, reopen, send
from tests.support.runs import engine_alive, finished, losses_like_iris, started, windows, write_run

OTHER = 65_534
"""A user without any rights here."""
REFUSALS = (Invalid, OSError)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")


@contextlib.contextmanager
def other_user() -> Iterator[None]:
    """Act as another user: the kernel checks the rights of the effective user."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(OTHER)
    os.seteuid(OTHER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A home folder that another user can reach, with a run of this user."""
    top = Path(tempfile.mkdtemp(prefix="epochtop-users-"))
    top.chmod(0o755)
    home = top / "runs"
    values = losses_like_iris(100)
    write_run(home, "iris-mlp-0001", [started(100), *windows(values, 20), finished("stopped", values)])
    yield home
    shutil.rmtree(top)


def open_to(home: Path, rights: str) -> None:
    """Let others enter the home folder and the run: not at all, only the folder, to read, or to add own runs."""
    home.chmod({"private": 0o700, "folder only": 0o755, "readable": 0o755, "shared": 0o1777}[rights])
    run = home / "iris-mlp-0001"
    for path in (run, *run.rglob("*")):
        readable = rights in ("readable", "shared")
        path.chmod((0o755 if path.is_dir() else 0o644) if readable else (0o700 if path.is_dir() else 0o600))


def content_of(home: Path) -> dict[str, str]:
    """A digest of every file."""
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in home.rglob("*")
        if path.is_file()
    }


def stop(run: Path) -> None:
    send(run, Stop())


def resume(run: Path) -> None:
    reopen(run).close()


def rename_it(run: Path) -> None:
    rename(run, "mine")


def overwrite(run: Path) -> None:
    (run / RECORD).write_text("{}")


RIGHTS = ("private", "folder only", "readable", "shared")
ACTIONS: tuple[Callable[[Path], None], ...] = (stop, resume, delete, rename_it, overwrite)


@pytest.mark.parametrize(("rights", "action"), itertools.product(RIGHTS, ACTIONS))
def test_another_user_changes_nothing(rights: str, action: Callable[[Path], None], shared: Path) -> None:
    open_to(shared, rights)
    before = content_of(shared)
    with other_user(), pytest.raises(REFUSALS) as refusal:
        action(shared / "iris-mlp-0001")
    assert str(refusal.value)
    assert content_of(shared) == before


@pytest.mark.parametrize("rights", RIGHTS)
def test_another_user_sees_what_the_owner_shows(rights: str, shared: Path) -> None:
    open_to(shared, rights)
    run = shared / "iris-mlp-0001"
    with other_user():
        listed, rows = run_paths(shared), RunTable(shared).list()
        summary = summarize(run)
        with closing(Follower(run)) as follower:
            seen = list(follower.read_all()) if rights in ("readable", "shared") else []
    assert listed == ([] if rights == "private" else [run])
    assert len(rows) == len(listed)
    if rights in ("readable", "shared"):
        assert (summary.state, summary.steps) == ("stopped", 100)
        assert isinstance(seen[-1], Finished)
    else:
        assert "Permission denied" in summary.note


def test_another_user_sees_that_a_run_is_alive(shared: Path) -> None:
    open_to(shared, "readable")
    run = shared / "iris-mlp-0001"
    with engine_alive(run), other_user():
        assert is_alive(run)
    with other_user():
        assert not is_alive(run)


@pytest.mark.parametrize("rights", RIGHTS)
def test_users_that_share_a_home_have_runs_of_their_own(rights: str, shared: Path) -> None:
    open_to(shared, rights)
    before = content_of(shared)
    if rights != "shared":
        with other_user(), pytest.raises(Invalid, match="cannot write runs"):
            create(shared, RunSpec(), {}, 0.0)
        assert content_of(shared) == before
        return
    with other_user():
        theirs, lock = create(shared, RunSpec(), {}, 0.0)
        lock.close()
        assert set(run_paths(shared)) == {theirs, shared / "iris-mlp-0001"}
        delete(theirs)
    assert content_of(shared) == before
