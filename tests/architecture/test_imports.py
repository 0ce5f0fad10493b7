"""Who may import what, seen in fresh interpreters: what is in `sys.modules` afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOADED = (
    "import json, sys; before = {{*sys.modules}}; {statements}; print(json.dumps(sorted({{*sys.modules}} - before)))"
)

HEAVY = {"torch", "numpy", "sklearn", "scipy", "safetensors"}
SCREEN = {"textual", "plotext", "rich", "tyro"}
RECORDING = Path(__file__).parents[2] / "epochtop" / "recording"


def loaded(statements: str) -> set[str]:
    """Every package that these statements load in a fresh interpreter."""
    return {name.partition(".")[0] for name in modules_loaded(statements)}


def modules_loaded(statements: str) -> set[str]:
    """Every module that these statements load in a fresh interpreter."""
    code = LOADED.format(statements=statements)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {*json.loads(done.stdout.splitlines()[-1])}


def third_parties(names: set[str]) -> set[str]:
    """Those that come neither with Python nor from here."""
    return {name for name in names if name not in sys.stdlib_module_names and not name.startswith("_")} - {"epochtop"}


@pytest.mark.parametrize("package", ["numpy", "msgspec"])
def test_an_import_is_seen(package: str) -> None:
    """Else the tests below would prove nothing."""
    assert package in third_parties(loaded(f"import {package}"))
    assert package in third_parties(loaded(f"import importlib; importlib.import_module('{package}')"))
    assert package not in loaded("import json")


def test_the_package_itself_costs_nothing() -> None:
    assert third_parties(loaded("import epochtop, epochtop.engine, epochtop.tui")) == set()


@pytest.mark.parametrize(
    "module", ["epochtop.engine.protocol.events", "epochtop.engine.protocol.requests", "epochtop.engine.protocol.spec"]
)
def test_the_protocol_needs_msgspec_alone(module: str) -> None:
    alone = third_parties(loaded("import msgspec"))
    assert third_parties(loaded(f"import {module}")) == alone <= {"msgspec", "typing_extensions"}


@pytest.mark.parametrize(
    "module",
    [
        "epochtop.engine.runs.writer",
        "epochtop.engine.runs.reader",
        "epochtop.engine.runs.index",
        "epochtop.engine.hardware",
    ],
)
def test_what_the_screen_uses_of_the_engine_is_light(module: str) -> None:
    assert not loaded(f"import {module}") & (HEAVY | SCREEN)


def test_using_a_run_stays_light() -> None:
    """What is imported only when it is called counts too."""
    use = "import pathlib, epochtop.engine.runs.index, epochtop.engine.runs.paths; epochtop.engine.runs.index.run_paths(epochtop.engine.runs.paths.home()); epochtop.engine.runs.paths.whoami()"
    assert not loaded(use) & (HEAVY | SCREEN)


def test_the_engine_knows_nothing_of_a_screen() -> None:
    """Rich is not looked for: scikit-learn loads it, where it is installed, for a progress bar of its own."""
    modules = loaded("import epochtop.engine.process.standby; epochtop.engine.process.standby.warm_up()")
    assert not modules & (SCREEN - {"rich"})
    assert {"torch", "sklearn"} <= modules


@pytest.mark.parametrize("executor", ["eager", "graph"])
def test_a_run_that_is_not_compiled_does_not_load_what_compiles(executor: str) -> None:
    """It would take two seconds between the key and the first loss, and 100 MB; sympy comes with torch's compilers."""
    begin = (
        "from epochtop.engine.job.prepare import prepare_job; from epochtop.engine.protocol.spec import RunSpec; from epochtop.engine.execution.choice import make; "
        f"spec = RunSpec(device='cpu', threads=1, executor='{executor}'); "
        f"executor = make(prepare_job(spec), '{executor}')"
    )
    modules = loaded(begin)
    assert "sympy" not in modules
    assert "torch" in modules


def test_the_lab_is_listed_and_shown_without_what_measures() -> None:
    """Every experiment is imported by name, its page is made, its rows are drawn and its verdict is drawn from them."""
    use = (
        "import epochtop.tui.lab.screen, epochtop.tui.cli.lab.text, epochtop.tui.lab.gain, epochtop.tui.screens.guide; "
        "from epochtop.engine.lab.catalog import experiments; from epochtop.engine.lab.experiment import Findings; "
        "from epochtop.tui.lab.pictures.picture import picture_rows; "
        "[each.conclude(Findings([])) for each in experiments()]; "
        "[picture_rows(picture, [], (), 80, 12) for each in experiments() for picture in each.pictures]"
    )
    modules = loaded(use)
    assert not modules & HEAVY
    assert "textual" in modules


def test_a_script_waits_for_no_module_that_its_run_does_not_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes 0.1 ms. `earlier`, `later` and `values` of recording, the reader of config.toml and notifications come later."""
    monkeypatch.setenv("EPOCHTOP_HOME", str(tmp_path))
    monkeypatch.setenv("EPOCHTOP_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.delenv("EPOCHTOP_WEBHOOK", raising=False)
    use = (
        "import epochtop; from epochtop.recording import writer; writer.INTERVAL_S = 60; "
        "run = epochtop.init(); run.log(loss=1.0); run.finish()"
    )
    own = {name for name in modules_loaded(use) if name.partition(".")[0] == "epochtop"}
    needed = {f"epochtop.recording.{path.stem}" for path in RECORDING.glob("[!_]*.py")}
    assert own == {
        "epochtop",
        "epochtop.configuration",
        "epochtop.configuration.regular",
        "epochtop.recording",
        *needed,
    }


def test_no_module_of_the_screen_loads_what_trains() -> None:
    every = (
        "import importlib, pkgutil, epochtop.tui; "
        "names = ['epochtop.tui', *(found.name for found in pkgutil.walk_packages(epochtop.tui.__path__, 'epochtop.tui.'))]; "
        "[importlib.import_module(name) for name in names]"
    )
    modules = loaded(every)
    assert not modules & HEAVY
    assert "textual" in modules


def test_an_app_loads_before_its_first_frame_little_more_than_textual() -> None:
    modules = modules_loaded("import epochtop.tui.__main__, epochtop.tui.app.launch, epochtop.tui.app.app")
    assert "epochtop.tui.screens.opening" in modules
    assert [name for name in modules if name.partition(".")[0] in ("msgspec", "plotext", "psutil", "tyro")] == []
    later = (
        *("epochtop.engine.protocol", "epochtop.engine.hardware", "epochtop.tui.board", "epochtop.tui.chart"),
        *("epochtop.tui.forms", "epochtop.tui.machine", "epochtop.tui.state"),
    )
    assert [name for name in modules if name.startswith(later)] == []


def test_an_app_loads_no_readers_of_logs_and_attach_no_argument_parser() -> None:
    controllers = "from epochtop.tui.app import lab_controller, run_controller, run_requests"
    modules = modules_loaded(f"import epochtop.tui.cli.runs.attach; {controllers}")
    assert {"epochtop.engine.runs.opened.sources", "epochtop.tui.app.stage"} <= modules
    assert [name for name in modules if name.startswith(("epochtop.formats", "tyro", "epochtop.engine.hardware"))] == []
    assert "epochtop.formats" not in modules_loaded("import epochtop.tui.cli.main")


def test_public_readers_need_no_torch() -> None:
    assert not loaded("from epochtop import open, runs; open, runs") & {"torch", "sklearn", "textual"}
