"""Cached data are loaded only if no other user can have written them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from epochtop.engine.data.downloads.registry import load_download
from epochtop.engine.protocol.spec import RunSpec
from tests.support.fakes.openml import Dataset, Server
from tests.support.fakes.owners import OTHER, as_root, give_away

FLOWERS = Dataset("flowers", (("length", "real"), ("class", "{rose,tulip}")), ("1.5,tulip", "2.5,rose"))
NAME = "openml-flowers.npz"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with the dataset, and a network with another one of the same name."""
    folder = tmp_path / "cache"
    for name, value in (("DATA", tmp_path / "own"), ("CACHE", folder)):
        monkeypatch.setenv(f"EPOCHTOP_{name}", str(value))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sklearn.datasets._openml.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr("sklearn.datasets._openml.urlopen", Server((FLOWERS,)))
    assert length()[0] == 1.5
    changed = Dataset("flowers", FLOWERS.columns, ("9.5,tulip", "2.5,rose"))
    monkeypatch.setattr("sklearn.datasets._openml.urlopen", Server((changed,)))
    return folder


def length() -> tuple[float, list[str]]:
    """The first value, 1.5 in the cache and 9.5 in the network, and the lines of progress."""
    lines: list[str] = []
    return float(load_download(RunSpec(dataset="openml:flowers"), lines.append).x[0, 0]), lines


def test_a_private_cache_is_used(cache: Path) -> None:
    assert length() == (1.5, [])


def shared(path: Path) -> None:
    path.chmod(0o777)


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("change", "problem"), [(shared, "is writable by other users"), (linked, "is a link")], ids=["shared", "linked"]
)
@pytest.mark.parametrize("name", ["", NAME], ids=["folder", "file"])
def test_data_that_others_may_have_written_are_downloaded_again(
    name: str, change: Callable[[Path], None], problem: str, cache: Path
) -> None:
    cache.chmod(0o755)
    change(cache / name)
    value, lines = length()
    assert value == 9.5
    assert lines[0].startswith(f"{cache / name if name else cache} {problem}; ")
    assert length()[0] == 9.5


@as_root
def test_data_of_another_user_are_downloaded_again(cache: Path) -> None:
    give_away(cache / NAME)
    value, lines = length()
    assert value == 9.5
    assert lines[0] == f"{cache / NAME} belongs to {OTHER.pw_name}; downloading it again"
