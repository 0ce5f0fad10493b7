"""Runs of arrays, series and texts learn, predict new rows, and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler

from epochtop.engine.inference.trained_model import load
from epochtop.engine.process import commands
from epochtop.engine.training.resume import recorded_run
from tests.support.trained_runs import floats, read_table, trained, write_table

CHANCE = np.random.default_rng(8)
TIME = np.linspace(0, 6, 8)
SLOW = np.arange(60) % 2 == 0
WAVES = np.stack(
    [np.sin(TIME * np.where(SLOW, 1, 3)[:, None] + CHANCE.random((60, 1))), CHANCE.random((60, 8))], axis=2
)
FILMS = [[f"{CHANCE.choice(['this', 'that', 'the'])} film is {mood}", mood in ("good", "great")] for mood in
         ("good", "bad", "great", "awful") * 12]  # fmt: skip
SERIES: dict[str, dict[str, Any]] = {
    "lstm": {"layers": 1}, "cnn": {}, "transformer": {"layers": 1, "heads": 2}, "mlp": {"hidden": (16,)}
}  # fmt: skip
COMMON: dict[str, Any] = {"batch_size": 16, "width": 16, "learning_rate": 0.01}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def answers(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, str]]:
    assert commands.main(["predict", *map(str, arguments)]) == 0
    return read_table(capsys.readouterr().out)


def outputs(run: Path, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The output of the run's model."""
    with torch.no_grad():
        result: npt.NDArray[Any] = load(run).model(torch.from_numpy(x)).numpy()
    return result


def onnx_outputs(capsys: pytest.CaptureFixture[str], run: Path, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    assert commands.main(["export", str(run), "--format", "onnx"]) == 0
    session = ReferenceEvaluator(capsys.readouterr().out.splitlines()[0])
    result: npt.NDArray[Any] = session.run(None, {session.input_names[0]: x})[0]
    return result


@pytest.mark.parametrize("model", SERIES)
def test_series_are_learned_and_predicted(model: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("waves.npz", x=WAVES, y=np.where(SLOW, "slow", "fast"))
    run = trained(home, dataset="npz:waves.npz", model=model, epochs=30, **COMMON, **SERIES[model])
    np.savez("new.npz", x=WAVES)
    rows = answers(capsys, run, "new.npz")
    assert np.mean([(row["prediction"] == "slow") == slow for row, slow in zip(rows, SLOW, strict=True)]) > 0.9
    train, _ = train_test_split(WAVES, test_size=0.2, random_state=42)
    scaler = MinMaxScaler().fit(train.reshape(-1, 2))
    x = scaler.transform(WAVES.reshape(-1, 2)).reshape(WAVES.shape).astype(np.float32)
    expected = torch.softmax(torch.from_numpy(outputs(run, x)), dim=1).numpy()
    np.testing.assert_allclose(floats(rows, "probability_fast", "probability_slow"), expected, atol=1e-5)
    table = write_table(Path("new.csv"), [f"v{place}" for place in range(16)], WAVES.reshape(60, 16).tolist())
    np.testing.assert_allclose(
        floats(answers(capsys, run, table), "probability_fast", "probability_slow"), expected, atol=1e-5
    )
    if model in ("lstm", "transformer"):
        np.testing.assert_allclose(onnx_outputs(capsys, run, x[:5]), outputs(run, x[:5]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", ["mlp", "transformer"])
def test_texts_are_learned_and_predicted(model: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_table(Path("films.csv"), ("text", "label"), [[text, "yes" if good else "no"] for text, good in FILMS])
    run = trained(
        home,
        dataset=f"text:{table}",
        model=model,
        epochs=12,
        layers=1,
        heads=2,
        hidden=(),
        **{**COMMON, "learning_rate": 0.02},
    )
    new = write_table(
        Path("new.csv"), ("id", "text"), [["1", "The film is GREAT"], ["2", "this film is awful"], ["3", ""]]
    )
    rows = answers(capsys, run, new)
    assert [row["prediction"] for row in rows[:2]] == ["yes", "no"]
    assert [(row["id"], row["text"]) for row in rows] == [
        ("1", "The film is GREAT"),
        ("2", "this film is awful"),
        ("3", ""),
    ]
    codes = load(run).example.numpy().copy()
    codes[:, :2] = [[3, 4], [5, 0]]
    np.testing.assert_allclose(onnx_outputs(capsys, run, codes), outputs(run, codes), rtol=1e-3, atol=1e-4)


def test_several_targets_have_a_prediction_each(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = CHANCE.normal(size=(200, 3))
    numbers = np.column_stack((x @ [1, 2, 0], 100 * x[:, 2] + 50))
    np.savez("numbers.npz", x=x, y=numbers)
    np.savez("labels.npz", x=x, y=(x > 0).astype(int))
    run = trained(home, dataset="npz:numbers.npz", epochs=100, hidden=(), **{**COMMON, "learning_rate": 0.05})
    rows = answers(capsys, run, "numbers.npz")
    np.testing.assert_allclose(floats(rows, "prediction_y0", "prediction_y1"), numbers, rtol=0.05, atol=3)
    run = trained(home, dataset="npz:labels.npz", epochs=100, hidden=(), **{**COMMON, "learning_rate": 0.05})
    rows = answers(capsys, run, "labels.npz")
    places = [f"prediction_y{place}" for place in range(3)]
    assert (floats(rows, *places) == (x > 0)).mean() > 0.95
    chances = floats(rows, *(f"probability_y{place}" for place in range(3)))
    assert np.array_equal(chances > 0.5, floats(rows, *places) == 1)
    assert recorded_run(run).spec.problem == "multi-label"


def test_float_images_are_predicted_from_arrays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.concatenate((CHANCE.random((30, 6, 6)) * 0.4, 0.6 + CHANCE.random((30, 6, 6)) * 0.4)).astype(np.float32)
    np.savez("gray.npz", X=x, Y=np.repeat([0, 1], 30))
    run = trained(home, dataset="npz:gray.npz", epochs=10, **COMMON)
    np.save("new.npy", x)
    rows = answers(capsys, run, "new.npy")
    assert [row["prediction"] for row in rows] == ["0"] * 30 + ["1"] * 30
