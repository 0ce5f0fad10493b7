"""Arrays in mapped files are told from arrays in memory, whoever has mapped them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epochtop.engine.hardware import memory_maps
from epochtop.engine.hardware.memory_maps import is_mapped_file, resident_file_bytes

linux = pytest.mark.skipif(not memory_maps.MAPS.exists(), reason="needs the list of mappings of Linux")
COUNT = 2**20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows of floats.npy"
    np.save(path, np.ones((COUNT // 4, 4), np.float32))
    return path


def mapped_arrays(file: Path) -> dict[str, Any]:
    """The same file, mapped in several ways."""
    numpy_map = np.load(file, mmap_mode="r")
    with open(file.with_suffix(".bin"), "wb") as raw:
        np.ones(COUNT, np.float32).tofile(raw)
    from_file = torch.from_file(str(file.with_suffix(".bin")), shared=False, size=COUNT)
    writable = np.load(file, mmap_mode="c")
    return {
        "memmap": numpy_map,
        "view": numpy_map.view(np.ndarray)[10:, 1:3],
        "torch.from_file": from_file.numpy(),
        "tensor of a memmap": torch.from_numpy(writable)[5:].numpy(),
    }


@linux
def test_mapped_files_are_recognized(file: Path) -> None:
    arrays = mapped_arrays(file)
    assert {name: is_mapped_file(array) for name, array in arrays.items()} == dict.fromkeys(arrays, True)


def test_arrays_in_memory_are_not(file: Path) -> None:
    shared = torch.ones(COUNT).share_memory_().numpy()
    for array in (np.ones(3), np.ones(COUNT), np.load(file), np.load(file, mmap_mode="r")[:9].copy(), shared):
        assert not is_mapped_file(array)
    assert not is_mapped_file(np.empty((0, 4)))


def test_without_the_list_maps_of_numpy_are_recognized(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_maps, "MAPS", file.with_name("none"))
    assert is_mapped_file(np.load(file, mmap_mode="r")[3:])
    assert not is_mapped_file(np.load(file))


@linux
def test_pages_that_were_read_are_counted_and_libraries_are_not(file: Path) -> None:
    before = resident_file_bytes()
    mapped = np.load(file, mmap_mode="r")
    assert float(mapped.sum()) == COUNT
    assert resident_file_bytes() - before == pytest.approx(mapped.nbytes, rel=0.01)
