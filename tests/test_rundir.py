"""The run directory: a log cut anywhere is read, runs are found, renamed, deleted and told in one line."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import IO

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import rundir, runs
from engine.protocol import (
    AnyEvent,
    Changed,
    Evaluated,
    Failed,
    Finished,
    Losses,
    Measured,
    Paused,
    Resumed,
    Saved,
    Set,
    Started,
    Warned,
    decode_command,
    encode,
)
from engine.rundir import BadLine, Follower, Inbox, create, is_alive, output_tail, read_record
from engine.runs import delete, find, rename, run_paths, summarize
from engine.spec import Invalid, RunSpec


def packed(*values: float) -> bytes:
    """Losses as they are written."""
    return struct.pack(f"<{len(values)}f", *values)


STARTED = Started(
    time=1.0,
    device="cpu",
    device_name="Prozessor Ω",
    executor="eager",
    threads=1,
    rows=120,
    test_rows=30,
    features=4,
    outputs=3,
    parameters=83,
    steps=20_000,
    steps_per_epoch=1,
    loss="cross_entropy",
    metric="accuracy",
    torch_version="2.13.0",
    notes=("threads 1 – measured",),
)
LOSSES = Losses(first_step=0, seconds=0.1, values=packed(1.5, 1.25, float("nan")), reads=1, waited=0.0)
FINISHED = Finished(
    time=2.0,
    outcome="finished",
    reason="all 3 steps are done",
    steps=3,
    epochs=3.0,
    seconds=0.125,
    steps_per_second=24.0,
    final_loss=0.75,
    best_loss=0.5,
    best_step=1,
    test_loss=0.25,
    test_metric=0.9,
    device_reads=1,
    waited_seconds=0.0,
)
FAILED = Failed(time=2.0, step=3, message="out of memory", advice="smaller batches", traceback='File "x"\nError')
EVERY_EVENT: list[AnyEvent] = [
    STARTED,
    LOSSES,
    Evaluated(step=3, seconds=0.1, loss=0.25, metric=None),
    Saved(step=3, kind="best"),
    Paused(step=3, by="ada@host:1"),
    Resumed(step=3),
    Changed(step=3, field="learning_rate", value=0.1),
    Warned(message="the disk is nearly full – 3 % left 🚧"),
    Measured(values={"reads": 3, "seconds": 0.5, "device": "cpu", "none": None}),
    FINISHED,
    FAILED,
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
anything = st.one_of(
    st.builds(Warned, message=texts),
    st.builds(Paused, step=st.integers(0, 10**12), by=texts),
    st.builds(Evaluated, step=st.integers(0, 10**12), seconds=numbers, loss=st.none() | numbers, metric=numbers),
    st.builds(
        Losses,
        first_step=st.integers(0, 10**12),
        seconds=numbers,
        values=st.lists(st.floats(width=32), max_size=5).map(lambda values: packed(*values)),
        reads=st.integers(0, 10**9),
        waited=numbers,
    ),
)


def log(*lines: bytes) -> bytes:
    """Complete lines."""
    return b"".join(line + b"\n" for line in lines)


def read_in_two(content: bytes, cut: int) -> tuple[list[AnyEvent | BadLine], list[AnyEvent | BadLine]]:
    """What a follower reads when it comes at a moment where only the first `cut` bytes are written, and then."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / rundir.EVENTS
        path.write_bytes(content[:cut])
        with closing(Follower(Path(folder))) as follower:
            first = list(follower.read_all())
            with open(path, "ab") as file:
                file.write(content[cut:])
            return first, list(follower.read_all())


def assert_readable_when_cut_anywhere(written: list[AnyEvent]) -> None:
    lines = [encode(event) for event in written]
    ends = [len(log(*lines[: count + 1])) for count in range(len(lines))]
    for cut in range(len(log(*lines)) + 1):
        first, rest = read_in_two(log(*lines), cut)
        complete = sum(end <= cut for end in ends)
        assert first == written[:complete]
        assert rest == written[complete:]


# --- following ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: type(event).__name__)
def test_an_event_of_any_kind_is_read_from_a_log_cut_at_any_byte(event: AnyEvent) -> None:
    assert_readable_when_cut_anywhere([Warned(message="before"), event])


@settings(max_examples=25)
@given(st.lists(anything, max_size=4))
def test_any_events_are_read_from_a_log_cut_at_any_byte(written: list[AnyEvent]) -> None:
    assert_readable_when_cut_anywhere(written)


