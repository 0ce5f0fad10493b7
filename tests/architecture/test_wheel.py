"""The wheel installs `epochtop` alone, and runs next to a user's own `engine.py`, `tui` folder, `run.py` and `data.py`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from epochtop.engine.protocol.events import Measured
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.paths import lab_home
from tests.support.engines import HANGING_S, events, finished, wait_until

pytestmark = pytest.mark.xdist_group("wheel")

ROOT = Path(__file__).parents[2]
BUILD_FILES = ("pyproject.toml", "README.md", "LICENSE")
PACKAGES = ("engine", "tui", "epochtop")
DATA_FILES = {"epochtop/py.typed", "epochtop/tui/app/app.tcss", "epochtop/engine/hardware/gpu/gpus.toml"}

TRAP = "raise RuntimeError('a file of the user was imported instead of a dependency')"
USER_FILES = {
    "engine.py": "def train_one_epoch():\n    return 'the user trains'\n",
    "data.py": "import torch\n\nx, y = torch.linspace(-1, 1, 384).reshape(96, 4), torch.arange(96) % 3\n",
    "tui/__init__.py": TRAP,
    "run.py": TRAP,
    "train_me.py": (
        "from torch import nn\n"
        "from torch.utils.data import TensorDataset\n"
        "from data import x, y\n"
        "from engine import train_one_epoch\n"
        "from epochtop import Task\n\n\n"
        "def make_task():\n"
        "    assert train_one_epoch() == 'the user trains'\n"
        "    return Task(model=nn.Linear(4, 3), train=TensorDataset(x, y), test=TensorDataset(x, y))\n"
    ),
}
TASK = ("--task", "train_me.py:make_task", "--device", "cpu", "--threads", "1")
NAMES = (
    "import epochtop; from epochtop import Task, RunSpec; print(epochtop.__file__, Task.__module__, RunSpec.__module__)"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tree, so that no build folder is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in BUILD_FILES:
        shutil.copy(ROOT / file, source)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(source / "dist"), str(source))
    (built,) = (source / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `python` and `epochtop` in a new environment that holds the wheel alone.

    It borrows the dependencies of the present environment. A path in a .pth file does not process the .pth files in that
    folder, so an editable installation of epochtop there stays out of sight.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    _pip("--python", str(folder / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    return folder / "bin"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The user's folder: a task, and modules with the names of our folders."""
    folder = tmp_path / "project"
    for name, text in USER_FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=HANGING_S)


def _start(folder: Path, *command: str | Path) -> subprocess.Popen[str]:
    """A command that the user types in `folder`, in a shell that does not have the checkout on PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(folder: Path, *command: str | Path) -> str:
    """Its standard output. Fails where the command does."""
    with _start(folder, *command) as process:
        printed, complaints = process.communicate(timeout=HANGING_S)
    assert process.returncode == 0, complaints
    return printed


def _child_interpreters(of: int, library: str = "") -> Iterator[list[str]]:
    """Arguments of every Python process below process `of` that has loaded a library."""
    for process in psutil.Process(of).children(recursive=True):
        try:
            command = process.cmdline()
            has_library = not library or any(library in file.path for file in process.memory_maps())
        except psutil.Error:
            continue
        if has_library and command and Path(command[0]).name.startswith("python"):
            yield command[1:]


# --- what it holds ------------------------------------------------------------------------------------------


def test_it_holds_epochtop_alone_with_every_module(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    own = {name for name in names if ".dist-info/" not in name}
    sources = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).glob("**/*.py")}
    modules = {str(path) if path.parts[0] == "epochtop" else f"epochtop/{path}" for path in sources}
    assert own == modules | DATA_FILES
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"epochtop"}


def test_public_names_come_from_the_installed_package(programs: Path, project: Path) -> None:
    file, *defining = _run(project, programs / "python", "-c", NAMES).split()
    assert Path(file).is_relative_to(programs.parent)
    assert all(module.startswith("epochtop.engine.") for module in defining)


@pytest.mark.parametrize("command", [("python", "-m", "epochtop"), ("epochtop",)], ids=" ".join)
def test_the_command_starts(command: tuple[str, ...], programs: Path, project: Path) -> None:
    assert _run(project, programs / command[0], *command[1:], "--version") == "epochtop 0.1.0\n"


# --- next to the user's own modules -------------------------------------------------------------------------


def test_a_task_gets_the_users_own_modules(programs: Path, project: Path, home: Path) -> None:
    _run(project, programs / "python", "-m", "epochtop.engine", "train", *TASK, "--epochs", "30")
    (run,) = run_paths(home)
    assert finished(run).steps == 30


def test_several_processes_train_and_every_child_has_a_safe_path(programs: Path, project: Path, home: Path) -> None:
    """The user's `msgspec.py` would break any child that looks for modules in the current folder first."""
    (project / "msgspec.py").write_text(TRAP, encoding="utf-8")
    command = ("train", *TASK, "--epochs", "1000000", "--processes", "2", "--json")
    with _start(project, programs / "epochtop", *command) as process:
        wait_until(lambda: process.poll() is not None or _ranks(process.pid))
        children = list(_child_interpreters(process.pid))
        wait_until(lambda: process.poll() is not None or _has_losses(home))
        process.terminate()
        printed, complaints = process.communicate(timeout=HANGING_S)
    assert json.loads(printed)["outcome"] == "stopped", complaints
    assert len(children) == 2, children
    assert all(child[:3] == ["-P", "-m", "epochtop.engine"] for child in children), children


def _ranks(of: int) -> list[list[str]]:
    return [command for command in _child_interpreters(of) if "rank" in command]


def _has_losses(home: Path) -> bool:
    return any(type(event).__name__ == "Logged" for run in run_paths(home) for event in events(run))


def test_processes_of_an_experiment_take_steps(programs: Path, project: Path, home: Path) -> None:
    """It is stopped as soon as two of them have."""
    (project / "msgspec.py").write_text(TRAP, encoding="utf-8")
    with _start(project, programs / "epochtop", "lab", "parallel", "--quick", "--json", *TASK) as process:
        wait_until(lambda: process.poll() is not None or _parts(home) > 1)
        process.terminate()
        _, complaints = process.communicate(timeout=HANGING_S)
    assert _parts(home) > 1, complaints


def _parts(home: Path) -> int:
    """The largest number of processes that took a step together in an experiment."""
    rows = [event.values for run in run_paths(lab_home(home)) for event in events(run) if isinstance(event, Measured)]
    return max((int(row["parts"] or 0) for row in rows if row["kind"] == "step"), default=0)


def test_an_experiment_starts_the_process_that_compiles(programs: Path, project: Path) -> None:
    """It is stopped as soon as that process has loaded torch: compiling takes a minute."""
    (project / "msgspec.py").write_text(TRAP, encoding="utf-8")
    command = ("lab", "executors", "--quick", "--json", "--compile", "yes", *TASK)
    with _start(project, programs / "epochtop", *command) as process:
        wait_until(lambda: process.poll() is not None or _compilers(process.pid))
        compilers = _compilers(process.pid)
        process.terminate()
        _, complaints = process.communicate(timeout=HANGING_S)
    assert compilers, complaints
    assert all(command[:2] == ["-P", "-m"] for command in compilers)


def _compilers(of: int) -> list[list[str]]:
    return [command for command in _child_interpreters(of, "libtorch") if command[2].startswith("epochtop.engine.lab.")]
