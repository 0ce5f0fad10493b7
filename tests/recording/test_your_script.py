"""Every example of docs/your-script.md runs as it is printed, with the real frameworks, and records what it says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import Configured, ScriptEnded, SettingDeclared, Summarized
from epochtop.engine.runs.reader import read_record
from epochtop.engine.runs.writer import send
from epochtop.recording import current, endings
from epochtop.recording.later import control
from epochtop.recording.run import Run
from epochtop.tensorboard import SummaryWriter
from tests.recording.scripts import ROOT, only_run, recorded, series
from tests.support.engines import wait_until

PAGE = ROOT / "docs" / "your-script.md"
HARMONIC = [(step, 1 / (step + 1)) for step in range(100)]

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("frameworks")]


def example(heading: str, number: int = 0) -> str:
    """A Python example below a heading."""
    sections = re.split(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = dict(zip(sections[1::2], sections[2::2], strict=True))[heading]
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[number]


@pytest.fixture(autouse=True)
def _in_a_script_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder is empty, and runs that the example leaves open end as at the end of a script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(current, "_current", None)
    monkeypatch.setattr(control, "STOP_PATIENCE_S", 1000.0)  # importing a framework takes a while
    yield
    for run in list(endings._process.runs):
        run.end({"type": "ScriptEnded", "outcome": "finished"}, math.inf)


def execute(heading: str, number: int = 0) -> dict[str, Any]:
    """Run an example. Returns its variables."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(example(heading, number), str(PAGE), "exec"), names)
    for run in list(endings._process.runs):
        run.end({"type": "ScriptEnded", "outcome": "finished"}, math.inf)
    return names


def test_every_example_is_tested() -> None:
    assert PAGE.read_text(encoding="utf-8").count("```python") == 13


def test_two_lines(home: Path) -> None:
    execute("Two lines")
    assert series(only_run(home)) == {"loss": HARMONIC}


def test_a_name_and_a_configuration(home: Path) -> None:
    execute("A run with a name and a configuration")
    path = only_run(home)
    assert series(path) == {"loss": HARMONIC, "accuracy": [(step, step / 100) for step in range(100)]}
    record = read_record(path)
    assert record.script is not None
    assert (record.name, record.script.config, record.script.tags) == ("resnet-lr3", {"lr": 0.1}, ("baseline",))
    assert Summarized(values={"best": 0.99}) in recorded(path)


def test_values(home: Path) -> None:
    execute("What `log` accepts")
    assert series(only_run(home)) == {"loss": [(0, 1.0)], "train/loss": [(1, 0.5)], "val/accuracy": [(1, 1.0)]}


def test_steps(home: Path) -> None:
    execute("What `log` accepts", 1)
    assert series(only_run(home)) == {"loss": [(10, 0.5), (11, 0.4)], "accuracy": [(10, 0.9), (11, 0.95)]}


def test_settings(home: Path) -> None:
    execute("Pause, stop and change settings from the app")
    path = only_run(home)
    assert SettingDeclared(name="learning_rate", value=0.1, low=1e-6, high=1.0) in recorded(path)
    assert series(path)["loss"][-1] == (99, 1 / (1 + 0.1 * 99))


def test_continuing(home: Path) -> None:
    execute("How a run ends")
    assert series(only_run(home)) == {"loss": [(0, 0.5), (1, 0.4)]}


def test_wandb(home: Path) -> None:
    execute("A script that uses wandb")
    assert series(only_run(home)) == {"train/loss": HARMONIC[:10]}


def test_tensorboard(home: Path) -> None:
    execute("A script that uses TensorBoard")
    assert series(only_run(home)) == {"train/loss": HARMONIC[:10]}
    assert read_record(only_run(home)).name == "baseline"


def test_a_summary_writer_has_a_folder_for_files(home: Path) -> None:
    with SummaryWriter("runs/baseline") as writer:
        (Path(writer.log_dir) / "model.pt").write_bytes(b"x")
        assert writer.get_logdir() == writer.log_dir
    assert (only_run(home) / "files" / "model.pt").exists()


