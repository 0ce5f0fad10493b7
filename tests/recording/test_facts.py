"""Facts that a script's run is stored with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from epochtop.engine.runs.reader import read_record
from epochtop.recording import facts, writer
from epochtop.recording.later import facts as late_facts
from epochtop.recording.run import Run
from tests.recording.scripts import only_run
from tests.support.engines import wait_until


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit; the current folder is a folder in it."""
    folder = tmp_path / "repository"
    (folder / "inner").mkdir(parents=True)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git(folder, "init", "-q", "-b", "trunk")
    git(folder, "config", "user.email", "ada@example.com")
    git(folder, "config", "user.name", "Ada")
    git(folder, "remote", "add", "origin", "https://ada:secret@example.com/project.git")
    (folder / "train.py").write_text("print(1)\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    monkeypatch.chdir(folder / "inner")
    return folder


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize("form", ["loose", "packed", "detached", "worktree"])
def test_the_commit_is_the_one_that_git_names(repository: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "packed":
        git(repository, "pack-refs", "--all")
    if form == "detached":
        git(repository, "checkout", "-q", "--detach")
    if form == "worktree":
        git(repository, "worktree", "add", "-q", "-b", "side", str(repository.parent / "side"))
        monkeypatch.chdir(repository.parent / "side")
    branch = {"detached": "", "worktree": "side"}.get(form, "trunk")
    assert facts.git_state(str(Path.cwd())) == {
        "commit": git(Path.cwd(), "rev-parse", "HEAD"),
        "branch": branch,
        "dirty": None,
        "remote": "https://example.com/project.git",
    }


def test_there_is_no_state_outside_a_repository_or_before_the_first_commit(tmp_path: Path) -> None:
    assert facts.git_state(str(tmp_path)) is None
    git(tmp_path, "init", "-q")
    assert facts.git_state(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("address", "stored"),
    [
        ("https://token@host/x.git", "https://host/x.git"),
        ("git@github.com:me/x.git", "git@github.com:me/x.git"),
        ("ssh://git:pw@host:22/x", "ssh://host:22/x"),
        ("/srv/x.git", "/srv/x.git"),
    ],
)
def test_addresses_are_stored_without_credentials(address: str, stored: str) -> None:
    assert facts.without_credentials(address) == stored


@pytest.mark.parametrize("change", ["none", "small", "large"])
def test_changes_are_stored_later(repository: Path, change: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LATE_S", 0.0)
    if change != "none":
        (repository / "train.py").write_text("print(2)\n" * (1 if change == "small" else 300_000))
    with Run("git"):
        path = only_run(home)
        wait_until(lambda: _dirty(path) is not None)
    assert _dirty(path) is (change != "none")
    diff = path / "git.diff"
    if change == "none":
        assert not diff.exists()
    else:
        whole = git(repository, "diff", "HEAD") + "\n"
        assert diff.read_text() == whole[: late_facts.DIFF_BYTES]


def _dirty(path: Path) -> bool | None:
    record = read_record(path)
    assert record.script is not None
    assert record.script.git is not None
    return record.script.git.dirty


def test_the_record_says_how_the_script_was_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    with Run("facts", project="p", group="g", tags=("a", "b"), notes="n"):
        record = read_record(only_run(home))
    script = record.script
    assert script is not None
    assert (script.project, script.group, script.tags, script.notes) == ("p", "g", ("a", "b"), "n")
    assert script.working_folder == str(Path.cwd())
    assert script.python == sys.executable
    assert script.command == tuple(sys.orig_argv)
    assert script.environment["SLURM_JOB_ID"] == "42"
    assert script.environment["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert "SECRET_TOKEN" not in script.environment
    assert record.versions["torch"] == torch.__version__
    assert record.versions["python"] == sys.version.split()[0]
    assert not record.versions.keys() & sys.stdlib_module_names


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("/a/train_it.py", "train_it"),
        ("/x/pkg/__main__.py", "pkg"),
        ("-c", "python"),
        ("", "python"),
        ("/lib/ipykernel_launcher.py", "notebook"),
    ],
)
def test_a_run_without_a_name_is_named_after_its_script(
    program: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    assert facts.script_name() == name


def test_no_program_that_a_repository_names_is_started(repository: Path, tmp_path: Path) -> None:
    started, program = tmp_path / "started", tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho >> {started}\n")
    program.chmod(0o755)
    (repository / ".gitattributes").write_text("*.py diff=own\n")
    for name in ("core.fsmonitor", "diff.external", "diff.own.command", "diff.own.textconv", "core.pager"):
        git(repository, "config", name, str(program))
    (repository / "train.py").write_text("print(2)\n")
    changes = late_facts.GitChanges(str(repository))
    wait_until(changes.poll)
    assert b"+print(2)" in (changes.end() or b"")
    assert not started.exists()
