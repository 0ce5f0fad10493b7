"""`python -m tests.faults.disk FOLDER PART...` takes rows of both tables in this process, and prints one JSON object per row.

A part is an operation of the first table, or `mounts`, the second one. The process must run under the preloaded library
(`faults.c`), and mounts file systems in a namespace of its own where it may.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.faults.disk import mounts, rows


def attempts(parts: Sequence[str], everything: bool) -> Iterator[tuple[list[str], Callable[[Path], dict[str, Any]]]]:
    """Every row to take, and what takes it in a folder."""
    for row in rows.TABLE if everything else rows.IN_CI:
        if row.operation in parts:
            yield list(row), lambda folder, row=row: rows.take(row, folder)  # type: ignore[misc]
    if mounts.PART in parts and mounts.enter_namespace():
        for mount in mounts.TABLE if everything else mounts.IN_CI:
            yield list(mount), lambda folder, mount=mount: mounts.take(mount, folder)  # type: ignore[misc]


def main() -> None:
    """Take the rows."""
    folder, *parts = sys.argv[1:]
    chosen = list(attempts(parts, os.environ.get("EPOCHTOP_FAULTS") == "all"))
    import torch  # starts threads, which must share the namespace

    torch.set_num_threads(1)
    for number, (row, take) in enumerate(chosen):
        one = Path(folder) / f"row{number}"
        one.mkdir()
        try:
            facts = take(one)
        except BaseException as error:
            rows.heal()
            facts = {"row": row, "raised": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
        shutil.rmtree(one, ignore_errors=True)


if __name__ == "__main__":
    main()
