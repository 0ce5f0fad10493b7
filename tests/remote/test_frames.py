"""What goes over the connection: split anywhere, after any greeting, bounded, with names that stay inside the mirror."""

from __future__ import annotations

import json
import struct
import zlib

import pytest

from epochtop.remote.frames import LARGEST, MOST_NOISE, Decoder, ProtocolError, encode, is_file_path, is_run_id

MARKER = b"\0epochtop 0123\n"


def by_hand(text: bytes, body: bytes = b"") -> bytes:
    """A frame as the module's docstring describes it."""
    return struct.pack(">II", len(text), len(body)) + text + body


@pytest.mark.parametrize("piece", [1, 3, 1 << 16])
def test_frames_arrive_in_pieces_after_what_a_shell_prints(piece: int) -> None:
    frames = [({"type": "a"}, b""), ({"type": "b", "run": "ü"}, bytes(range(256)) * 9), ({"type": "c"}, b"\0" * 5)]
    noise = b"Welcome to box!\n\0epochtop 9999\n\x1b[2Jlast login: today\n"
    sent = noise + MARKER + b"".join(encode(dict(header), body) for header, body in frames)
    decoder = Decoder(MARKER)
    got = [frame for place in range(0, len(sent), piece) for frame in decoder.feed(sent[place : place + piece])]
    assert [({**header, "compressed": None}, body) for header, body in got] == [
        ({**header, "compressed": None}, body) for header, body in frames
    ]


def test_a_frame_has_the_documented_layout() -> None:
    assert Decoder().feed(by_hand(b'{"type":"tick"}', b"xyz")) == [({"type": "tick"}, b"xyz")]
    assert encode({"type": "tick"}, b"xyz") == by_hand(b'{"type": "tick"}', b"xyz")


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">II", LARGEST + 1, 0),
        struct.pack(">II", 2, LARGEST + 1),
        by_hand(b"no json"),
        by_hand(b"[1]"),
        by_hand(b'{"type": 3}'),
        by_hand(b"[" * 100_000),
        by_hand(json.dumps({"type": "part", "compressed": True}).encode(), b"no zlib"),
        by_hand(json.dumps({"type": "part", "compressed": True}).encode(), zlib.compress(b"\0" * (LARGEST + 1))),
        by_hand(json.dumps({"type": "part", "compressed": True}).encode(), zlib.compress(b"x" * 99)[:-3]),
    ],
    ids=["long text", "long body", "no JSON", "no object", "no type", "deep", "no zlib", "expands", "cut"],
)
def test_anything_else_is_refused_and_needs_no_memory(sent: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(sent)


def test_a_shell_that_never_stops_printing_is_refused() -> None:
    decoder = Decoder(MARKER)
    decoder.feed(b"y\n" * (MOST_NOISE // 2))
    with pytest.raises(ProtocolError, match="1 MiB"):
        decoder.feed(b"y")


HARMFUL = (
    "",
    ".",
    "..",
    ".hidden",
    "a/../b",
    "/etc/passwd",
    "a//b",
    "a\0b",
    "a\nb",
    "\x1b[2J",
    "x" * 256,
    "\udcff",
    3,
    None,
)


@pytest.mark.parametrize("name", HARMFUL, ids=range(len(HARMFUL)))
def test_a_name_that_leads_elsewhere_or_is_not_printable_is_refused(name: object) -> None:
    assert not is_run_id(name)
    assert not is_file_path(name)


def test_names_of_runs_and_paths_of_files() -> None:
    assert is_run_id("iris-mlp-a4f0")
    assert is_run_id("lab/reads-77d1")
    assert is_run_id("my run, übung (2)")
    assert not is_run_id("lab/../x")
    assert not is_run_id("other/reads-77d1")
    assert is_file_path("checkpoints/last.json")
    assert not is_file_path("/".join("abcdefghi"))