@given(st.lists(anything, min_size=1, max_size=6), st.integers(1, 50))
def test_events_are_the_same_however_small_the_pieces_are(written: list[AnyEvent], piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rundir, "READ_BYTES", piece)
        content = log(*map(encode, written))
        with tempfile.TemporaryDirectory() as folder, closing(Follower(Path(folder))) as follower:
            (Path(folder) / rundir.EVENTS).write_bytes(content)
            seen = []
            for _ in range(len(content) // piece + 1):
                seen += follower.read()
    assert seen == written


CORRUPT = {
    "no json": b"plain text",
    "nothing": b"",
    "cut in the middle": encode(STARTED)[:40],
    "two in one": encode(LOSSES) + encode(LOSSES),
    "an unknown event": b'{"type":"Exploded","step":3}',
    "a missing field": b'{"type":"Paused"}',
    "a wrong type": b'{"type":"Paused","step":"three"}',
    "not UTF-8": b'{"by":"\xff","step":3,"type":"Paused"}',
    "zeros": bytes(200),
    "endless nesting": b'{"type":"Measured","values":' + b'{"a":' * 50_000,
    "another endless nesting": b'{"what":' * 50_000,
}


@pytest.mark.parametrize("name", CORRUPT)
def test_a_corrupt_line_is_told_by_its_number_and_skipped(tmp_path: Path, name: str) -> None:
    lines = [encode(STARTED), CORRUPT[name], encode(LOSSES), CORRUPT[name], encode(FINISHED)]
    (tmp_path / rundir.EVENTS).write_bytes(log(*lines))
    with closing(Follower(tmp_path)) as follower:
        seen = list(follower.read_all())
    bad = [event for event in seen if isinstance(event, BadLine)]
    assert [event for event in seen if event not in bad] == [STARTED, LOSSES, FINISHED]
    assert [line.number for line in bad] == [2, 4]
    assert all(line.reason for line in bad)


def test_an_event_of_a_newer_version_is_read_without_the_fields_that_are_new(tmp_path: Path) -> None:
    (tmp_path / rundir.EVENTS).write_bytes(log(b'{"type":"Paused","step":3,"why":{"new":true}}'))
    with closing(Follower(tmp_path)) as follower:
        assert follower.read() == [Paused(step=3)]


def test_a_log_that_does_not_exist_yet_has_no_events_yet(tmp_path: Path) -> None:
    with closing(Follower(tmp_path)) as follower:
        assert follower.read() == []
        (tmp_path / rundir.EVENTS).write_bytes(log(encode(STARTED)))
        assert follower.read() == [STARTED]


def test_two_followers_of_one_run_both_see_everything(tmp_path: Path) -> None:
    (tmp_path / rundir.EVENTS).write_bytes(log(*map(encode, EVERY_EVENT)))
    with closing(Follower(tmp_path)) as one, closing(Follower(tmp_path)) as two:
        assert list(one.read_all()) == list(two.read_all()) == EVERY_EVENT


# --- commands ----------------------------------------------------------------------------------------------

SENDER = """
import sys
from pathlib import Path
from engine.protocol import Set
from engine.rundir import send
for number in range(300):
    send(Path(sys.argv[1]), Set(field="learning_rate", value=float(number), by=sys.argv[2] * 100))
"""


@pytest.fixture
def live(home: Path) -> tuple[Path, IO[bytes]]:
    """A run whose engine is this process; dies when its lock is closed."""
    return create(home, RunSpec(name="night run"), {"torch": "2.13.0"}, time.time())


def end(live: tuple[Path, IO[bytes]], *written: AnyEvent) -> Path:
    """Write events and let the engine of a run go."""
    run, lock = live
    (run / rundir.EVENTS).write_bytes(log(*map(encode, written)))
    lock.close()
    return run


def test_commands_of_several_senders_at_once_do_not_mix(live: tuple[Path, IO[bytes]]) -> None:
    run, lock = live
    senders = [subprocess.Popen([sys.executable, "-c", SENDER, str(run), name]) for name in "abcd"]
    with lock, closing(Inbox(run)) as inbox:
        received = []
        while any(sender.poll() is None for sender in senders):
            received += inbox.read()
        while new := inbox.read():
            received += new
    assert [sender.wait() for sender in senders] == [0] * 4
    for name in "abcd":
        own = [command for command in received if command.by == name * 100]
        assert own == [Set(field="learning_rate", value=float(number), by=name * 100) for number in range(300)]
    assert len(received) == 1200


@settings(max_examples=25)
@given(st.lists(st.builds(Set, field=st.just("refresh_ms"), value=numbers, by=texts), min_size=1, max_size=3))
def test_commands_are_read_from_a_file_cut_at_any_byte(commands: list[Set]) -> None:
    content = log(*map(encode, commands))
    assert [decode_command(line) for line in content.split(b"\n")[:-1]] == commands
    for cut in range(len(content) + 1):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / rundir.COMMANDS
            path.write_bytes(content[:cut])
            with closing(Inbox(Path(folder))) as inbox:
                received = inbox.read()
                with open(path, "ab") as file:
                    file.write(content[cut:])
                assert received + inbox.read() == commands


# --- directories -------------------------------------------------------------------------------------------


def test_a_new_run_is_complete_private_and_alive_until_its_lock_is_closed(live: tuple[Path, IO[bytes]]) -> None:
    run, lock = live
    record = read_record(run)
    assert (record.spec.name, record.pid, record.versions) == ("night run", os.getpid(), {"torch": "2.13.0"})
    assert {path.name for path in run.iterdir()} == {
        "run.json",
        "events.jsonl",
        "commands.jsonl",
        "lock",
        "output.log",
        "checkpoints",
    }
    assert run.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in run.parent.iterdir()] == [run.name]
    assert is_alive(run)
    lock.close()
    assert not is_alive(run)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"spec":{"learning_rate":-1}}'])
