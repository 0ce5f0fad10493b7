"""CSV logs of Lightning, Keras and YOLO."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from epochtop.formats.csvlog import CsvFollower, recognize
from tests.formats.writers import TIME, Read

LIGHTNING = "epoch,step,train_loss,val_loss\n0,0,1.0,\n0,1,0.5,\n0,1,,0.75\n"
KERAS = "epoch,accuracy,loss,val_loss\n0,0.5,1.25,1.5\n1,0.75,1.0,1.25\n"
YOLO = (
    "                  epoch,               time,         train/box_loss\n"
    "                      1,             12.345,                0.5\n"
    "                      2,             24.001,               0.25\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.csv"


def read(path: Path, text: str) -> Read:
    path.write_text(text, encoding="utf-8")
    return Read(CsvFollower(path))


def test_lightning_logs_each_metric_at_its_own_steps(path: Path) -> None:
    series = read(path, LIGHTNING).series
    assert series == {"epoch": {0: 0.0, 1: 0.0}, "train_loss": {0: 1.0, 1: 0.5}, "val_loss": {1: 0.75}}


def test_keras_logs_one_row_per_epoch(path: Path) -> None:
    assert read(path, KERAS).series["val_loss"] == {0: 1.5, 1: 1.25}
    assert read(path, KERAS.replace(",", ";")).series["val_loss"] == {0: 1.5, 1: 1.25}


def test_yolo_pads_its_columns(path: Path) -> None:
    series = read(path, YOLO).series
    assert series == {"time": {1: 12.345, 2: 24.001}, "train/box_loss": {1: 0.5, 2: 0.25}}


def test_a_column_of_unix_times_gives_the_times(path: Path) -> None:
    result = read(path, f"step,timestamp,loss\n0,{TIME},1\n1,{TIME + 2},0.5\n")
    assert result.times == {"loss": {0: TIME, 1: TIME + 2}}
    assert math.isnan(read(path, KERAS).times["loss"][0])


def test_settings_next_to_the_log_are_the_configuration(path: Path) -> None:
    path.with_name("hparams.yaml").write_text(
        "lr: 0.1\nmodel:\n  layers: 2\n  names:\n  - a\n  - 'b: c'\n  dropout: null\nflag: true\ntag: !!python/object:x.Y {}\n"
        'empty: {}\ntext: "a \\"b\\""\nlist: [1, 2.5]\n'
    )
    assert read(path, LIGHTNING).config == {
        "lr": 0.1, "model/layers": 2, "model/names": ["a", "b: c"], "model/dropout": None, "flag": True,
        "tag": "!!python/object:x.Y {}", "empty": {}, "text": 'a "b"', "list": [1, 2.5],
    }  # fmt: skip


def test_nan_inf_and_text(path: Path) -> None:
    series = read(path, "step,loss,name\n0,nan,a\n1,inf,b\n2,-inf,\n").series
    assert series.keys() == {"loss"}
    assert math.isnan(series["loss"][0])
    assert [series["loss"][1], series["loss"][2]] == [math.inf, -math.inf]


def test_a_row_is_read_once_it_is_complete(path: Path) -> None:
    for cut in range(len(LIGHTNING)):
        result = read(path, LIGHTNING[:cut])
        with open(path, "a", encoding="utf-8") as file:
            file.write(LIGHTNING[cut:])
        assert result.more().series["train_loss"] == {0: 1.0, 1: 0.5}, cut
        assert result.values == 6
        assert result.restarts == []


def test_a_new_column_rewrites_the_file_and_repeats_nothing(path: Path) -> None:
    """As Lightning's CSVLogger does: a new header, and every earlier row with an empty cell."""
    result = read(path, "step,train_loss\n0,1.0\n1,0.5\n")
    path.write_text("step,train_loss,val_loss\n0,1.0,\n1,0.5,\n1,,0.75\n", encoding="utf-8")
    assert result.more().series == {"train_loss": {0: 1.0, 1: 0.5}, "val_loss": {1: 0.75}}
    assert result.values == 3
    assert result.restarts == []


def test_a_rewrite_that_is_seen_half_done(path: Path) -> None:
    result = read(path, "step,train_loss\n0,1.0\n1,0.5\n")
    new = "step,train_loss,val_loss\n0,1.0,\n1,0.5,\n1,,0.75\n"
    for cut in (0, 10, 30, 36):
        path.write_text(new[:cut], encoding="utf-8")
        result.follower.read()
    path.write_text(new, encoding="utf-8")
    assert result.more().series == {"train_loss": {0: 1.0, 1: 0.5}, "val_loss": {1: 0.75}}
    assert result.values == 3


def test_another_run_in_the_same_file_replaces_the_first(path: Path) -> None:
    result = read(path, "step,loss\n" + "".join(f"{step},1.0\n" for step in range(100)))
    path.write_text("step,loss\n0,2.0\n1,3.0\n", encoding="utf-8")
    for _ in range(4):
        result.more()
    assert result.series == {"loss": {0: 2.0, 1: 3.0}}


def test_bad_rows_are_skipped_and_counted(path: Path) -> None:
    result = read(path, "step,loss\n0,1\nx,y\n1\n1,2,3\n2,0.5\n")
    assert result.series == {"loss": {0: 1.0, 2: 0.5}}
    assert result.follower.damaged == 3


def test_the_end_of_a_long_file_is_enough_for_its_last_values(path: Path) -> None:
    path.write_text("step,loss\n" + "".join(f"{step},{step / 2}\n" for step in range(10_000)), encoding="utf-8")
    result = Read(CsvFollower(path, last_bytes=1000))
    assert result.series["loss"][9_999] == 4_999.5
    assert result.values < 120


@pytest.mark.parametrize("text", [LIGHTNING, KERAS, YOLO, "step,loss\n"])
def test_logs_are_recognized(path: Path, text: str) -> None:
    assert recognize(path, text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "step\n1\n",
        "sepal,petal,species\n5.1,3.5,setosa\n",
        "epoch,name\nfirst,a\n",
        "step,loss",
        "epoch\0,loss\n1,2\n",
    ],
)
def test_other_files_are_not(path: Path, text: str) -> None:
    assert not recognize(path, text.encode())
