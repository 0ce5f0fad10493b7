"""The run directory: a log cut at any byte can be read, and commands never mix."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochtop.engine.protocol.commands import Set, decode_command
from epochtop.engine.protocol.events import AnyEvent, Evaluated, Logged, Losses, Paused, Warned, encode
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import paths, reader
from epochtop.engine.runs.index import find, summarize
from epochtop.engine.runs.paths import EVENTS
from epochtop.engine.runs.reader import BadLine, Follower, is_alive, output_tail, read_record
from epochtop.engine.runs.series import SeriesTranslator
from epochtop.engine.runs.writer import Inbox, commands_end, send
from tests.support.logs import EVERY_EVENT, FINISHED, LOSSES, STARTED, end, log, packed

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


def read_in_two(content: bytes, cut: int) -> tuple[list[AnyEvent | BadLine], list[AnyEvent | BadLine]]:
    """The events that a follower reads if only the first `cut` bytes are written when it starts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / paths.EVENTS
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
def test_events_do_not_depend_on_how_the_log_is_cut(written: list[AnyEvent], piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "READ_BYTES", piece)
        content = log(*map(encode, written))
        with tempfile.TemporaryDirectory() as folder, closing(Follower(Path(folder))) as follower:
            (Path(folder) / paths.EVENTS).write_bytes(content)
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
def test_a_corrupt_line_is_reported_with_its_number_and_skipped(tmp_path: Path, name: str) -> None:
    lines = [encode(STARTED), CORRUPT[name], encode(LOSSES), CORRUPT[name], encode(FINISHED)]
    (tmp_path / paths.EVENTS).write_bytes(log(*lines))
    with closing(Follower(tmp_path)) as follower:
        seen = list(follower.read_all())
    bad = [event for event in seen if isinstance(event, BadLine)]
    assert [event for event in seen if event not in bad] == [STARTED, LOSSES, FINISHED]
    assert [line.number for line in bad] == [2, 4]
    assert all(line.reason for line in bad)


def test_an_event_of_a_newer_version_is_read_without_the_fields_that_are_new(tmp_path: Path) -> None:
    (tmp_path / paths.EVENTS).write_bytes(log(b'{"type":"Paused","step":3,"why":{"new":true}}'))
    with closing(Follower(tmp_path)) as follower:
        assert follower.read() == [Paused(step=3)]


def test_a_log_that_does_not_exist_yet_has_no_events_yet(tmp_path: Path) -> None:
    with closing(Follower(tmp_path)) as follower:
        assert follower.read() == []
        (tmp_path / paths.EVENTS).write_bytes(log(encode(STARTED)))
        assert follower.read() == [STARTED]


def test_two_followers_of_a_run_both_read_everything(tmp_path: Path) -> None:
    (tmp_path / paths.EVENTS).write_bytes(log(*map(encode, EVERY_EVENT)))
    with closing(Follower(tmp_path)) as one, closing(Follower(tmp_path)) as two:
        assert list(one.read_all()) == list(two.read_all()) == EVERY_EVENT


# --- commands ----------------------------------------------------------------------------------------------

SENDER = """
import sys
from pathlib import Path
from epochtop.engine.protocol.commands import Set
from epochtop.engine.runs.writer import send
for number in range(300):
    send(Path(sys.argv[1]), Set(field="learning_rate", value=float(number), by=sys.argv[2] * 100))
"""


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
        sent = [command for command in received if command.by == name * 100]
        assert sent == [Set(field="learning_rate", value=float(number), by=name * 100) for number in range(300)]
    assert len(received) == 1200


def test_a_command_to_a_resumed_run_counts_from_the_moment_of_its_reply(live: tuple[Path, IO[bytes]]) -> None:
    """The engine reads commands only some milliseconds after it has said that it resumes the run."""
    run, lock = live
    with lock:
        send(run, Set(field="learning_rate", value=0.5))
        start = commands_end(run)
        send(run, Set(field="learning_rate", value=0.25))
        with closing(Inbox(run, start)) as inbox:
            assert [command.value for command in inbox.read() if isinstance(command, Set)] == [0.25]


@settings(max_examples=25)
@given(st.lists(st.builds(Set, field=st.just("refresh_ms"), value=numbers, by=texts), min_size=1, max_size=3))
def test_commands_are_read_from_a_file_cut_at_any_byte(commands: list[Set]) -> None:
    content = log(*map(encode, commands))
    assert [decode_command(line) for line in content.split(b"\n")[:-1]] == commands
    for cut in range(len(content) + 1):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / paths.COMMANDS
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
        "heartbeat",
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
    (run / paths.RECORD).write_bytes(content)
    with pytest.raises(Invalid, match=r"run\.json cannot be read"):
        read_record(run)
    summary = summarize(run)
    assert (summary.id, summary.state) == (run.name, "died")
    assert "run.json cannot be read" in summary.note
    assert find(run.parent, run.name) == run


def test_the_tail_of_the_output_is_its_last_lines(live: tuple[Path, IO[bytes]]) -> None:
    run = end(live)
    assert output_tail(run) == ""
    (run / paths.OUTPUT).write_bytes(b"x" * 50_000 + b"\n" + b"".join(b"line %d \xff\n" % n for n in range(40)))
    assert output_tail(run, lines=2) == "line 38 �\nline 39 �"
    assert output_tail(run.parent / "no run") == ""


def test_a_line_longer_than_one_read_hides_no_later_line(live: tuple[Path, IO[bytes]]) -> None:
    """A graph can take half a million steps in a refresh."""
    values = packed(*([0.5] * 600_000))
    long = Losses(first_step=0, seconds=1.0, values=values, reads=1, waited=0.0)
    run = end(live, STARTED, long, FINISHED)
    follower = Follower(run)
    try:
        seen = list(follower.read_all())
    finally:
        follower.close()
    assert [type(event) for event in seen] == [type(STARTED), Losses, type(FINISHED)]
    assert seen[1] == long


@pytest.mark.parametrize(
    ("count", "values", "steps", "named"),
    [
        (5, {"loss": b"\0" * 20, "acc": b"\0" * 3}, None, "the window of 'acc' has 3 bytes for 5 steps"),
        (5, {"loss": b"\0" * 19}, None, "the window of 'loss' has 19 bytes for 5 steps"),
        (2, {"a": b"", "b": b"", "c": b"\0" * 8}, None, "and 1 others are wrong too"),
        (2, {"loss": b"\0" * 8}, b"\0" * 15, "15 bytes of step numbers instead of 16"),
    ],
)
def test_a_window_with_another_number_of_bytes_is_reported(
    tmp_path: Path, count: int, values: dict[str, bytes], steps: bytes | None, named: str
) -> None:
    """It was left out silently, and a chart without the series looked as if nothing had been logged."""
    event = Logged(time=0.0, seconds=0.0, first_step=0, count=count, steps=steps, values=values)
    (tmp_path / EVENTS).write_bytes(encode(event) + b"\n")
    with closing(Follower(tmp_path)) as follower:
        seen = list(follower.read_all())
    assert isinstance(seen[0], Logged)
    assert isinstance(seen[1], BadLine)
    assert named in seen[1].reason
    assert seen[1].number == 1
    for window in SeriesTranslator().windows(seen[0]):
        assert len(window.numbers()) == count
