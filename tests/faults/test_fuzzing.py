"""Decoders × any bytes: only declared exceptions, bounded memory, and no event from nothing. Full number in `make faults`."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochtop.engine.protocol.commands import decode_command
from epochtop.engine.protocol.events import UNREADABLE, Event, Logged, Losses, decode_event, encode
from epochtop.engine.protocol.record import decode_record
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.opened.sources import follower_of
from epochtop.engine.runs.paths import EVENTS, RECORD
from epochtop.engine.runs.reader import BadLine, Follower, read_record
from epochtop.engine.runs.series import SeriesTranslator
from epochtop.engine.training import checkpoint
from epochtop.formats.scan import find_logs
from tests.faults.selection import EVERYTHING
from tests.support.runs import started, windows, write_run

EXAMPLES = 2000 if EVERYTHING else 40
LIMIT_BYTES = 4 << 20
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

LINE = encode(windows([1.0] * 10)[0])


def mutated(data: st.DataObject, content: bytes) -> bytes:
    """The content with some bytes changed, removed, repeated or put in."""
    result = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(0, len(result) - 1)))
        match data.draw(st.sampled_from(["change", "cut", "repeat", "insert", "number"])):
            case "change":
                if result:
                    result[at] = data.draw(st.integers(0, 255))
            case "cut":
                del result[at : at + data.draw(st.integers(1, 50))]
            case "repeat":
                result[at:at] = result[at : at + 20]
            case "insert":
                result[at:at] = data.draw(st.binary(max_size=20))
            case _:
                result[at:at] = data.draw(
                    st.sampled_from(
                        [b"1e400", b"-1", b"9223372036854775808", b"null", b"NaN", b"[[[[", b'"', b"\\ud800"]
                    )
                )
    return bytes(result)


def bounded(call: Callable[[], object], size: int) -> None:
    """Run a decoder; its memory stays within four times the input and a constant."""
    tracemalloc.start()
    try:
        call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * size + LIMIT_BYTES


@FUZZ
@given(data=st.data())
def test_any_line_of_a_log_is_an_event_or_a_bad_line(data: st.DataObject, tmp_path: Path) -> None:
    line = data.draw(st.binary(max_size=300)) if data.draw(st.booleans()) else mutated(data, LINE)
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    (run / EVENTS).write_bytes(line.replace(b"\n", b" ") + b"\n" + LINE + b"\n")
    translator = SeriesTranslator()

    def read() -> None:
        with closing(Follower(run)) as follower:
            seen = list(follower.read_all())
        assert any(isinstance(event, Logged | Losses) for event in seen)
        for event in seen:
            if not isinstance(event, BadLine):
                for window in translator.windows(event):
                    assert len(window.numbers()) == len(window.step_numbers()) == window.count

    bounded(read, len(line))


@FUZZ
@given(data=st.data())
def test_records_commands_and_checkpoints_raise_what_they_declare(data: st.DataObject, tmp_path: Path) -> None:
    home = tmp_path / "home"
    run = home / "iris-mlp-0001"
    if not run.exists():
        write_run(home, run.name, [started(10), *windows([1.0] * 10)])
    record = (run / RECORD).read_bytes()
    text = mutated(data, record)
    for decode in (decode_record, decode_event, decode_command):
        try:
            decode(text)
        except UNREADABLE:
            pass
    broken = tmp_path / "broken"
    (broken / "checkpoints").mkdir(parents=True, exist_ok=True)
    (broken / RECORD).write_bytes(text)
    (broken / "checkpoints/last.json").write_bytes(text)
    for read in (lambda: read_record(broken), lambda: checkpoint.read(broken, "last")):
        try:
            read()
        except Invalid:
            pass


@FUZZ
@given(data=st.data())
def test_arrays_that_people_bring_are_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    from epochtop.engine.data.load import load
    from epochtop.engine.protocol.spec import RunSpec

    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros((8, 2), np.float32), y=np.arange(8) % 2)
    path = tmp_path / "own.npz"
    path.write_bytes(mutated(data, buffer.getvalue()))
    try:
        load(RunSpec(dataset=f"npz:{path}"))
    except Invalid:
        pass


@FUZZ
@given(data=st.data())
def test_tables_that_people_bring_are_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    from epochtop.engine.data.load import load
    from epochtop.engine.protocol.spec import RunSpec

    path = tmp_path / "own.csv"
    path.write_bytes(mutated(data, b"a,b,label\n" + b"1,2.5,x\n3,4.5,y\n" * 6))
    try:
        load(RunSpec(dataset=f"csv:{path}", target="label"))
    except Invalid:
        pass


TENSORBOARD = "events.out.tfevents.1700000000.host"


@FUZZ
@given(data=st.data())
def test_folders_of_other_tools_are_read_or_left_out(data: st.DataObject, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir(exist_ok=True)
    for name in (TENSORBOARD, "metrics.csv", "trainer_state.json", "log.jsonl", "run-x.wandb"):
        (folder / name).write_bytes(data.draw(st.binary(max_size=200)))
    for log in find_logs(folder).logs:
        with closing(follower_of(log.path)) as follower:
            while events := follower.read():
                assert all(isinstance(event, BadLine | Event) for event in events)