def test_a_run_with_a_damaged_record_is_listed_with_the_reason(live: tuple[Path, IO[bytes]], content: bytes) -> None:
    run = end(live, STARTED)
    (run / rundir.RECORD).write_bytes(content)
    with pytest.raises(Invalid, match=r"run\.json cannot be read"):
        read_record(run)
    summary = summarize(run)
    assert (summary.id, summary.state) == (run.name, "died")
    assert "run.json cannot be read" in summary.note
    assert find(run.parent, run.name) == run


def test_the_tail_of_the_output_is_its_last_lines(live: tuple[Path, IO[bytes]]) -> None:
    run = end(live)
    assert output_tail(run) == ""
    (run / rundir.OUTPUT).write_bytes(b"x" * 50_000 + b"\n" + b"".join(b"line %d \xff\n" % n for n in range(40)))
    assert output_tail(run, lines=2) == "line 38 �\nline 39 �"
    assert output_tail(run.parent / "no run") == ""


# --- lists -------------------------------------------------------------------------------------------------


def summary_of(live: tuple[Path, IO[bytes]], *written: AnyEvent) -> runs.Summary:
    """The summary of a run whose engine is gone."""
    return summarize(end(live, *written))


def test_a_run_that_goes_on_is_running_with_its_newest_figures(live: tuple[Path, IO[bytes]]) -> None:
    run, lock = live
    with lock:
        assert summarize(run).state == "running"
        newest = Losses(first_step=3, seconds=0.5, values=packed(1.0, 0.25), reads=2, waited=0.0)
        tested = Evaluated(step=4, seconds=0.4, loss=0.5, metric=0.75)
        (run / rundir.EVENTS).write_bytes(log(*map(encode, [STARTED, LOSSES, tested, newest])) + b'{"type":"Fini')
        summary = summarize(run)
        assert summary.state == "running"
        assert (summary.name, summary.dataset, summary.device) == ("night run", "iris", "cpu")
        assert (summary.steps, summary.final_loss, summary.seconds) == (5, 0.25, 0.5)
        assert (summary.test_loss, summary.test_metric, summary.note) == (0.5, 0.75, "")


@pytest.mark.parametrize(("after", "state"), [([], "paused"), ([Resumed(step=3)], "running")])
def test_a_pause_is_told_until_the_run_goes_on(live: tuple[Path, IO[bytes]], after: list[AnyEvent], state: str) -> None:
    run, lock = live
    with lock:
        (run / rundir.EVENTS).write_bytes(log(*map(encode, [STARTED, LOSSES, Paused(step=3), *after])))
        assert summarize(run).state == state


@pytest.mark.parametrize("written", [(), (STARTED, LOSSES), (STARTED, LOSSES, Paused(step=3))], ids=len)
def test_an_engine_that_is_gone_without_a_word_died(
    live: tuple[Path, IO[bytes]], written: tuple[AnyEvent, ...]
) -> None:
    summary = summary_of(live, *written)
    assert summary.state == "died"
    assert "output.log" in summary.note


