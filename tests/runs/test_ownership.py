"""Which files and folders only this user can have written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import ownership
from epochtop.engine.runs.ownership import check_code, check_file, code_owner, risk_of, tree_risk, trusted_cache
from epochtop.engine.runs.paths import RECORD, TASK
from epochtop.engine.runs.writer import create
from tests.support.fakes.owners import OTHER, as_root, give_away

TASK_TEXT = "/home/other/train.py:make_task"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    return private


@pytest.fixture
def run(home: Path) -> Path:
    """A run with a custom task and its sources."""
    path, lock = create(home, RunSpec(task=TASK_TEXT), {}, 0.0)
    lock.close()
    (path / TASK).write_text("{}")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache that other users can write, and the user's own cache folder in another place."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("EPOCHTOP_CACHE", str(shared))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    ownership.temporary_folder.cache_clear()
    yield shared
    ownership.temporary_folder.cache_clear()


def risk(path: Path) -> str:
    """The reason why a path is not trusted; empty if it is."""
    return str(risk_of(path) or "")


# --- paths -------------------------------------------------------------------------------------------------


def test_a_private_folder_and_what_is_in_it_are_trusted(folder: Path) -> None:
    (folder / "file").write_text("")
    assert [risk(folder), risk(folder / "file"), risk(folder / "missing" / "file")] == ["", "", ""]


def test_a_link_is_not_trusted(folder: Path) -> None:
    (folder / "file").write_text("")
    (folder / "link").symlink_to("file")
    assert risk(folder / "link") == f"{folder / 'link'} is a link"
    (folder / "dangling").symlink_to("nothing")
    assert risk(folder / "dangling") == f"{folder / 'dangling'} is a link"


@pytest.mark.parametrize("mode", [0o777, 0o702])
def test_a_path_that_everybody_can_write_is_not_trusted(mode: int, folder: Path) -> None:
    for path in (folder / "folder", folder / "file"):
        path.mkdir() if path.name == "folder" else path.write_text("")
        path.chmod(mode)
        assert risk(path) == f"{path} is writable by other users"


@pytest.mark.parametrize(("private", "problem"), [(True, ""), (False, "is writable by other users")])
def test_a_group_may_write_only_if_it_is_the_users_private_group(
    private: bool, problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "_is_private_group", lambda _: private)
    (folder / "shared").mkdir()
    (folder / "shared").chmod(0o770)
    assert risk(folder / "shared") == (f"{folder / 'shared'} {problem}" if problem else "")


def test_a_folder_above_that_everybody_can_write_counts(folder: Path) -> None:
    (folder / "open" / "inner").mkdir(parents=True)
    (folder / "open").chmod(0o777)
    assert risk(folder / "open" / "inner" / "file") == f"{folder / 'open'} is writable by other users"
    (folder / "open").chmod(0o777 | stat.S_ISVTX)  # as /tmp: nobody can replace what belongs to others
    assert risk(folder / "open" / "inner" / "file") == ""


def test_the_folder_that_a_link_leads_to_counts(folder: Path) -> None:
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    (folder / "link").symlink_to("open")
    assert risk(folder / "link" / "file") == f"{folder / 'link'} is writable by other users"


def test_files_of_another_user_are_not_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = ownership.owner_name(os.geteuid())
    monkeypatch.setattr(ownership, "_system_users", lambda: (0, os.getuid()))
    monkeypatch.setattr("os.geteuid", lambda: OTHER.pw_uid)
    assert risk(folder) == f"{folder} belongs to {me}"


@as_root
def test_the_owner_of_a_path_and_of_a_folder_above_it_are_named(folder: Path) -> None:
    (folder / "inner").mkdir()
    give_away(folder / "inner")
    assert risk(folder / "inner") == f"{folder / 'inner'} belongs to {OTHER.pw_name}"
    assert risk(folder / "inner" / "file") == f"{folder / 'inner'} belongs to {OTHER.pw_name}"


@as_root
def test_a_foreign_file_deep_in_a_folder_is_seen(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "kernel.so").write_text("")
    assert tree_risk(folder) is None
    give_away(folder / "a" / "b" / "kernel.so")
    assert str(tree_risk(folder)) == f"{folder / 'a' / 'b' / 'kernel.so'} belongs to {OTHER.pw_name}"


# --- the cache -----------------------------------------------------------------------------------------------


def test_a_cache_that_others_can_write_is_replaced_by_the_users_own(cache: Path, tmp_path: Path) -> None:
    used = trusted_cache("graphs")
    assert used.path == tmp_path / "xdg" / "epochtop" / "graphs"
    assert used.note.startswith(f"{cache} is writable by other users; ")
    assert str(used.path) in used.note


def test_without_a_cache_of_the_user_a_temporary_folder_is_used(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "xdg").mkdir()
    (tmp_path / "xdg").chmod(0o777)
    used = trusted_cache("graphs")
    assert not used.path.is_relative_to(tmp_path / "xdg")
    assert stat.S_IMODE(used.path.parent.stat().st_mode) == 0o700
    assert trusted_cache("graphs") == used


def test_a_private_cache_is_used_without_a_note(cache: Path) -> None:
    cache.chmod(0o700)
    assert trusted_cache("graphs") == ownership.CacheFolder(cache / "graphs")


# --- runs ----------------------------------------------------------------------------------------------------


def test_the_users_run_may_execute_its_task(run: Path) -> None:
    assert code_owner(run, TASK_TEXT) == ""
    check_code(run, TASK_TEXT)


@pytest.mark.parametrize("name", ["", RECORD, TASK])
@as_root
def test_a_run_of_another_user_executes_nothing_unless_its_owner_is_trusted(name: str, run: Path) -> None:
    give_away(run / name if name else run)
    assert code_owner(run, TASK_TEXT) == OTHER.pw_name
    for trusted_owner in ("", "somebody"):
        with pytest.raises(Invalid, match=f"belongs to {OTHER.pw_name} .*--trust {OTHER.pw_name}"):
            check_code(run, TASK_TEXT, trusted_owner)
    check_code(run, TASK_TEXT, OTHER.pw_name)
    assert code_owner(run, "") == ""
    check_code(run, "")


@as_root
def test_a_link_to_a_run_of_another_user_does_not_hide_its_owner(run: Path) -> None:
    link = run.with_name("link")
    link.symlink_to(run)
    assert code_owner(link, TASK_TEXT) == ""
    give_away(run)
    assert code_owner(link, TASK_TEXT) == OTHER.pw_name


@as_root
def test_trust_in_one_owner_is_not_trust_in_others(run: Path) -> None:
    give_away(run)
    run.chmod(0o777)
    with pytest.raises(Invalid, match="is writable by other users"):
        check_code(run, TASK_TEXT, OTHER.pw_name)


def test_a_run_that_everybody_can_write_executes_nothing(run: Path) -> None:
    run.chmod(0o777)
    with pytest.raises(Invalid, match=f"chmod go-w {run}"):
        check_code(run, TASK_TEXT)


@pytest.mark.parametrize("name", [RECORD, TASK])
def test_a_record_behind_a_link_executes_nothing(name: str, run: Path) -> None:
    (run / name).rename(run / "elsewhere")
    (run / name).symlink_to("elsewhere")
    with pytest.raises(Invalid, match=f"{name} is a link"):
        check_code(run, TASK_TEXT)


def test_a_world_writable_file_is_safe_in_a_private_folder(run: Path) -> None:
    (run / RECORD).chmod(0o666)
    check_code(run, TASK_TEXT)
    check_file(run, run / RECORD)
    run.chmod(0o755)
    for check in (lambda: check_code(run, TASK_TEXT), lambda: check_file(run, run / RECORD)):
        with pytest.raises(Invalid, match="is writable by other users"):
            check()


@as_root
def test_a_checkpoint_must_belong_to_the_owner_of_its_run(run: Path) -> None:
    path = run / "checkpoints" / "best.json"
    path.write_text("{}")
    check_file(run, path)
    give_away(path)
    with pytest.raises(Invalid, match=f"belongs to {OTHER.pw_name}"):
        check_file(run, path)
    give_away(run)  # a colleague's run with a built-in model can be used
    check_file(run, path)
