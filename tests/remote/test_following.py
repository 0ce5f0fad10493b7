"""What the other machine sends of a run, put together again by a mirror's files: nothing is lost, doubled or misplaced."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from epochtop.engine.runs.index import run_paths, summarize
from epochtop.engine.runs.paths import EVENTS, OUTPUT, RECORD
from epochtop.engine.runs.reader import is_alive
from epochtop.engine.runs.remote.files import MirroredFiles
from epochtop.remote import following
from epochtop.remote.following import FollowedRun
from epochtop.remote.frames import ProtocolError
from epochtop.remote.listing import Listing, both_ends
from tests.support.runs import engine_alive, events_of, write_run

RUN = "iris-mlp-0001"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The home folder of the other machine."""
    folder = tmp_path / "there"
    write_run(folder, RUN, events_of("finished"))
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Iterator[MirroredFiles]:
    """An empty mirror."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    with closing(MirroredFiles(folder, "box:/there")) as mirrored:
        yield mirrored


def connect(there: Path, files: MirroredFiles, whole: bool = False) -> FollowedRun:
    """Follow the run over a new connection."""
    if RUN not in files.followed:
        files.follow(RUN, whole)
    return FollowedRun(there, RUN, files.known(RUN), whole)


def transfer(run: FollowedRun, files: MirroredFiles, frames: int = 1_000_000) -> list[dict[str, Any]]:
    """Take at most this many frames, or all there are. Returns their headers."""
    taken: list[dict[str, Any]] = []
    while len(taken) < frames and (new := run.next_frames()):
        for header, body in new:
            taken.append(header)
            if header["type"] == "part":
                files.take_part(header, body)
            else:
                files.take_state(header)
    return taken


def test_dropped_connections_lose_and_double_nothing(
    there: Path, files: MirroredFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PART_BYTES", 1000)
    choice, log = random.Random(3), there / RUN / EVENTS
    mirrored = files.path(RUN)
    with engine_alive(there / RUN):
        for _ in range(25):
            transfer(connect(there, files), files, frames=choice.randrange(12))  # then the connection drops
            with open(log, "ab") as growing:
                growing.write(choice.randbytes(choice.randrange(3000)))
            assert log.read_bytes().startswith((mirrored / EVENTS).read_bytes())
            assert is_alive(mirrored)
        transfer(connect(there, files), files)
        assert (mirrored / EVENTS).read_bytes() == log.read_bytes()
        assert is_alive(mirrored)
    headers = transfer(connect(there, files), files)
    assert headers == [{"type": "state", "run": RUN, "alive": False}]
    assert not is_alive(mirrored)


def test_a_finished_run_counts_as_alive_until_all_of_it_is_here(
    there: Path, files: MirroredFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PART_BYTES", 1000)
    run = connect(there, files)
    transfer(run, files, frames=3)
    assert is_alive(files.path(RUN))
    transfer(run, files)
    assert not is_alive(files.path(RUN))
    assert (files.path(RUN) / EVENTS).read_bytes() == (there / RUN / EVENTS).read_bytes()


def test_the_middle_of_a_long_log_is_left_out_at_a_line(
    there: Path, files: MirroredFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LONG_BYTES", 50_000), ("HEAD_BYTES", 5_000), ("NEWEST_BYTES", 20_000), ("PART_BYTES", 4_000)):
        monkeypatch.setattr(following, name, value)
    log = (there / RUN / EVENTS).read_bytes()
    run = connect(there, files)
    transfer(run, files, frames=4)
    headers = transfer(connect(there, files), files)  # the connection drops in between
    content = (files.path(RUN) / EVENTS).read_bytes()
    lines = content.splitlines(keepends=True)
    assert set(lines) <= set(log.splitlines(keepends=True))
    assert len(set(lines)) == len(lines)
    assert log.endswith(b"".join(lines[-3:]))
    assert log.startswith(lines[0])
    assert 20_000 < len(content) < 30_000 or not any(header.get("skipped") for header in headers)
    files.follow(RUN, whole=True)
    transfer(FollowedRun(there, RUN, {}, whole=True), files)
    assert (files.path(RUN) / EVENTS).read_bytes() == log


def test_a_log_that_was_replaced_is_read_from_its_beginning(there: Path, files: MirroredFiles) -> None:
    transfer(connect(there, files), files)
    log = there / RUN / EVENTS
    other = log.read_bytes()[::-1] + b"more"
    log.unlink()
    log.write_bytes(other)
    transfer(connect(there, files), files)
    assert (files.path(RUN) / EVENTS).read_bytes() == other


def test_output_begins_at_its_end_and_survives_its_replacement(there: Path, files: MirroredFiles) -> None:
    output = there / RUN / OUTPUT
    output.write_bytes(b"early\n" * 10_000)
    run = connect(there, files)
    transfer(run, files)
    mirrored = files.path(RUN) / OUTPUT
    assert mirrored.read_bytes() == output.read_bytes()[-following.OUTPUT_BYTES :]
    aside = output.with_name("new")
    aside.write_bytes(b"late\n")
    aside.replace(output)
    transfer(run, files)
    assert mirrored.read_bytes() == b"late\n"


def test_the_list_has_records_both_ends_of_logs_and_who_is_alive(there: Path, files: MirroredFiles) -> None:
    running = write_run(there, "iris-mlp-0002", events_of("running"), name="night")
    write_run(there / "lab", "reads-77d1", events_of("stopped"))
    (there / "iris-mlp-0003").symlink_to(there / RUN)
    listing = Listing(there)
    with engine_alive(running):
        take(listing, files)
        mirror = files.path("iris-mlp-0002").parent
        assert {path.name for path in run_paths(mirror)} == {RUN, "iris-mlp-0002"}
        for run in (RUN, "iris-mlp-0002", "lab/reads-77d1"):
            assert summarize(mirror / run) == summarize(there / run)
        assert sum((path / EVENTS).stat().st_size for path in run_paths(mirror)) < 60_000
        assert list(listing.changes(())) == []
    take(listing, files)
    assert summarize(mirror / "iris-mlp-0002").state == "died"
    (running / RECORD).unlink()
    take(listing, files)
    assert [path.name for path in run_paths(mirror)] == [RUN]


def take(listing: Listing, files: MirroredFiles) -> None:
    """Take what the list has changed."""
    for header, body in listing.changes(()):
        if header["type"] == "gone":
            files.remove(header["run"])
        else:
            files.take_run(header, body)


@pytest.mark.parametrize(
    "lengths", [(300_000, 10, 400_000), (5,) * 9000, (2_000_000, 7)], ids=["long", "short", "longer"]
)
def test_both_ends_of_a_log_are_complete_lines(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    log = tmp_path / EVENTS
    lines = [bytes([65 + place % 26]) * length + b"\n" for place, length in enumerate(lengths)]
    log.write_bytes(b"".join(lines) + b"incomplete")
    ends = both_ends(log)
    assert set(ends.splitlines(keepends=True)) <= set(lines)
    assert ends.endswith(lines[-1])


@pytest.mark.parametrize(
    "header",
    [
        {"run": "../outside", "file": EVENTS, "offset": 0, "skipped": 0, "fresh": False, "identity": 1},
        {"run": RUN, "file": "../../outside", "offset": 0, "skipped": 0, "fresh": False, "identity": 1},
        {"run": RUN, "file": RECORD, "offset": 0, "skipped": 0, "fresh": False, "identity": 1},
        {"run": RUN, "file": EVENTS, "offset": 7, "skipped": 0, "fresh": False, "identity": 1},
        {"run": RUN, "file": EVENTS, "offset": 3, "skipped": -1, "fresh": False, "identity": 1},
    ],
)
def test_a_mirror_takes_nothing_that_it_did_not_ask_for(
    files: MirroredFiles, header: dict[str, Any], tmp_path: Path
) -> None:
    files.follow(RUN, False)
    files.take_part({"run": RUN, "file": EVENTS, "offset": 0, "skipped": 0, "fresh": False, "identity": 1}, b"one")
    with pytest.raises(ProtocolError):
        files.take_part(header, b"two")
    with pytest.raises(ProtocolError):
        files.take_run({"run": "../outside", "record": 3}, b"two")
    with pytest.raises(ProtocolError):
        files.remove("..")
    assert not list(tmp_path.rglob("outside"))
    assert (files.path(RUN) / EVENTS).read_bytes() == b"one"