def test_a_finished_run_is_told_by_its_summary(live: tuple[Path, IO[bytes]]) -> None:
    summary = summary_of(live, STARTED, LOSSES, FINISHED)
    assert (summary.state, summary.steps, summary.seconds) == ("finished", 3, 0.125)
    assert (summary.final_loss, summary.test_loss, summary.test_metric, summary.note) == (0.75, 0.25, 0.9, "")


@pytest.mark.parametrize("outcome", ["stopped", "diverged"])
def test_a_run_that_ended_early_is_told_with_reason_and_advice(live: tuple[Path, IO[bytes]], outcome: str) -> None:
    changes = {"outcome": outcome, "reason": "the reason", "advice": "the advice"}
    summary = summary_of(live, STARTED, LOSSES, msgspec.structs.replace(FINISHED, **changes))
    assert summary.state == outcome
    assert "the reason" in summary.note
    assert "the advice" in summary.note


def test_a_failed_run_is_told_with_its_message(live: tuple[Path, IO[bytes]]) -> None:
    summary = summary_of(live, STARTED, LOSSES, FAILED)
    assert (summary.state, summary.note) == ("failed", "out of memory")


def test_a_last_line_larger_than_the_end_that_is_looked_at_first_is_still_found(live: tuple[Path, IO[bytes]]) -> None:
    huge = Losses(first_step=0, seconds=60.0, values=packed(*[2.0] * 499_999, 0.5), reads=1, waited=0.0)
    assert len(encode(huge)) > 2 * 2**20
    run = end(live, STARTED, huge)
    summary = summarize(run)
    assert (summary.steps, summary.final_loss, summary.device) == (500_000, 0.5, "cpu")
    with closing(Follower(run)) as follower:
        seen = []
        while len(seen) < 2:
            seen += follower.read()
    assert seen == [STARTED, huge]


def test_the_end_of_a_long_log_is_found_without_its_middle(live: tuple[Path, IO[bytes]]) -> None:
    middle = [
        Losses(first_step=100 * n, seconds=n / 10, values=packed(*[1.0] * 100), reads=n, waited=0.0)
        for n in range(3000)
    ]
    summary = summary_of(live, STARTED, *middle, FINISHED)
    assert (summary.state, summary.device) == ("finished", "cpu")


def made(home: Path, name: str, age: float, dataset: str = "iris") -> Path:
    """A run that is over; `age` orders the list."""
    run, lock = create(home, RunSpec(name=name, dataset=dataset), {}, time.time())
    lock.close()
    os.utime(run / rundir.LOCK, (1e9 - age, 1e9 - age))
    return run


def test_a_run_is_found_by_id_prefix_name_and_last(home: Path) -> None:
    old, new, other = made(home, "old one", 30), made(home, "", 10), made(home, "other", 20, "wine")
    (home / ".new-left-over").mkdir()
    (home / "no run").mkdir()
    assert run_paths(home) == [new, other, old]
    assert find(home, "last") == new
    assert find(home, other.name) == other
    assert find(home, "wine") == other
    assert find(home, "old one") == old
    with pytest.raises(Invalid) as ambiguous:
        find(home, "iris-mlp")
    assert "2 runs" in ambiguous.value.message
    assert old.name in ambiguous.value.message
    assert new.name in ambiguous.value.message
    for wanted in ("digits", "", "../runs", old.name + "x"):
        with pytest.raises(Invalid, match="there is no run"):
            find(home, wanted)


def test_a_name_given_twice_is_ambiguous(home: Path) -> None:
    made(home, "twin", 1), made(home, "twin", 2)
    with pytest.raises(Invalid, match="2 runs"):
        find(home, "twin")


def test_a_home_without_runs_says_how_to_make_one(home: Path) -> None:
    assert run_paths(home) == []
    with pytest.raises(Invalid, match="epochtop train"):
        find(home, "last")


def test_a_renamed_run_keeps_its_id_and_everything_else(home: Path) -> None:
    run = made(home, "before", 1)
    record = read_record(run)
    rename(run, "  after dinner ")
    assert read_record(run) == msgspec.structs.replace(record, spec=RunSpec(name="after dinner"))
    assert find(home, "after dinner") == run
    with pytest.raises(Invalid, match="letters"):
        rename(run, "a/b")
    assert read_record(run).spec.name == "after dinner"


def test_a_live_run_is_not_deleted_and_a_dead_one_is_gone(live: tuple[Path, IO[bytes]]) -> None:
    run, lock = live
    with lock, pytest.raises(Invalid, match="still running; stop it first"):
        delete(run)
    assert run.exists()
    delete(run)
    assert not run.exists()
    with pytest.raises(Invalid, match="cannot delete"):
        delete(run)
