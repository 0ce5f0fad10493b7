"""The files of MNIST and CIFAR-10, small, in the format in which they are published."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]


def idx(array: npt.NDArray[Any]) -> bytes:
    """An idx file: two zeros, the type (8 is unsigned bytes), the dimensions, their sizes big-endian, the bytes."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, ending: str = "", train: int = 12, test: int = 5, seed: int = 0) -> list[npt.NDArray[Any]]:
    """The four files of 28×28 images with these rows; returns what they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    held = []
    for part, rows in (("train", train), ("t10k", test)):
        images, labels = generator.integers(0, 256, (rows, 28, 28)), np.arange(rows) % 10
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = gzip.compress(idx(array)) if ending == ".gz" else idx(array)
            (folder / f"{name}{ending}").write_bytes(content)
            held.append(array)
    return held


def python2_pickle(images: Images, labels: list[int]) -> bytes:
    """A batch as Python 2 pickled it with protocol 2: every text is a byte string, the array is rebuilt by numpy."""

    def text(content: bytes) -> bytes:  # SHORT_BINSTRING, BINSTRING
        return (
            b"U" + bytes([len(content)]) + content
            if len(content) < 256
            else b"T" + struct.pack("<i", len(content)) + content
        )

    def number(value: int) -> bytes:  # BININT
        return b"J" + struct.pack("<i", value)

    shape = number(images.shape[0]) + number(images.shape[1]) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"\x89" + text(images.tobytes()) + b"tb"
    batch = text(b"batch_label") + text(b"training batch 1 of 5")
    batch += text(b"labels") + b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + batch + text(b"data") + array + b"u."


def write_batches(folder: Path, rows: int = 4) -> tuple[Images, list[int]]:
    """Five training batches and a test batch; returns the pixels (rows of all six, 3072) and the labels."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (6 * rows, 3072), dtype=np.uint8)
    labels = [place % 10 for place in range(len(pixels))]
    for number, name in enumerate([*(f"data_batch_{batch}" for batch in range(1, 6)), "test_batch"]):
        part = slice(number * rows, (number + 1) * rows)
        (folder / name).write_bytes(python2_pickle(pixels[part], labels[part]))
    return pixels, labels
