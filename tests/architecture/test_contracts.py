"""The import contracts of pyproject.toml hold, and each kind of violation breaks the contract that forbids it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERDICT = re.compile(r"^(.+?) (KEPT|BROKEN)\b", re.MULTILINE)

PACKAGE_LAYERS = "Package layers"
ENGINE_LAYERS = "Engine layers"
SCREEN_LAYERS = "Screen layers"
FIVE_DOORS = "Five doors"
NO_CYCLES = "No cycles between siblings"
CONTRACTS = (ROOT / "pyproject.toml").read_text(encoding="utf-8").count("[[tool.importlinter.contracts]]")
PLAIN_PYTHON = "Recording needs nothing but Python"
ELSEWHERE = "What runs on another machine"
READERS = "Readers of logs"
NO_TORCH = "The screen never imports torch, numpy or scikit-learn"
NO_SCREEN = "The engine never imports the screen"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages and of the contracts, to be spoiled."""
    copy = tmp_path / "tree"
    for package in ("engine", "tui", "epochtop"):
        shutil.copytree(ROOT / package, copy / package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def broken_contracts(tree: Path) -> set[str]:
    """The titles, up to the colon, of the contracts that `lint-imports` reports as broken."""
    process = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=tree,
        env=os.environ | {"COLUMNS": "300", "PYTHONPATH": str(tree), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    verdicts = dict(VERDICT.findall(process.stdout))
    assert len(verdicts) == CONTRACTS, process.stdout + process.stderr
    broken = {title.partition(":")[0] for title, verdict in verdicts.items() if verdict == "BROKEN"}
    assert process.returncode == bool(broken)
    return broken


def add(tree: Path, file: str, line: str) -> None:
    """Append a line to a module, or create it."""
    path = tree / file
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")


def test_every_contract_is_kept(tree: Path) -> None:
    assert broken_contracts(tree) == set()


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        pytest.param("epochtop/newfolder/__init__.py", "", PACKAGE_LAYERS, id="a top folder without a layer"),
        pytest.param("engine/newfolder/__init__.py", "", ENGINE_LAYERS, id="an engine folder without a layer"),
        pytest.param("tui/newfolder/__init__.py", "", SCREEN_LAYERS, id="a screen folder without a layer"),
        pytest.param(
            "engine/protocol/__init__.py", "import epochtop.engine.training", ENGINE_LAYERS, id="an upward import"
        ),
        pytest.param(
            "tui/state/__init__.py", "import epochtop.tui.cells", SCREEN_LAYERS, id="an upward import on screen"
        ),
        pytest.param(
            "engine/runs/__init__.py",
            "def later() -> None:\n    import epochtop.engine.training",
            ENGINE_LAYERS,
            id="an upward import inside a function",
        ),
        pytest.param("tui/cells/__init__.py", "import torch", NO_TORCH, id="torch on screen"),
        pytest.param("tui/cells/__init__.py", "import epochtop.engine.training", FIVE_DOORS, id="a sixth door"),
        pytest.param("engine/runs/__init__.py", "import textual", NO_SCREEN, id="a widget in the engine"),
        pytest.param("epochtop/formats/records.py", "import msgspec", READERS, id="a dependency of a reader of logs"),
        pytest.param("tui/cells/__init__.py", "import epochtop.formats.scan", READERS, id="a reader of logs on screen"),
        pytest.param("epochtop/recording/series.py", "import numpy", PLAIN_PYTHON, id="numpy in a user's script"),
        pytest.param("epochtop/remote/agent.py", "import msgspec", ELSEWHERE, id="a dependency on another machine"),
    ],
)
def test_a_violation_breaks_its_contract(file: str, line: str, contract: str, tree: Path) -> None:
    add(tree, file, line)
    assert contract in broken_contracts(tree)


def test_a_cycle_between_siblings_breaks_its_contract(tree: Path) -> None:
    add(tree, "tui/cells/first.py", "import epochtop.tui.cells.second")
    add(tree, "tui/cells/second.py", "import epochtop.tui.cells.first")
    assert broken_contracts(tree) == {NO_CYCLES}
