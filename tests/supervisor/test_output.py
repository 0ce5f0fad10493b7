"""The stored output of a command: complete lines, few drawings of progress bars, a bounded size."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from epochtop.supervisor import output
from epochtop.supervisor.ending import last_traceback, shell_status
from epochtop.supervisor.output import OutputLog
from epochtop.supervisor.record import hookless_reason, stem


def stored(path: Path, pieces: list[tuple[bytes, float]]) -> tuple[bytes, list[str]]:
    """The file after these pieces have arrived, each at its time, and the complete lines."""
    lines: list[str] = []
    log = OutputLog(path, lambda line, complete: lines.append(line) if complete else None)
    for data, now in pieces:
        log.add(data, now)
    log.close()
    return path.read_bytes(), lines


def test_plain_output_is_stored_byte_for_byte_however_it_arrives(tmp_path: Path) -> None:
    text = "one\ntwo é\n\nlast without end".encode()
    for seed in range(20):
        cuts = sorted(random.Random(seed).sample(range(1, len(text)), 4))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        content, lines = stored(tmp_path / str(seed), [(piece, 0.0) for piece in pieces])
        assert content == text
        assert lines == ["one", "two é", "", "last without end"]


def test_a_progress_bar_is_stored_once_a_second_and_at_its_end(tmp_path: Path) -> None:
    pieces = [(f"\r{n}%".encode(), n / 10) for n in range(100)]
    content, lines = stored(tmp_path / "log", [*pieces, (b"\rdone\n", 10.0)])
    assert content.count(b"\r") == pytest.approx(10, abs=2)
    assert content.endswith(b"done\n")
    assert lines == ["done"]


def test_a_long_output_keeps_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "FULL_BYTES", 100)
    content, _ = stored(tmp_path / "output.log", [(f"line {n}\n".encode(), 0.0) for n in range(100)])
    assert content.endswith(b"line 99\n")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 400


def test_the_last_traceback_is_found() -> None:
    text = "noise\nTraceback (most recent call last):\n  File 'x.py', line 1\n    f()\nValueError: bad\nbye\n"
    assert last_traceback(text).splitlines()[-1] == "ValueError: bad"
    assert last_traceback("no error") == ""


def test_a_signal_becomes_an_exit_status_as_in_a_shell() -> None:
    assert (shell_status(3), shell_status(-15)) == (3, 143)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python train.py --lr 1", "train"),
        ("python -u -m package.train", "train"),
        ("torchrun --nproc-per-node 2 gan.py", "gan"),
        ("python -m torch.distributed.run gan.py", "gan"),
        ("bash job.sh", "job"),
        ("./simulate", "simulate"),
    ],
)
def test_a_run_is_named_after_the_script(command: str, name: str) -> None:
    assert stem(command.split()) == name


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("python -I x.py", "python was started with -I"),
        ("python3.11 -uS x.py", "python was started with -S"),
        ("python -u x.py -I", ""),
        ("python -c 'I'", ""),
        ("bash -I", ""),
    ],
)
def test_an_interpreter_that_ignores_hooks_is_named(command: str, reason: str) -> None:
    assert hookless_reason(command.split()) == reason
