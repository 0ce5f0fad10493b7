"""The table of runs: figures of every series, read once; labels; runs that change, are damaged, or come from other tools."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from epochtop.engine.protocol.events import encode
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import reader
from epochtop.engine.runs.families import lower_is_better
from epochtop.engine.runs.opened import folders
from epochtop.engine.runs.paths import EVENTS, RECORD
from epochtop.engine.runs.table import table as tables
from epochtop.engine.runs.table.labels import LABELS, Labels, parse_tags, read_log_labels, set_labels
from epochtop.engine.runs.table.store import STORE
from epochtop.engine.runs.table.table import RunTable
from epochtop.engine.runs.values.figures import FiguresReader
from tests.support.fakes.script_runs import SCRIPT_STARTED, logged, logged_at, script_ended, write_script_run
from tests.support.runs import engine_alive, events_of, write_run

NAN = math.nan


def a_script(home: Path, run_id: str, *more: object, **script: object) -> Path:
    windows = [logged(0, 1.0, loss=[2.0, 0.5, 1.0], acc=[0.25, NAN, 0.75]), logged_at([5], 2.0, val__loss=[NAN])]
    return write_script_run(home, run_id, [SCRIPT_STARTED, *windows, *more], **script)  # type: ignore[list-item]


def test_a_run_has_last_and_extreme_values_of_every_series(tmp_path: Path) -> None:
    a_script(tmp_path, "a", script_ended(6), config={"lr": 0.1}, group="g", tags=("base",), notes="first")
    (run,) = RunTable(tmp_path).list()
    values = {name: (figures.last, figures.minimum, figures.maximum) for name, figures in run.series.items()}
    assert values == {"loss": (1.0, 0.5, 2.0), "acc": (0.75, 0.25, 0.75), "val/loss": (None, None, None)}
    assert (run.config, run.group, run.labels, run.complete) == ({"lr": 0.1}, "g", Labels(("base",), "first"), True)


def test_an_engine_run_has_its_settings_without_its_name(tmp_path: Path) -> None:
    write_run(tmp_path, "iris", events_of("finished"), learning_rate=0.5, name="x")
    (run,) = RunTable(tmp_path).list()
    assert (run.name, run.config["learning_rate"], "name" in run.config) == ("x", 0.5, False)
    assert run.series["train/loss"].maximum == pytest.approx(1.1, rel=0.1)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs whose log is opened for figures from now on."""
    names: list[str] = []

    class Counted(FiguresReader):
        def update(self) -> None:
            names.append(self._follower.path.name)
            super().update()

    monkeypatch.setattr(tables, "FiguresReader", Counted)
    return names


def test_only_changed_runs_are_read_again_even_by_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        a_script(tmp_path, name, script_ended(6))
    names = reads(monkeypatch)
    before = RunTable(tmp_path).list()
    assert sorted(names) == ["a", "b", "c"]
    names.clear()
    with open(tmp_path / "b" / EVENTS, "ab") as log:
        log.write(encode(logged(9, 3.0, loss=[0.125])) + b"\n" + encode(script_ended(10)) + b"\n")
    after = RunTable(tmp_path).list()
    assert names == ["b"]
    assert {run.id: run.series["loss"].minimum for run in after} == {"a": 0.5, "b": 0.125, "c": 0.5}
    assert [run for run in after if run.id != "b"] == [run for run in before if run.id != "b"]


def test_a_growing_run_is_read_on_from_where_the_last_reading_ended(tmp_path: Path) -> None:
    run = a_script(tmp_path, "live")
    with engine_alive(run):
        table = RunTable(tmp_path)
        assert [entry.summary.state for entry in table.list()] == ["running"]
        with open(run / EVENTS, "ab") as log:
            log.write(encode(logged(9, 3.0, loss=[4.0])) + b"\n")
        (entry,) = table.list()
    assert (entry.series["loss"].count, entry.series["loss"].last, entry.series["loss"].maximum) == (4, 4.0, 4.0)
    assert [entry.summary.state for entry in table.list()] == ["died"]


