"""What a program sends to real loggers and frameworks is recorded; a framework's results are the same bit for bit."""

from __future__ import annotations

import itertools
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean

import pytest

from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.reader import read_record
from tests.support.hooked import Recorded, bare, hooked, read_events, series_of

PROGRAMS = Path(__file__).parent / "programs"
Series = dict[str, list[tuple[int, float]]]

pytestmark = pytest.mark.xdist_group("frameworks")


ACCURACY = [(0, 0.0), (10, 0.25), (20, 0.5)]
TENSORBOARD = {
    "val/accuracy": ACCURACY,
    "loss/train": [(0, 0.0), (1, 1.0), (2, 2.0)],
    "loss/val": [(0, 0.5), (1, 1.5), (2, 2.5)],
}
WANDB = {"val/accuracy": [(0, 0.0), (10, 0.25), (11, 0.5)], "loss": [(10, 0.0), (11, 1.0), (12, 2.0)]}
"""wandb gives a call without a step the step of the last call that named one, until it is complete."""
MLFLOW = {"val/accuracy": ACCURACY, "loss": [(0, 0.0), (1, 1.0), (2, 2.0)], "rate": [(0, 0.5), (1, 0.5), (2, 0.5)]}
TRACKIO = {"val/accuracy": [(0, 0.0), (11, 0.25), (12, 0.5)], "loss": [(10, 0.0), (11, 1.0), (12, 2.0)]}


@pytest.mark.parametrize(
    ("package", "series", "config"),
    [
        ("tensorboard", TENSORBOARD, {"lr": 0.1}),
        ("tensorboardX", TENSORBOARD, {}),
        ("wandb", WANDB, {"lr": 0.1, "seed": 3}),
        ("mlflow", MLFLOW, {"lr": 0.1, "seed": 3}),
        ("trackio", TRACKIO, {"lr": 0.1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_and_settings_of_a_logger_are_recorded(
    package: str, series: Series, config: dict[str, float], home: Path, tmp_path: Path
) -> None:
    pytest.importorskip(package)
    result = hooked([PROGRAMS / "loggers.py", package.lower(), tmp_path])
    assert result.status == 0, result.complaints
    assert result.series == series
    settings = [event["values"] for event in result.events if event["type"] == "Configured"]
    assert {name: value for values in settings for name, value in values.items()} == config


FRAMEWORKS = ("lightning", "transformers", "keras")


@pytest.fixture(scope="module")
def installed() -> list[str]:
    """The frameworks that this environment has."""
    return [name for name in FRAMEWORKS if find_spec(name) is not None]


@pytest.fixture(scope="module")
def printed(installed: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What all frameworks print without hooks."""
    return bare([PROGRAMS / "frameworks.py", tmp_path_factory.mktemp("bare"), *installed])


@pytest.fixture(scope="module")
def trained(installed: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorded, dict[str, Series]]:
    """All frameworks with hooks in one process, and the series of each."""
    home = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHTOP_HOME", str(home))
        result = hooked([PROGRAMS / "frameworks.py", tmp_path_factory.mktemp("hooked"), *installed])
    assert result.status == 0, result.complaints
    return result, {read_record(run).name: since_start(series_of(read_events(run))) for run in run_paths(home)}


def since_start(series: Series) -> Series:
    """The same series; steps of the loss begin with 0, because the hooks continue to count in one process."""
    first = series["train/loss"][0][0]
    return {**series, "train/loss": [(step - first, value) for step, value in series["train/loss"]]}


def printed_losses(printed: str, framework: str) -> list[float]:
    """The losses of one framework, by step, as it printed them."""
    part = printed.partition(f"{framework}\n")[2]
    lines = itertools.takewhile(lambda line: line not in FRAMEWORKS, part.splitlines())
    return [float.fromhex(line.split()[1]) for line in lines if line.startswith("loss ")]


def test_losses_and_weights_of_frameworks_are_the_same_bit_for_bit(
    trained: tuple[Recorded, dict[str, Series]], printed: str, installed: list[str]
) -> None:
    if not installed:
        pytest.skip("no framework is installed")
    assert trained[0].output == printed
    assert not [line for line in trained[0].complaints.splitlines() if line.startswith("epochtop:")]


@pytest.mark.parametrize("framework", ["lightning", "transformers"])
def test_the_loss_of_every_step_of_a_trainer_is_recorded(
    framework: str, trained: tuple[Recorded, dict[str, Series]], printed: str
) -> None:
    pytest.importorskip(framework)
    losses = printed_losses(printed, framework)
    assert len(losses) == 8
    assert trained[1][framework]["train/loss"] == list(enumerate(losses))


def test_what_lightning_logs_is_recorded_at_its_steps(
    trained: tuple[Recorded, dict[str, Series]], printed: str
) -> None:
    """Every second step is logged, with the loss of that step."""
    pytest.importorskip("lightning")
    losses = printed_losses(printed, "lightning")
    assert trained[1]["lightning"]["train_loss"] == [(step, losses[step]) for step in (1, 3, 5, 7)]


def test_what_a_hugging_face_trainer_logs_is_recorded_at_its_steps(
    trained: tuple[Recorded, dict[str, Series]], printed: str
) -> None:
    """Every two steps, the mean of both losses is logged; the trainer counts steps from 1."""
    pytest.importorskip("transformers")
    losses = printed_losses(printed, "transformers")
    means = [(step, pytest.approx(fmean(losses[step - 2 : step]), rel=1e-4)) for step in (2, 4, 6, 8)]
    assert trained[1]["transformers"]["loss"] == means
    assert [step for step, _ in trained[1]["transformers"]["learning_rate"]] == [2, 4, 6, 8]


def test_epochs_of_keras_and_its_steps_on_torch_are_recorded(trained: tuple[Recorded, dict[str, Series]]) -> None:
    if find_spec("keras") is None:
        pytest.skip("keras is not installed")
    series = trained[1]["keras"]
    assert len(series["train/loss"]) == 6
    assert [step for step, _ in series["val_loss"]] == [2, 5]
