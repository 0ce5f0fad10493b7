"""Text files become windows of characters; errors are one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epochtop.engine.data.text.characters import read_text
from epochtop.engine.protocol.spec import Invalid, RunSpec

SONG = "Row, row, row your boat,\nGently down the stream. " * 8


def spec_of(tmp_path: Path, content: str | bytes, context: int = 4, test_fraction: float = 0.2) -> RunSpec:
    path = tmp_path / "song.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return RunSpec(dataset=f"text:{path}", model="transformer", context=context, test_fraction=test_fraction)


def test_a_small_text_by_hand(tmp_path: Path) -> None:
    raw = read_text(spec_of(tmp_path, "abcabcabcabcab", context=3, test_fraction=0.3))
    assert raw.vocabulary == "abc"
    assert raw.x.tolist() == [[0, 1, 2], [0, 1, 2], [0, 1, 2]]  # abcabcabca | bcab
    assert raw.y.tolist() == [[1, 2, 0], [1, 2, 0], [1, 2, 0]]
    assert raw.test is not None
    assert [part.tolist() for part in raw.test] == [[[1, 2, 0]], [[2, 0, 1]]]
    assert (raw.kind, raw.loss, raw.x.dtype, raw.y.dtype) == ("text", "next_character", np.uint8, np.uint8)


@pytest.mark.parametrize("context", [2, 5, 16])
def test_joined_windows_are_the_text(tmp_path: Path, context: int) -> None:
    raw = read_text(spec_of(tmp_path, SONG, context))
    assert raw.test is not None
    cut = len(SONG) - len(SONG) // 5
    for (x, y), part in (((raw.x, raw.y), SONG[:cut]), (raw.test, SONG[cut:])):
        seen, following = ("".join(raw.vocabulary[code] for code in codes.ravel()) for codes in (x, y))
        assert part.startswith(seen)
        assert len(part) - context <= len(seen) < len(part)
        assert following == part[1 : len(seen) + 1]
        assert x.shape == y.shape == (len(seen) // context, context)


def test_without_a_test_fraction_every_row_is_trained_on(tmp_path: Path) -> None:
    raw = read_text(spec_of(tmp_path, SONG, test_fraction=0.0))
    assert raw.test is None
    assert raw.x.size == (len(SONG) - 1) // 4 * 4


@pytest.mark.parametrize(("kinds", "dtype"), [(256, np.uint8), (257, np.int32)])
def test_a_byte_holds_256_characters(tmp_path: Path, kinds: int, dtype: type) -> None:
    letters = "".join(chr(0x4E00 + place) for place in range(kinds))
    raw = read_text(spec_of(tmp_path, letters[::-1] * 2, test_fraction=0.0))
    assert raw.vocabulary == letters
    assert raw.x.dtype == raw.y.dtype == dtype
    assert raw.x[0].tolist() == [kinds - 1, kinds - 2, kinds - 3, kinds - 4]


def test_characters_beyond_16_bits_and_a_mark_at_the_beginning(tmp_path: Path) -> None:
    raw = read_text(spec_of(tmp_path, b"\xef\xbb\xbf" + "🙂é🙂é🙂é".encode(), context=2, test_fraction=0.0))
    assert raw.vocabulary == "é🙂"
    assert raw.x.tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_that_is_not_utf8_is_named_with_its_line(tmp_path: Path, mark: bytes) -> None:
    with pytest.raises(Invalid, match=r"song\.txt, line 3: byte 0xe9 is not UTF-8") as caught:
        read_text(spec_of(tmp_path, mark + b"one\ntwo\ncaf\xe9\n"))
    assert caught.value.field == "dataset"


@pytest.mark.parametrize(("context", "fraction"), [(2, 0.2), (64, 0.2), (7, 0.5), (10, 0.9), (5, 0.0), (3, 0.07)])
def test_the_required_length_suffices_and_one_less_does_not(tmp_path: Path, context: int, fraction: float) -> None:
    with pytest.raises(Invalid) as caught:
        read_text(spec_of(tmp_path, "ab", context, fraction))
    assert "has 2 characters" in caught.value.message
    needed = int(caught.value.message.partition("at least ")[2].partition(":")[0].replace(",", ""))
    raw = read_text(spec_of(tmp_path, ("ab" * needed)[:needed], context, fraction))
    assert len(raw.x) >= 1
    assert (raw.test is None) == (fraction == 0)
    assert raw.test is None or len(raw.test[0]) >= 1
    with pytest.raises(Invalid, match=f"has {needed - 1:,} characters"):
        read_text(spec_of(tmp_path, ("ab" * needed)[: needed - 1], context, fraction))


@pytest.mark.parametrize(("content", "expected"), [("", "is empty"), ("aaaaaaaaaa" * 40, "only the character 'a'")])
def test_nothing_to_learn(tmp_path: Path, content: str, expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_text(spec_of(tmp_path, content))
    assert expected in caught.value.message


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=f"there is no file {tmp_path}/none.txt"):
        read_text(RunSpec(dataset=f"text:{tmp_path}/none.txt", model="transformer"))
    with pytest.raises(Invalid, match="is a folder"):
        read_text(RunSpec(dataset=f"text:{tmp_path}", model="transformer"))
