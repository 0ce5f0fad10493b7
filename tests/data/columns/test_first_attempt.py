"""Tables as people have them train at the first attempt, and predict new rows with gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from epochtop.engine.process import commands
from epochtop.engine.protocol.events import Evaluated
from epochtop.engine.protocol.presets import preset
from tests.data.columns.tables import LIKE
from tests.support.engines import events
from tests.support.trained_runs import read_table, trained, write_table


def metric_of(rows: list[dict[str, str]], target: str) -> float:
    """Accuracy or r2 of the predictions in the test rows."""
    label = "rings" if target == "last" else target
    _, test = train_test_split(rows, test_size=0.2, random_state=42)
    truth, answers = ([row[name].strip() for row in test] for name in (label, "prediction"))
    if any(name.startswith("probability_") for name in rows[0]):
        return float(accuracy_score(truth, answers))
    return float(r2_score(np.float64(truth), np.float64(answers)))


def predicted(
    capsys: pytest.CaptureFixture[str], run: Path, table: Path, columns: tuple[str, ...]
) -> list[dict[str, str]]:
    """The rows of a table with predictions for all of them."""
    assert commands.main(["predict", str(run), str(table)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    heading = f"{','.join((*columns, 'prediction'))}\n" if columns else ""  # the output has none if the file has none
    return [{name.strip(): cell for name, cell in row.items()} for row in read_table(heading + printed.out)]


@pytest.mark.parametrize("like", LIKE)
def test_a_table_trains_with_its_file_and_target_and_predicts_rows_with_gaps(
    like: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, target = LIKE[like]
    table = write(tmp_path / "table.csv")
    suited = preset(f"csv:{table}", "mlp", "")
    columns = ("sex", "length", "width", "rings") if target == "last" else ()
    run = trained(home, **{**suited, "dataset": f"csv:{table}", "target": target, "epochs": 8})
    (run / "checkpoints" / "best.json").unlink()  # the last evaluation is about the last weights
    evaluated = [event for event in events(run) if isinstance(event, Evaluated)][-1]
    assert evaluated.metric == pytest.approx(metric_of(predicted(capsys, run, table, columns), target), abs=1e-5)
    lines = table.read_text().splitlines()[:4]
    gaps = "," * lines[0].count(",")
    table.write_text("\n".join([*lines, gaps, gaps]) + "\n")
    rows = predicted(capsys, run, table, columns)
    assert len(rows) == (6 if target == "last" else 5)
    assert all(row["prediction"] for row in rows)


def mixture(seed: int, rows: int = 800) -> tuple[list[str], list[list[str]]]:
    """Two categories and three numbers with gaps, and the class that a noisy sum of their effects gives."""
    draw = np.random.default_rng(seed)
    codes, numbers = draw.integers(0, (4, 9), (rows, 2)), draw.normal(5, (1, 20, 300), (rows, 3))
    scores = draw.normal(size=(4, 3))[codes[:, 0]] + draw.normal(size=(9, 3))[codes[:, 1]]
    scores += (numbers - 5) / (1, 20, 300) @ draw.normal(size=(3, 3)) + 0.2 * draw.gumbel(size=scores.shape)
    cells = np.concatenate((codes.astype(str), numbers.round(3).astype(str)), axis=1).astype(object)
    cells[:, :2] = "v" + cells[:, :2]
    cells[draw.random(cells.shape) < 0.05] = ""
    labels = [f"class {code}" for code in scores.argmax(1)]
    return labels, cells.tolist()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("seed", [1, 2])
def test_default_settings_are_as_accurate_as_scikit_learn(seed: int, home: Path, tmp_path: Path) -> None:
    labels, cells = mixture(seed)
    table = write_table(
        tmp_path / "t.csv",
        ("c1", "c2", "x1", "x2", "x3", "kind"),
        [[*row, label] for row, label in zip(cells, labels, strict=True)],
    )
    run = trained(home, **{**preset(f"csv:{table}", "mlp", ""), "dataset": f"csv:{table}", "target": "kind"})
    ours = [event for event in events(run) if isinstance(event, Evaluated)][-1].metric
    x = np.array(cells, dtype=object)
    x[x == ""] = np.nan
    train, test, y, y_test = train_test_split(x, labels, test_size=0.2, random_state=42)
    columns = ColumnTransformer([
        ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), [2, 3, 4]),
        ("categories", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), [0, 1]),
    ])  # fmt: skip
    theirs = make_pipeline(columns, MLPClassifier(random_state=1, max_iter=60)).fit(train, y).score(test, y_test)
    assert ours is not None
    assert ours > theirs - 0.03
