"""What every test stands on: an environment of its own, no process left behind, an engine at hand."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import pytest
from hypothesis import settings

from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import index
from epochtop.engine.runs.reader import is_alive, read_record
from epochtop.engine.runs.writer import create
from tests.support.engines import FRESH, Engine
from tests.support.fakes import fake_nvml
from tests.support.processes import prefork
from tests.support.ui.apps import Open
from tests.support.ui.commands import can_fork
from tests.support.ui.terminals import APP, Terminal

# The machine may be busy: no example fails for being slow, and every run of the tests tries the same examples.
settings.register_profile("full", deadline=None, derandomize=True, database=None)
settings.register_profile(
    "ci", settings.get_profile("full"), max_examples=settings.get_profile("full").max_examples // 4
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))


for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if (
        signal.getsignal(_number) is signal.SIG_IGN
    ):  # in a background job of a shell; its children would ignore them too
        signal.signal(_number, _handler)

# Threads without work sleep instead of spinning: on two busy cores, small steps on two threads took four times the CPU.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
prefork.fork_engines()
gc.disable()  # until all tests are collected: a quarter of the time of collecting them

LONGEST_FIRST = (
    "tests/distributed/",
    "tests/terminal/",
    "tests/architecture/test_wheel.py",
    "tests/training/test_checkpoints.py",
    "tests/training/test_plain_loop.py",
    "tests/training/test_resume.py",
    "tests/faults/test_disk.py",
    "tests/faults/test_kills.py",
    "tests/job/test_oom_advice.py",
    "tests/cli/test_find.py",
    "tests/execution/",
)
"""Tests that take longest or wait most. They start first; short tests fill the gaps and end together."""


def pytest_configure(config: pytest.Config) -> None:
    """Start the process that forks engines before the workers, so that they share it."""
    if config.getoption("numprocesses", None):
        prefork.address()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first; the order of all others, and the order inside a file, remain."""
    items.sort(key=lambda item: next((n for n, path in enumerate(LONGEST_FIRST) if item.nodeid.startswith(path)), 99))


def pytest_collection_finish() -> None:
    """Exempt what is imported by now from garbage collection, which took a quarter of the time of an app under test."""
    exempt_imported()
    gc.enable()
    gc.set_threshold(50_000, 20, 20)


def pytest_runtest_logfinish() -> None:
    """The same for what tests import: with scikit-learn and torch's compiler, a collection takes a third of a second."""
    if len(sys.modules) > _exempt_modules + MANY_MODULES:
        exempt_imported()


MANY_MODULES = 200
_exempt_modules = 0


def exempt_imported() -> None:
    """Exempt all objects that exist now from garbage collection."""
    global _exempt_modules
    _exempt_modules = len(sys.modules)
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for all tests of a run, those of other workers too: a program in C is built once."""
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHTOP_CACHE", str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"))
        yield


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home folder of runs; engines that still train in it afterwards are killed."""
    for name in ("NO_COLOR", "TEXTUAL_THEME", "EPOCHTOP_CONFIG", "EPOCHTOP_WEBHOOK", "EPOCHTOP_WEBHOOK_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))  # none of the user's
    folder = tmp_path / "runs"
    monkeypatch.setenv("EPOCHTOP_HOME", str(folder))
    yield folder
    for run in index.run_paths(folder):
        with suppress(Invalid, ProcessLookupError):
            pid = read_record(run).pid
            if is_alive(run) and pid != os.getpid():
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def live(home: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A run whose engine is this process, and its lock; it dies when the lock is closed."""
    run, lock = create(home, RunSpec(name="night run"), {"torch": "2.13.0"}, time.time())
    with lock:
        yield run, lock


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A standby engine, ready; killed afterwards."""
    with Engine() as started:
        yield started


@pytest.fixture(scope="session")
def iris_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The default run, 20,000 epochs of Iris, finished. Mark its tests `xdist_group("iris")`: it is trained once."""
    folder = tmp_path_factory.mktemp("iris")
    with Engine(FRESH) as started:
        run = started.train(RunSpec(threads=1, device="cpu"), folder)
        assert started.wait() == 0
        yield run


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the fake driver library."""
    yield fake_nvml.build(tmp_path_factory.mktemp("nvml"))
    fake_nvml.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the user, such as the one that an app is started in."""
    made = tmp_path / "here"
    made.mkdir()
    return made


@pytest.fixture
def app(folder: Path) -> Iterator[Open]:
    """Starts the app in a terminal of its own; ended afterwards."""
    with ExitStack() as stack:

        def start(*arguments: str, size: tuple[int, int] = (120, 40), **environment: str) -> Terminal:
            is_forked = can_fork(environment)
            command = arguments if is_forked else (*APP, *arguments)
            return stack.enter_context(
                Terminal(*command, size=size, folder=folder, environment=environment, is_forked=is_forked)
            )

        yield start
