"""`epochtop lab --compare`: which two, what is printed of them, one object, clear errors. From files alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.events import Measured, encode
from epochtop.engine.protocol.record import RunRecord, decode_record
from epochtop.engine.runs.paths import RECORD
from epochtop.tui.cli.main import run
from tests.cli.test_commands import epochtop
from tests.support.lab_runs import CREATED, events_of, events_with, prepared, rows_of_reads, slower, write_experiment
from tests.support.runs import engine_alive, write_run
from tests.support.runs import events_of as run_events

TWICE = slower(rows_of_reads(9, seed=2), 2.0, every=1)
CONCLUSION = "1 of 8 points is slower by 2.00 ×, the others show no difference"


def write_result(home: Path, run_id: str, rows: list[Row], age_s: float = 0.0, **machine: object) -> Path:
    """A finished result that is so old."""
    path = write_experiment(home, run_id, events_with(rows, **machine), age_s=age_s)  # type: ignore[arg-type]
    os.utime(path / "lock", (CREATED - age_s, CREATED - age_s))
    return path


@pytest.fixture
def two(home: Path) -> None:
    """An old result, and a newer one with another torch where reading every step takes twice as long."""
    write_result(home, "reads-11c0", rows_of_reads(9), age_s=600)
    write_result(home, "reads-7f3a", TWICE, torch="2.14.0")


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["lab", "--compare", *arguments]) == 0
    out = capsys.readouterr()
    assert not out.err
    return out.out


@pytest.mark.usefixtures("two")
def test_conditions_come_first_then_points_then_the_conclusion(capsys: pytest.CaptureFixture[str]) -> None:
    lines = compared(capsys, "reads-11c0", "reads-7f3a").splitlines()
    heads = ("reads · The cost of reading", "Before     reads-11c0 · ", "After      reads-7f3a · ", "Conditions torch 2.13.0 → ",
             "Time of the run over", "plain     20,000", "Conclusion 1 of 8", "Uncertain")  # fmt: skip
    places = [next(place for place, line in enumerate(lines) if line.startswith(head)) for head in heads]
    assert places == sorted(places)
    words = " ".join(" ".join(lines).split())
    assert CONCLUSION in words
    assert "torch 2.13.0 → 2.14.0 · this may explain the differences" in words
    changed, *others = sorted((line for line in lines if " × " in line[:50]), key=lambda line: "slower" not in line)
    assert changed.split()[:9] == ["plain", "20,000", "3.43", "s", "6.87", "s", "2.00", "×", "slower"]
    assert len(others) == 7
    assert all("no difference" in line for line in others)


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_no_line_is_wider_than_the_terminal(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    cpu = "Intel(R) Xeon(R) Platinum 8480+ with a name that is long"
    write_result(home, "reads-11c0", rows_of_reads(9), age_s=600)
    write_result(home, "reads-7f3a", TWICE, cpu=cpu, torch="2.14.0", load=2.0, host="another", usable_cpus=64)
    lines = compared(capsys, "reads-7").splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert cpu.split()[-1] in " ".join(lines)


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("arguments", [["reads-7"], ["reads-1"], ["reads-1", "reads-7"], ["reads-7f3a", "reads-11c0"]])
def test_beginnings_will_do_and_the_newest_other_is_the_second(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    write_result(home, "reads-0000", rows_of_reads(9), age_s=7000)
    write_result(home, "call-7f3b", rows_of_reads(9))
    write_experiment(home, "reads-9999", events_of("failed"))  # the newest of all, but there is nothing in it
    printed = json.loads(compared(capsys, *arguments, "--json"))
    assert (printed["before"]["run"], printed["after"]["run"]) == ("reads-11c0", "reads-7f3a")


@pytest.mark.usefixtures("two")
def test_the_last_one_is_the_last_result(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(home, "iris-mlp-7f3a", run_events("finished"))
    assert json.loads(compared(capsys, "last", "--json"))["after"]["run"] == "reads-7f3a"


@pytest.mark.usefixtures("two")
def test_one_object_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    printed = json.loads(compared(capsys, "--json", "reads-7"))
    assert set(printed) == {"experiment", "before", "after", "conditions", "pictures", "conclusion"}
    assert printed["conclusion"] == CONCLUSION
    assert printed["conditions"] == [{"name": "torch", "before": "2.13.0", "after": "2.14.0"}]
    assert printed["before"] == {
        "run": "reads-11c0", "created": CREATED - 600, "outcome": "finished", "quick": False,
        "rows": len(rows_of_reads(9)),
    }  # fmt: skip
    (picture,) = printed["pictures"]
    assert len(picture["points"]) == 8
    (point,) = [each for each in picture["points"] if each["outcome"] == "slower"]
    assert point["labels"] == {"device": "cpu", "loop": "plain", "reads": 20_000}
    assert point["ratio"]["median"] == pytest.approx(2, rel=0.02)
    assert set(point["before"]) == set(point["ratio"]) == {"median", "low", "high", "count"}


def test_a_live_result_is_compared_as_far_as_it_has_come(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(home, "reads-11c0", rows_of_reads(9), age_s=600)
    rows = [Measured(values=row) for row in TWICE[:40]]
    live = write_experiment(home, "reads-7f3a", [prepared(), *rows])
    with engine_alive(live), open(live / "events.jsonl", "ab") as log:
        log.write(b'{"type":"Measu')
        log.flush()
        text = compared(capsys, "reads-7f3a")
    assert "running · 40 rows" in text
    assert "slower" in text
    assert "died · 40 rows" in compared(capsys, "reads-7f3a")


def test_a_line_that_cannot_be_read_is_skipped_and_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(home, "reads-11c0", rows_of_reads(9), age_s=600)
    damaged = write_result(home, "reads-7f3a", TWICE)
    with open(damaged / "events.jsonl", "ab") as log:
        log.write(b"nothing\n")
    assert run(["lab", "--compare", "reads-7", "reads-1"]) == 0
    out = capsys.readouterr()
    assert CONCLUSION in " ".join(out.out.split())
    assert out.err.startswith("epochtop: reads-7f3a/events.jsonl, line ")


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "compare: needs the ids of one or two results, not 0"),
        (["a", "b", "c"], "compare: needs the ids of one or two results, not 3"),
        (["reads-1", "--quick"], "compare: unknown flag --quick"),
        (["nothing"], "no result 'nothing' in "),
        ([""], "no result '' in "),
        (["reads"], "'reads' matches 2 experiments: reads-7f3a, reads-11c0; use the full id"),
        (["reads-1", "reads-11c0"], "reads-11c0 cannot be compared with itself"),
        (["reads-1", "call"], "reads-11c0 is a result of reads, call-7f3b of call"),
        (["call"], "call-7f3b is the only result of call; run `epochtop lab call` again"),
        (["iris"], "iris-mlp-7f3a is a training run"),
        (["later-0001"], "later-0001: this version does not know the experiment later"),
    ],
)
def test_bad_input_is_one_clear_line(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_result(home, "call-7f3b", rows_of_reads(9), age_s=900)
    write_result(home, "later-0001", rows_of_reads(9), age_s=900)
    write_result(home, "later-0002", rows_of_reads(9), age_s=900)
    write_run(home, "iris-mlp-7f3a", run_events("finished"))
    assert run(["lab", "--compare", *arguments]) == 2
    out = capsys.readouterr()
    assert not out.out
    (line,) = out.err.splitlines()
    assert line.startswith(f"epochtop: {message}")


def test_other_folders_among_results_are_skipped(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(home, "reads-11c0", rows_of_reads(9), age_s=600)
    write_result(home, "reads-7f3a", TWICE)
    broken = write_result(home, "reads-bad0", TWICE)
    (broken / RECORD).write_text("{")
    other = write_result(home, "reads-bad1", TWICE)
    record: RunRecord = decode_record((other / RECORD).read_bytes())
    (other / RECORD).write_bytes(encode(msgspec.structs.replace(record, experiment=None)))
    assert json.loads(compared(capsys, "reads-1", "--json"))["after"]["run"] == "reads-7f3a"
    assert run(["lab", "--compare", "reads-bad1", "reads-1"]) == 2
    assert "reads-bad1 is a training run, not an experiment" in capsys.readouterr().err


@pytest.mark.usefixtures("two")
def test_as_a_process_of_its_own() -> None:
    done = epochtop("lab", "--compare", "reads-7")
    assert done.returncode == 0, done.stderr
    assert CONCLUSION in " ".join(done.stdout.split())
    assert "\x1b" not in done.stdout
    wrong = epochtop("lab", "--compare", "reads")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Traceback" not in wrong.stderr
    assert "--compare ID [ID]" in epochtop("lab").stdout
    assert "lab --compare ID [ID]" in epochtop("--help").stdout
