"""A table on standard input, kept in a private file of the home folder so that the run can be resumed.

The engine never reads this process's standard input.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import msgspec

from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.files import atomic_file
from epochtop.engine.terminal.output import write_error

DATASET = "csv:-"
"""The dataset that standard input is."""
FOLDER = "inputs"
"""Folder of the kept files in the home folder."""
_BLOCK_BYTES = 2**20


def with_kept_input(spec: RunSpec, home: Path) -> RunSpec:
    """The spec with a file in place of standard input. Raises Invalid if nothing is piped in."""
    if spec.dataset != DATASET:
        return spec
    if sys.stdin.isatty():
        raise Invalid(
            "dataset",
            f"{DATASET} reads standard input; pipe a table into it: epochtop train --dataset {DATASET} < FILE",
        )
    path = keep(sys.stdin.buffer, home / FOLDER)
    write_error(f"epochtop: standard input is kept in {path}\n")
    return msgspec.structs.replace(spec, dataset=f"csv:{path}")


def keep(stream: BinaryIO, folder: Path) -> Path:
    """Copy a stream into a file that only the user can read, named after its content. Raises Invalid."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest, size, incoming = sha256(), 0, folder / f"incoming-{os.getpid()}.csv"
    try:
        with atomic_file(incoming) as file:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
                file.write(block)
        path = folder / f"{digest.hexdigest()[:16]}.csv"
        incoming.chmod(0o600)
        incoming.replace(path)
    except OSError as error:
        raise Invalid("dataset", f"standard input cannot be kept in {folder}: {error.strerror}") from None
    if not size:
        path.unlink()
        raise Invalid(
            "dataset", f"standard input is empty; pipe a table into it: epochtop train --dataset {DATASET} < FILE"
        )
    return path
