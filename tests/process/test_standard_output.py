"""Standard output that is full or closed: one line and an exit status, never a traceback."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from epochtop.engine.protocol.events import Failed
from tests.cli.test_commands import command
from tests.support.engines import HANGING_S
from tests.support.runs import CREATED, losses_like_iris, started, windows, write_run

COMMANDS = (
    ("runs",), ("runs", "--json"), ("export", "last"), ("--help",), ("--version",), ("runs", "--help"), ("stop", "last"),
    ("hardware", "--json"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _run(home: Path) -> None:
    failed = Failed(time=CREATED, step=3, message="no reason")
    write_run(home, "iris-mlp-0001", [started(10), *windows(losses_like_iris(300)), failed])


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_output_is_one_line_and_a_status(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(*arguments), stdout=full, stderr=subprocess.PIPE, text=True, timeout=HANGING_S, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["epochtop: standard output cannot be written: No space left on device"]


@pytest.mark.parametrize("arguments", COMMANDS[:3], ids=" ".join)
def test_a_closed_output_is_one_line_and_a_status(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        command(*arguments),
        stderr=subprocess.PIPE,
        text=True,
        timeout=HANGING_S,
        check=False,
        preexec_fn=lambda: os.close(1),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["epochtop: standard output is closed"]


def test_a_reader_that_is_gone_is_not_an_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command("runs"), stdout=writer, stderr=subprocess.PIPE, text=True, timeout=HANGING_S, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
