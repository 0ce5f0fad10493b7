"""Machines as their kernels describe them: /proc and /sys trees, each kept as one text file in fixtures/machines.

They are shortened and written after real ones: what the code reads is there, in the kernel's own format.
A file has lines `=== path`, each followed by the contents of that path.
"""

from __future__ import annotations

from pathlib import Path

from epochtop.engine.hardware import Roots

FOLDER = Path(__file__).parents[2] / "fixtures" / "machines"


def unpack(name: str, folder: Path) -> Roots:
    """Write the trees of the machine called `name` under `folder`."""
    text = (FOLDER / f"{name}.txt").read_text()
    for part in text.split("=== ")[1:]:
        path, _, contents = part.partition("\n")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(contents)
    return Roots(folder / "proc", folder / "sys")