def test_a_follower_continues_after_a_pause_in_the_middle_of_a_line(tmp_path: Path) -> None:
    run = a_script(tmp_path, "a")
    line = encode(logged(9, 3.0, loss=[4.0])) + b"\n"
    follower = reader.Follower(run)
    assert len(list(follower.read_all())) == 3
    for piece in (line[:20], line[20:]):
        follower.pause()
        with open(run / EVENTS, "ab") as log:
            log.write(piece)
        events = list(follower.read_all())
    follower.close()
    assert [event.first_step for event in events] == [9]  # type: ignore[union-attr]


def test_a_damaged_store_and_a_run_without_a_record_do_not_prevent_the_table(tmp_path: Path) -> None:
    a_script(tmp_path, "a", script_ended(6))
    RunTable(tmp_path).list()
    for content in (b"", b"\x81\xa1", (tmp_path / STORE).read_bytes()[:-9]):
        (tmp_path / STORE).write_bytes(content)
        assert [run.id for run in RunTable(tmp_path).list()] == ["a"]
    (tmp_path / "a" / RECORD).write_text("{")
    (run,) = RunTable(tmp_path).list()
    assert (run.summary.state, run.complete, run.series) == ("died", True, {})


def test_without_time_the_runs_are_listed_and_read_later(tmp_path: Path) -> None:
    a_script(tmp_path, "a", script_ended(6), config={"lr": 0.1})
    table = RunTable(tmp_path)
    (run,) = table.list(-1.0)
    assert (run.summary.state, run.config, run.series, run.complete) == ("finished", {"lr": 0.1}, {}, False)
    (run,) = table.list()
    assert (run.complete, len(run.series)) == (True, 3)


# --- labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["script", "engine"])
def test_labels_are_stored_in_the_record(tmp_path: Path, kind: str) -> None:
    run = a_script(tmp_path, "a") if kind == "script" else write_run(tmp_path, "a", events_of("finished"), name="x")
    before = reader.read_record(run)
    set_labels(tmp_path, run, Labels(("base", "x"), "good"))
    record = reader.read_record(run)
    owner = record if record.script is None else record.script
    assert (owner.tags, owner.notes, record.name) == (("base", "x"), "good", before.name)
    assert RunTable(tmp_path).list()[0].labels == Labels(("base", "x"), "good")


def test_labels_of_an_opened_log_are_stored_in_the_home_folder(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "logs"
    home.mkdir()
    folder.mkdir()
    log = folder / "metrics.csv"
    log.write_text("step,loss\n0,2\n1,1\n2,1.5\n")
    folders.add(home, [folder])
    table = RunTable(home)
    (run,) = table.list()
    assert (run.series["loss"].minimum, run.series["loss"].last) == (1.0, 1.5)
    content, modified = log.read_bytes(), log.stat().st_mtime_ns
    set_labels(home, Path(run.path), Labels(("base",), "n"))
    assert table.list()[0].labels == RunTable(home).list()[0].labels == Labels(("base",), "n")
    assert (log.read_bytes(), log.stat().st_mtime_ns) == (content, modified)
    assert [path.name for path in folder.iterdir()] == ["metrics.csv"]


def test_a_damaged_file_of_labels_is_reported_and_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / LABELS).write_text("[")
    with pytest.raises(Invalid, match=LABELS.replace(".", r"\.")):
        read_log_labels(tmp_path)
    log = tmp_path / "metrics.csv"
    log.write_text("step,loss\n0,2\n")
    with pytest.raises(Invalid):
        set_labels(tmp_path, log, Labels(("a",)))
    assert (tmp_path / LABELS).read_text() == "["


def test_tags_are_separated_by_commas_or_blanks() -> None:
    assert parse_tags(" base, lr-sweep  base,,x ") == ("base", "lr-sweep", "x")
    with pytest.raises(Invalid, match="60"):
        parse_tags("x" * 61)


@pytest.mark.parametrize(
    ("name", "lower"),
    [("loss", True), ("val/loss", True), ("train_loss_epoch", True), ("val/rmse", True), ("accuracy", False),
     ("val/f1", False), ("perplexity", True), ("throughput", False), ("bleu", False), ("glossary", False)],
)  # fmt: skip
def test_the_best_value_of_a_series_follows_from_its_name(name: str, lower: bool) -> None:
    assert lower_is_better(name) is lower
