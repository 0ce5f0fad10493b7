"""Who could have written a file: decided before code or data from it is used.

A path is trusted if it belongs to this user, is not a link, and no other user can change or replace it. A run that was copied from
another machine counts as that machine's, regardless of who owns the copy. Never imports torch or numpy.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.paths import ORIGIN, RECORD, TASK, cache_folder, user_cache_folder
from epochtop.engine.runs.regular import read_regular

OVERFLOW = Path("/proc/sys/kernel/overflowuid")
"""File with the user id that stands for owners unknown inside a container."""


@dataclass(frozen=True)
class Risk:
    """Why a path is not trusted: `{path} {reason}` reads as a sentence."""

    path: Path
    reason: str
    owner: str = ""
    """Login name of another user who owns the path; empty if the owner is not the reason."""

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


def risk_of(path: Path) -> Risk | None:
    """Why another user could have written `path`, or could replace it; None if none could. It need not exist.

    Folders come first, from the nearest to the root: those that the path names, then those that its links lead to.
    """
    path = path.absolute()
    target = Path(os.path.realpath(path.parent))
    for folder in dict.fromkeys((*path.parents, target, *target.parents)):
        if risk := next(_folder_risks(folder), None):
            return risk
    return next(_risks(path), None)


def tree_risk(folder: Path) -> Risk | None:
    """As :func:`risk_of`, for a folder and everything in it."""
    if risk := risk_of(folder):
        return risk
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if risk := next(_owner_risks(Path(parent) / name), None):
                return risk
    return None


def _folder_risks(folder: Path) -> Iterator[Risk]:
    """Risks of a folder above a path: who owns it or can write to it can replace what is in it."""
    try:
        entry, facts = folder.lstat(), folder.stat()
    except OSError:
        return
    for owner in (entry.st_uid, facts.st_uid):
        if owner not in (os.geteuid(), *_system_users()):
            yield Risk(folder, f"belongs to {owner_name(owner)}", owner_name(owner))
    if not facts.st_mode & stat.S_ISVTX and _others_write(facts):
        yield Risk(folder, "is writable by other users")


def _risks(path: Path, reachable: bool = True) -> Iterator[Risk]:
    """Risks of a path itself. `reachable` tells whether other users can reach it."""
    try:
        facts = path.lstat()
    except OSError:
        return
    if stat.S_ISLNK(facts.st_mode):
        yield Risk(path, "is a link")
        return
    yield from _owner_risks(path)
    if reachable and _others_write(facts):
        yield Risk(path, "is writable by other users")


def _owner_risks(path: Path) -> Iterator[Risk]:
    try:
        owner = path.lstat().st_uid
    except OSError:
        return
    if owner != os.geteuid():
        yield Risk(path, f"belongs to {owner_name(owner)}", owner_name(owner))


def _others_write(facts: os.stat_result) -> bool:
    by_group = bool(facts.st_mode & stat.S_IWGRP) and not _is_private_group(facts.st_gid)
    return by_group or bool(facts.st_mode & stat.S_IWOTH)


@cache
def _is_private_group(group_id: int) -> bool:
    """Whether a group is root's, or has this user as its only member."""
    if group_id == 0:
        return True
    try:
        group, user = grp.getgrgid(group_id), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


@cache
def _system_users() -> tuple[int, ...]:
    """Owners of the system's folders."""
    try:
        return 0, int(OVERFLOW.read_text())
    except (OSError, ValueError):
        return (0,)


def owner_name(user_id: int) -> str:
    """Login name of a user, or the user id if it has no name."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


# --- runs --------------------------------------------------------------------------------------------------


def code_risks(run: Path) -> list[Risk]:
    """Why code that a run names or stores may not be this user's choice; empty if this user alone can write the run."""
    try:
        facts = run.stat()
    except OSError:
        return []
    target, reachable = Path(os.path.realpath(run)), bool(facts.st_mode & (stat.S_IXGRP | stat.S_IXOTH))
    risks = [
        *_origin_risks(run),
        *_owner_risks(run),
        *_risks(target),
        *_risks(target / RECORD, reachable),
        *_risks(target / TASK, reachable),
    ]
    return list({risk.reason: risk for risk in reversed(risks)}.values())[::-1]


def write_origin(run: Path, origin: str) -> None:
    """Record from which machine and home folder a run was copied, such as `user@box:/home/user/runs`. Raises OSError."""
    (run / ORIGIN).write_text(json.dumps({"origin": origin}), encoding="utf-8")


def origin_of(run: Path) -> str:
    """Where a run was copied from; empty for a run of this machine."""
    try:
        content = json.loads(read_regular(run / ORIGIN, 1 << 16))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        return "another machine"
    return str(content.get("origin", "another machine")) if isinstance(content, dict) else "another machine"


def _origin_risks(run: Path) -> Iterator[Risk]:
    origin = origin_of(run)
    if origin:
        machine = origin.partition(":")[0]
        yield Risk(run, f"was copied from {machine}", machine)


def code_owner(run: Path, task: str) -> str:
    """Login name of another owner whose run names `task`; empty if there is no task or the run is this user's."""
    return next((risk.owner for risk in code_risks(run) if risk.owner), "") if task else ""


def check_code(run: Path, task: str, trusted_owner: str = "") -> None:
    """Raises Invalid if `task` must not be executed for a run that other users can write.

    `trusted_owner` is the other owner whom the user trusts.
    """
    for risk in code_risks(run) if task else ():
        if risk.owner and risk.owner != trusted_owner:
            raise Invalid(
                "",
                f"{run.name} belongs to {risk.owner} and executes {task} as you; read it, then add --trust {risk.owner}",
            )
        if not risk.owner:
            fix = "replace it by a file" if risk.path.is_symlink() else f"make it private with chmod go-w {risk.path}"
            raise Invalid("", f"{risk} and names the code to execute ({task}); {fix}")


def check_file(run: Path, path: Path) -> None:
    """Raises Invalid if a file of a run is a link, or can be written by others than the run's owner."""
    try:
        facts = run.stat()
    except OSError:
        return
    reachable = bool(facts.st_mode & (stat.S_IXGRP | stat.S_IXOTH))
    for risk in _risks(path, reachable):
        if not risk.owner or risk.owner != owner_name(facts.st_uid):
            raise Invalid("", f"{risk}; it is not used")


# --- the cache -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CacheFolder:
    """A folder that only this user can write."""

    path: Path
    note: str = ""
    """Why it is not the usual folder, for people; empty if it is."""


def trusted_cache(name: str = "") -> CacheFolder:
    """The part `name` of the cache; a private folder instead if other users can write there. It may not exist yet."""
    folder = cache_folder() / name
    risk = risk_of(folder)
    return CacheFolder(folder) if risk is None else private_folder(name, risk)


def private_folder(name: str, risk: Risk) -> CacheFolder:
    """The part `name` of the user's own cache, or a temporary folder, in place of a folder with a risk."""
    private = user_cache_folder() / name
    if private in (risk.path, *risk.path.parents) or risk_of(private) is not None:
        private = temporary_folder() / name
    return CacheFolder(private, f"{risk}; the private folder {private} is used instead of it")


@cache
def temporary_folder() -> Path:
    """A folder of this process, removed at its end."""
    import atexit
    import shutil
    import tempfile  # only a cache that others can write needs it

    folder = Path(tempfile.mkdtemp(prefix="epochtop-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
