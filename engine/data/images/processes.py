"""Images decoded by several processes into one shared array.

The processes are forks, as those that read large CSV files: they decode, write pixels, and exit. They start no threads and
touch no device, which makes forking a process with threads safe. Never imports torch.
"""

from __future__ import annotations

import gc
import mmap
import os
import pickle
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.forking import fork_to_answer
from epochtop.engine.data.images.decoding import BrokenImageError, Source, decoded
from epochtop.engine.data.images.formats import Format

FEWEST = 64
"""Fewer images than this are decoded in this process."""
BLOCK = 32
"""Neighboring images that one process takes; their sizes are similar, so that all processes have as much to do."""

Pixels = npt.NDArray[np.uint8]
Answer = dict[int, Format | str]
"""The format of each image by its number, or why it cannot be read."""
OnCount = Callable[[int], None]


@dataclass(frozen=True)
class Decoding:
    """What the processes do: the images, the format to convert to, and how many processes."""

    sources: Sequence[Source]
    target: Format
    reduced: bool
    """Whether large JPEG files may be decoded at a smaller scale."""
    processes: int
    converts_color: bool = False
    """Whether images with color become gray if the target is; otherwise they have no pixels."""


@dataclass(frozen=True)
class _Process:
    number: int
    reader: int
    """The process id, and the pipe from which to read its answer."""


def decode_all(work: Decoding, on_count: OnCount, interval_s: float) -> tuple[Pixels, list[Format | str]]:
    """Pixels (images, channels, height, width), and the format of every image, or why it cannot be read.

    `on_count` is called about every `interval_s` with the number of images that are done. Raises MemoryError if a process
    was killed.
    """
    count, target = len(work.sources), work.target
    shape = (count, target.channels, target.height, target.width)
    if count < FEWEST or work.processes < 2:
        x = np.zeros(shape, dtype=np.uint8)
        return x, _ordered(_in_this_process(work, x, on_count, interval_s), count)
    shared = mmap.mmap(-1, max(1, int(np.prod(shape))))
    x = np.frombuffer(shared, dtype=np.uint8).reshape(shape)
    counters = np.frombuffer(mmap.mmap(-1, 8 * work.processes), dtype=np.int64)
    _load_plugins()
    started = [_fork(work, x, counters, number) for number in range(work.processes)]
    answers = _collect(started, lambda: on_count(int(counters.sum())), interval_s)
    return x, _ordered({row: each for answer in answers for row, each in answer.items()}, count)


def _ordered(answer: Answer, count: int) -> list[Format | str]:
    return [answer[row] for row in range(count)]


def _in_this_process(work: Decoding, x: Pixels, on_count: OnCount, interval_s: float) -> Answer:
    answer: Answer = {}
    reported_s = time.monotonic()
    for row, source in enumerate(work.sources):
        answer[row] = _one(source, work, x[row])
        if time.monotonic() - reported_s >= interval_s:
            reported_s = time.monotonic()
            on_count(row + 1)
    return answer


def _one(source: Source, work: Decoding, out: Pixels) -> Format | str:
    try:
        return decoded(source, work.target, work.reduced, out, work.converts_color)
    except BrokenImageError as error:
        return str(error)


def _load_plugins() -> None:
    """Import Pillow's readers before the forks, so that each of them need not; common formats are tried first."""
    from PIL import Image, ImageOps  # noqa: F401

    Image.preinit()
    Image.init()


def _fork(work: Decoding, x: Pixels, counters: npt.NDArray[np.int64], number: int) -> _Process:
    return _Process(*fork_to_answer(partial(_decode, work, x, counters, number)))


def _decode(work: Decoding, x: Pixels, counters: npt.NDArray[np.int64], number: int) -> Answer:
    """In a forked process: decode the blocks of images that belong to this one."""
    gc.freeze()  # a collection would write to, and so copy, the memory that is shared with the parent
    answer: Answer = {}
    same: dict[Format | str, Format | str] = {}
    for start in range(number * BLOCK, len(work.sources), work.processes * BLOCK):
        for row in range(start, min(start + BLOCK, len(work.sources))):
            each = _one(work.sources[row], work, x[row])
            answer[row] = same.setdefault(each, each)  # pickled once
            counters[number] += 1
    return answer


def _collect(started: Sequence[_Process], on_time: Callable[[], None], interval_s: float) -> list[Answer]:
    """The answers of all processes. Raises MemoryError if one has none."""
    content = {process.reader: b"" for process in started}
    waiting = list(content)
    reported_s = time.monotonic()
    while waiting:
        for reader in select.select(waiting, [], [], max(0.01, interval_s))[0]:
            part = os.read(reader, 2**20)
            content[reader] += part
            if not part:
                waiting.remove(reader)
                os.close(reader)
        if time.monotonic() - reported_s >= interval_s:
            reported_s = time.monotonic()
            on_time()
    for process in started:
        os.waitpid(process.number, 0)
    if not all(content.values()):
        raise MemoryError
    return [pickle.loads(each) for each in content.values()]  # noqa: S301 - from our own forks, through pipes
