"""Which arrays are files mapped into memory: the system reads and drops their pages as needed, so they need no memory.

Linux lists all mappings of a process, so it does not matter who has mapped a file: numpy, torch, pyarrow. Elsewhere only
numpy's maps are known. Never imports torch or numpy.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

MAPS, SIZES = Path("/proc/self/maps"), Path("/proc/self/smaps")
SHARED_MEMORY = "/dev/", "/memfd:", "/SYSV"
"""Beginnings of names in the list that are not files on a disk."""


def is_mapped_file(array: Any) -> bool:
    """Whether the values of a numpy array are in a file that is mapped into memory."""
    if not array.nbytes:
        return False
    if MAPS.exists():
        return _is_mapped_address(array.__array_interface__["data"][0])
    owner = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    return owner is not None


def resident_file_bytes() -> int:
    """Bytes of mapped data files that are in memory now. Programs and libraries are not counted; 0 where it is unknown."""
    resident: dict[str, int] = {}
    programs: set[str] = set()
    name = ""
    try:
        with open(SIZES, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if line.startswith("Rss:"):
                    resident[name] = resident.get(name, 0) + int(line.split()[1]) * 1024
                elif not line[:1].isupper():
                    name = _file_of(line)
                    programs.update([name] if "x" in line.split(maxsplit=2)[1] else [])
    except OSError:
        return 0
    return sum(size for name, size in resident.items() if name and name not in programs)


def _is_mapped_address(address: int) -> bool:
    try:
        with open(MAPS, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                first, last = (int(part, 16) for part in line.split(maxsplit=1)[0].split("-"))
                if first <= address < last:
                    return bool(_file_of(line))
    except OSError:
        pass
    return False


def _file_of(line: str) -> str:
    """The file of a line `first-last rights offset device inode name`; empty for other memory."""
    _span, _rights, _offset, _device, inode, *name = line.split(maxsplit=5)
    return name[0].strip() if inode != "0" and name and not name[0].startswith(SHARED_MEMORY) else ""
