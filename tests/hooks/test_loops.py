"""Plain loops: the same losses with and without hooks, bit for bit, and these losses are what is recorded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import pytest

from epochtop.engine.runs.reader import read_record
from tests.support.hooked import Recorded, bare, hooked, read_events, series_of

HERE = Path(__file__).parent / "programs"
Series = Mapping[str, list[tuple[int, float]]]

pytestmark = pytest.mark.xdist_group("loops")


@pytest.fixture(scope="module")
def printed() -> str:
    """What all loops print without hooks."""
    return bare([HERE / "loops.py"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder of runs."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def recorded(folder: Path) -> Recorded:
    """All loops with hooks; each adds to a run of its own, the first one to that of the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHTOP_HOME", str(folder))
        result = hooked([HERE / "loops.py"])
    assert result.status == 0, result.complaints
    return result


@pytest.fixture
def series(recorded: Recorded, folder: Path, request: pytest.FixtureRequest) -> Series:
    """The series of one loop, with steps from 0: the loops follow each other in one process."""
    (run,) = (path for path in folder.iterdir() if read_record(path).name == request.param)
    series = series_of(read_events(run))
    first = min(steps[0][0] for steps in series.values())
    return {name: [(step - first, value) for step, value in steps] for name, steps in series.items()}


def losses(printed: str, name: str) -> list[list[float]]:
    """The losses that a loop has printed, by step."""
    words = [line.split() for line in printed.splitlines()]
    return [[float.fromhex(each) for each in rest] for first, *rest in words if first == name]


def numbered(values: list[float]) -> list[tuple[int, float]]:
    """Values with their steps, at the precision of float32."""
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in enumerate(values)]


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("series", [name], indirect=True)


def test_losses_graphs_and_breaks_are_the_same_bit_for_bit(recorded: Recorded, printed: str) -> None:
    assert recorded.output == printed
    assert "graphs" in printed
    assert not [line for line in recorded.complaints.splitlines() if line.startswith("epochtop:")]


@pytest.mark.parametrize("series", ["plain", "checkpointed", "closure", "two_optimizers_one_loss"], indirect=True)
def test_the_loss_of_every_step_is_recorded(series: Series, printed: str, request: pytest.FixtureRequest) -> None:
    expected = losses(printed, request.node.callspec.params["series"])
    assert series["train/loss"] == numbered([fmean(step) for step in expected])
    assert set(series) == {"train/loss", "optimizer/learning_rate", "time/step_ms", "time/data_wait_percent"}


@of("full_batch")
def test_usual_steps_are_recorded_like_all_others(series: Series, printed: str) -> None:
    expected = losses(printed, "full_batch")
    assert series["train/loss"] == numbered([fmean(step) for step in expected])
    assert [number for number, step in enumerate(expected) if len(step) == 2] == [10, 11, 31]
    assert series["optimizer/learning_rate"] == [(0, 0.1), (20, 0.05), (40, 0.025)]
    assert [step for step, _ in series["time/step_ms"]] == list(range(1, 60))
    assert all(milliseconds > 0 for _, milliseconds in series["time/step_ms"])


@of("plain")
def test_the_learning_rate_is_recorded_when_it_changes(series: Series) -> None:
    assert series["optimizer/learning_rate"] == [(0, 0.01), (4, 0.005), (8, 0.0025)]


@of("plain")
def test_times_are_recorded_from_the_second_step(series: Series) -> None:
    assert [step for step, _ in series["time/step_ms"]] == list(range(1, 12))
    assert all(0 < share <= 100 for _, share in series["time/data_wait_percent"])
    assert all(milliseconds > 0 for _, milliseconds in series["time/step_ms"])


@of("accumulation")
def test_accumulated_losses_are_averaged(series: Series, printed: str) -> None:
    assert series["train/loss"] == numbered([fmean(step) for step in losses(printed, "accumulation")])


@of("gan")
def test_two_optimizers_with_losses_have_series_each(series: Series, printed: str) -> None:
    steps = losses(printed, "gan")
    assert series["train/optimizer_d/loss"] == numbered([(real + fake) / 2 for real, fake, _ in steps])
    assert series["train/optimizer_g/loss"] == numbered([loss for _, _, loss in steps])
    assert series["optimizer/optimizer_d/learning_rate"] == [(0, 0.02)]
    assert "train/loss" not in series


@of("scaled")
def test_scaled_losses_are_recorded_without_the_scale(series: Series, printed: str) -> None:
    """The scaler skips the step after the fifth backward pass, so its loss counts towards the last step."""
    first, second, third, fourth, fifth, sixth = (step[0] for step in losses(printed, "scaled"))
    assert series["train/loss"] == numbered([first, second, third, fourth, (fifth + sixth) / 2])


@of("compiled")
def test_losses_of_compiled_steps_are_recorded(series: Series, printed: str) -> None:
    assert series["train/loss"] == numbered([step[0] for step in losses(printed, "compiled")])


def test_two_ranks_record_one_run_and_the_same_losses(home: Path) -> None:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", HERE / "ddp.py"]
    without = bare(command)
    result = hooked(command)
    assert result.output == without, result.complaints
    assert result.series["train/loss"] == numbered([float.fromhex(word) for word in without.split()])
    assert [path.name for path in home.iterdir()] == [result.run.name]


def test_hooks_take_their_place_in_sys_path_for_themselves_alone() -> None:
    look = (
        "import sys; print(sys.path, 'sitecustomize' in sys.modules, [m for m in sys.modules if m.startswith('tex')])"
    )
    assert hooked(["-c", look]).output.split("]")[0] == bare(["-c", look]).split("]")[0]
    assert sys.path