def test_lightning(home: Path) -> None:
    pytest.importorskip("lightning")
    execute("Lightning")
    values = series(only_run(home))
    assert [step for step, _ in values["train_loss"]] == list(range(8))
    assert values["train_loss"][-1][1] < values["train_loss"][0][1]
    assert [value for _, value in values["epoch"]] == [0.0] * 4 + [1.0] * 4


def test_hugging_face(home: Path) -> None:
    pytest.importorskip("transformers")
    names = execute("Hugging Face")
    values = series(only_run(home))
    history = [entry for entry in names["trainer"].state.log_history if "loss" in entry]
    assert values["loss"] == [(entry["step"], entry["loss"]) for entry in history]
    assert [step for step, _ in values["learning_rate"]] == [1, 2, 3, 4]
    (configured,) = [event.values for event in recorded(only_run(home)) if isinstance(event, Configured)]
    assert (configured["model/hidden_size"], configured["trainer/max_steps"]) == (16, 4)


def test_keras(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    names = execute("Keras")
    values = series(only_run(home))
    history = names["model"].history.history
    assert [value for _, value in values["loss"]] == history["loss"]
    assert [value for _, value in values["val_loss"]] == history["val_loss"]
    assert [step for step, _ in values["loss"]] == [2, 5]
    assert [step for step, _ in values["batch/loss"]] == list(range(6))


def test_skorch(home: Path) -> None:
    pytest.importorskip("skorch")
    names = execute("skorch")
    values = series(only_run(home))
    history = names["net"].history
    assert [value for _, value in values["valid_loss"]] == history[:, "valid_loss"]
    assert [value for _, value in values["batch/train_loss"]] == [
        batch["train_loss"] for epoch in history for batch in epoch["batches"] if "train_loss" in batch
    ]
    assert isinstance(recorded(only_run(home))[-1], ScriptEnded)
    names["net"].partial_fit(names["x"], (names["x"][:, 0] > 0).astype("int64"))
    assert len(series(only_run(home))["valid_loss"]) == 4


def test_accelerate(home: Path) -> None:
    pytest.importorskip("accelerate")
    execute("Accelerate")
    path = only_run(home)
    losses = [value for _, value in series(path)["train_loss"]]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert Configured(values={"lr": 0.1}) in recorded(path)
    assert isinstance(recorded(path)[-1], ScriptEnded)


# --- a stop in the app ---------------------------------------------------------------------------------------------


def stopped_run() -> Run:
    """A run that a viewer has asked to stop."""
    run = Run("stopped")
    assert run.path is not None
    send(Path(run.path), Stop(by="ada@laptop:1"))
    wait_until(lambda: run.stopped_by)
    return run


def execute_stopped(heading: str, longer: tuple[str, str]) -> dict[str, Any]:
    """Run an example that trains for very long in a run that is stopped."""
    text = re.sub(r'(Epochtop\w+)\("\w+"\)', r"\1(run=stopped)", example(heading)).replace(*longer)
    names: dict[str, Any] = {"__name__": "__main__", "stopped": stopped_run()}
    exec(compile(text, str(PAGE), "exec"), names)
    names["stopped"].finish()
    last = recorded(only_run(Path(names["stopped"].path).parent))[-1]
    assert isinstance(last, ScriptEnded)
    assert (last.outcome, last.reason) == ("stopped", "stopped by ada@laptop:1")
    return names


def test_a_stop_ends_training_of_hugging_face() -> None:
    pytest.importorskip("transformers")
    names = execute_stopped("Hugging Face", ("max_steps=4", "max_steps=1_000_000"))
    assert names["trainer"].state.global_step <= 2


def test_a_stop_ends_training_of_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    names = execute_stopped("Keras", ("epochs=2", "epochs=1_000_000"))
    assert len(names["model"].history.epoch) <= 1


def test_a_stop_ends_training_of_skorch() -> None:
    pytest.importorskip("skorch")
    names = execute_stopped("skorch", ("max_epochs=2", "max_epochs=1_000_000"))
    assert len(names["net"].history) <= 1
