"""A compiled program is loaded only if no other user can have written it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from epochtop.engine.execution.c import build
from epochtop.engine.execution.c.graph import CGraph
from epochtop.engine.execution.choice import ExecutorChoice
from epochtop.engine.execution.compiled import use_own_cache
from epochtop.engine.execution.executor import Unsupported
from tests.support.executors import asked, built
from tests.support.fakes.owners import OTHER, as_root, give_away

OURS, PLANTED = "int run(void) { return 1; }\n", "int run(void) { return 2; }\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EPOCHTOP_CACHE", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return folder


@pytest.fixture
def planted(cache: Path) -> Path:
    """Another program under the name of ours."""
    path = build._place(OURS)
    build._build(PLANTED, path)
    return path


def result(run: Any) -> int:
    run.restype = ctypes.c_int
    return int(run())


def test_a_cached_program_is_loaded(planted: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    assert result(build.load(OURS)) == 2


def _a_file(cache: Path) -> None:
    cache.touch()


def _below_a_device(cache: Path) -> None:
    cache.symlink_to("/dev/null")


def _a_link_to_itself(cache: Path) -> None:
    cache.symlink_to(cache.name)


@pytest.mark.parametrize("spoil", [_a_file, _below_a_device, _a_link_to_itself])
def test_without_a_usable_cache_a_program_is_built_elsewhere(cache: Path, spoil: Callable[[Path], None]) -> None:
    spoil(cache)
    assert result(build.load(OURS)) == 1


def test_without_any_folder_for_it_a_program_is_not_supported(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.touch()
    monkeypatch.setattr(build, "temporary_folder", lambda: tmp_path / "cache" / "none")
    with pytest.raises(Unsupported, match="neither in the cache"):
        build.load(OURS)


def test_a_program_in_a_folder_that_others_can_write_is_not_loaded(planted: Path, tmp_path: Path) -> None:
    planted.parent.chmod(0o777)
    assert result(build.load(OURS)) == 1
    assert list((tmp_path / "xdg").rglob("*.so")), "a private folder has the program"


def test_a_program_in_a_cache_that_others_can_write_is_not_loaded(planted: Path, cache: Path) -> None:
    cache.chmod(0o777)
    assert result(build.load(OURS)) == 1


def test_a_link_is_not_loaded(planted: Path) -> None:
    planted.rename(planted.with_name("elsewhere.so"))
    planted.symlink_to("elsewhere.so")
    assert result(build.load(OURS)) == 1
    assert not planted.is_symlink()
    assert result(ctypes.CDLL(str(planted.with_name("elsewhere.so"))).run) == 2


def test_a_program_that_others_can_write_is_built_again(planted: Path) -> None:
    planted.chmod(0o777)
    assert result(build.load(OURS)) == 1
    assert planted.stat().st_mode & 0o077 == 0


def test_a_folder_behind_a_link_is_not_used(planted: Path) -> None:
    planted.parent.rename(planted.parents[1] / "elsewhere")
    planted.parent.symlink_to("elsewhere")
    assert result(build.load(OURS)) == 1


@pytest.mark.parametrize("what", ["file", "folder"])
@as_root
def test_a_program_of_another_user_is_not_loaded(what: str, planted: Path) -> None:
    give_away(planted if what == "file" else planted.parent)
    assert result(build.load(OURS)) == 1


def test_the_log_reports_a_private_folder(cache: Path, tmp_path: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    choice = ExecutorChoice(built(asked("graph")), None, lambda _: 0.1)
    assert isinstance(choice.begin(0), CGraph)
    (note,) = (note.message for note in choice.notes if "private" in note.message)
    assert note.startswith(f"{cache} is writable by other users; ")
    assert str(tmp_path / "xdg" / "epochtop" / "graphs") in note


# --- torch's cache -------------------------------------------------------------------------------------------


@pytest.fixture
def inductor(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)


def inductor_folder() -> Path:
    return Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])


@pytest.mark.usefixtures("inductor")
def test_torchs_programs_are_cached_next_to_ours(cache: Path) -> None:
    assert use_own_cache() == ""
    assert inductor_folder() == cache / "compile"


@pytest.mark.usefixtures("inductor")
def test_torchs_programs_in_a_folder_that_others_can_write_are_not_loaded(cache: Path, tmp_path: Path) -> None:
    (cache / "compile").mkdir(parents=True)
    (cache / "compile").chmod(0o777)
    assert use_own_cache().startswith(f"{cache / 'compile'} is writable by other users; ")
    assert inductor_folder() == tmp_path / "xdg" / "epochtop" / "compile"


@pytest.mark.usefixtures("inductor")
def test_the_users_choice_of_a_folder_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(chosen))
    assert use_own_cache() == ""
    assert inductor_folder() == chosen
    chosen.chmod(0o777)
    assert "is writable by other users" in use_own_cache()
    assert inductor_folder() != chosen


@pytest.mark.usefixtures("inductor")
@as_root
def test_one_foreign_file_among_torchs_programs_is_enough(cache: Path) -> None:
    kernel = cache / "compile" / "ab" / "kernel.so"
    kernel.parent.mkdir(parents=True)
    kernel.write_text("")
    give_away(kernel)
    assert use_own_cache().startswith(f"{kernel} belongs to {OTHER.pw_name}; ")
    assert inductor_folder() != cache / "compile"


def _compiler(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o700)


@pytest.mark.parametrize(
    ("limit", "script", "stays"),
    [
        ("BUILD_S", "while :; do :; done", False),
        ("BUILD_S", 'sleep 0.5; exec cc "$@"', True),
        ("WAIT_S", "sleep 600 & wait", False),
    ],
    ids=["uses the processor for too long", "waits for the processor", "waits for too long"],
)
def test_a_compiler_is_limited_in_processor_time_and_at_last_on_the_clock(
    limit: str, script: str, stays: bool, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine must not decide which program takes the steps of a run: its losses would differ by rounding."""
    _compiler(tmp_path / "slow", script)
    monkeypatch.setattr(build, "compiler", lambda: str(tmp_path / "slow"))
    monkeypatch.setattr(build, "_version", lambda _: "slow 1.0")
    monkeypatch.setattr(build, "POLL_S", 0.02)
    monkeypatch.setattr(build, limit, 0.2)
    if stays:
        assert result(build.load(OURS)) == 1
        return
    with pytest.raises(Unsupported, match="needs more than"):
        build.load(OURS)
    assert not list(cache.rglob("*.part"))
    assert not [child for child in psutil.Process().children(recursive=True) if "sleep" in child.name()]
