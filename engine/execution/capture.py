"""Capturing a CUDA graph so that a failure leaves nothing behind: no work in flight, no stream, no capture mode.

Knows nothing of jobs or steps. Waits for the device only after a failure.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

WARM_UP = 3
"""Steps taken before a capture, so that libraries and autograd have allocated what they keep."""

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""From a function that enqueues work to one that enqueues the same work again."""


class CaptureError(Exception):
    """A failed capture has left CUDA unusable in this process, so that not even eager steps can follow."""


class GraphCapture:
    """Makes CUDA graphs for one device. They share one memory pool, because only one of them is replayed at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph of what `enqueue` does; every replay draws new random numbers.

        Raises RuntimeError if the work cannot be captured, and CaptureError if nothing works after that.
        """
        stream = torch.cuda.Stream(self._device)
        self._try_out(enqueue, stream)
        graph = torch.cuda.CUDAGraph()
        training = torch.cuda.current_stream(self._device)
        try:
            # without a stream of its own, torch captures on one that belongs to the GPU of the first capture
            with torch.cuda.graph(graph, pool=self._pool, stream=stream):
                enqueue()
        except RuntimeError as error:
            torch.cuda.set_stream(training)  # torch restores it only if the capture could be ended
            self._probe(error)
            raise
        self._pool = self._pool or graph.pool()
        replay: Callable[[], None] = graph.replay
        return replay

    def _try_out(self, enqueue: Callable[[], None], stream: torch.cuda.Stream) -> None:
        training = torch.cuda.current_stream(self._device)
        stream.wait_stream(training)
        try:
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    enqueue()
                with _waiting_forbidden():  # a step that waits would break the capture irreparably
                    enqueue()
        finally:  # also after a failure: the caller undoes these steps, and they must be over then
            training.wait_stream(stream)

    def _probe(self, error: RuntimeError) -> None:
        """Raise CaptureError if the allocator or the random generator still believe that a capture is going on."""
        try:
            torch.rand(1, device=self._device)
            torch.cuda.synchronize(self._device)
        except RuntimeError:
            raise CaptureError(
                f"CUDA cannot capture the steps and does not recover: {str(error).splitlines()[0][:200]}; set executor "
                "to eager"
            ) from error


@contextmanager
def _waiting_forbidden() -> Iterator[None]:
    """Raise RuntimeError for every operation that makes the host wait for the device."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)
