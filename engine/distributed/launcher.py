"""The other ranks as child processes on this machine: started, watched, never left behind.

A child that ends too early ends the run, even if rank 0 waits in an exchange that will never complete. A child ends
when rank 0 does: it reads a pipe that only rank 0 keeps open.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from epochtop.engine.distributed.leader import RankLauncher
from epochtop.engine.distributed.orders import RankFailure, reports
from epochtop.recording.forks import close_in_children

HERE = "127.0.0.1"
WATCH_S = 0.05
TOGETHER_S = 0.3
"""Ranks that fail because another one did, end within about this time."""
GRACE_S = 4.0
"""How long rank 0 may take to notice on its own that a rank is gone."""
FAREWELL_S = 10.0
LIBUV_TAKES_SOCKETS = "2.8"
"""The first torch whose store over libuv accepts a listening socket (pytorch #150215). Older ones print an error."""


class LocalLauncher(RankLauncher):
    """Starts `world_size - 1` processes.

    `on_hang` is called if rank 0 does not notice that a rank is lost; it must end this process.
    """

    def __init__(self, world_size: int, on_hang: Callable[[RankFailure], None]) -> None:
        self.world_size = world_size
        self._on_hang = on_hang
        self._children: list[subprocess.Popen[bytes]] = []
        self._reports: Any = None
        self._port = 0
        self._ended: RankFailure | None = None
        """Why this process has ended a rank; None if it has ended none."""
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._noticed = threading.Event()

    def start(self) -> Any:
        _stay_on_this_machine()
        store, port = open_store()
        self._port = port
        self._reports = reach_store(port)
        for rank in range(1, self.world_size):
            command = [
                sys.executable,
                "-P",
                "-m",
                "epochtop.engine",
                "rank",
                str(rank),
                str(self.world_size),
                str(port),
            ]
            # rank 0 alone answers signals to the processes of the terminal
            child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - this Python, numbers
            if child.stdin is not None:
                close_in_children(child.stdin)  # a worker of a data loader must not keep the other ranks alive
            self._children.append(child)
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        return store

    def connect(self) -> Any:
        return reach_store(self._port)

    def end_rank(self, report: RankFailure) -> bool:
        if not report.rank:
            return False
        self._ended = report
        self._children[report.rank - 1].kill()
        return True

    def _watch(self) -> None:
        while not self._over.wait(WATCH_S):
            report = self.failed_rank()
            if report is None:
                continue
            if self._noticed.wait(GRACE_S) or self._over.is_set():
                return
            self.close()
            self._on_hang(report)
            return

    def failed_rank(self, patience_s: float = 0.0) -> RankFailure | None:
        if patience_s:
            self._noticed.set()
        until = time.monotonic() + patience_s
        while self._all_live():
            if time.monotonic() >= until:
                return self._reported_cause() if patience_s else None
            time.sleep(WATCH_S)
        time.sleep(TOGETHER_S)
        until = time.monotonic() + GRACE_S
        while True:
            with self._lock:
                report = self._cause()
            if report is None or not report.lost or time.monotonic() >= until:
                return report
            time.sleep(WATCH_S)  # it failed because another rank is gone, whose process may take longer to end

    def _reported_cause(self) -> RankFailure | None:
        """The failure of a rank whose process has not ended yet, which may take seconds on a busy machine."""
        with self._lock:
            return next((report for report in reports(self._reports) if not report.lost), None)

    def _all_live(self) -> bool:
        return self._over.is_set() or all(child.poll() is None for child in self._children)

    def _cause(self) -> RankFailure | None:
        """A rank that was ended or killed; else the first to report a cause; else one that ended without a report."""
        if self._ended is not None:
            return self._ended
        gone = {rank: child.returncode for rank, child in enumerate(self._children, 1) if child.poll() is not None}
        killed = [rank for rank, status in gone.items() if status < 0]
        if killed:
            name = signal.Signals(-gone[killed[0]]).name
            advice = "possibly out of memory; check `dmesg`" if name == "SIGKILL" else ""
            return RankFailure(rank=killed[0], message=f"rank {killed[0]} was killed by {name}", advice=advice)
        failures = reports(self._reports)
        causes = [report for report in failures if not report.lost]
        silent = [rank for rank in gone if rank not in {report.rank for report in failures}]
        if causes or not silent:
            return next(iter(causes or failures), None)
        rank = silent[0]
        return RankFailure(
            rank=rank, message=f"rank {rank} ended too early, with exit status {gone[rank]}; see output.log"
        )

    def release(self) -> None:
        self._over.set()

    def close(self) -> None:
        released = self._over.is_set()
        self._over.set()
        until = time.monotonic() + (FAREWELL_S if released else 0.0)
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, until - time.monotonic()))
            child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()


def open_store() -> tuple[Any, int]:
    """A store that only this machine can reach, and its port."""
    listener = socket.socket()
    listener.bind((HERE, 0))
    listener.listen(128)
    port = listener.getsockname()[1]
    store = dist.TCPStore(  # type: ignore[attr-defined]
        HERE,
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
        use_libuv=torch.__version__ >= LIBUV_TAKES_SOCKETS,
    )
    return store, port


def reach_store(port: int) -> Any:
    """A connection to the store that rank 0 opened; every thread needs its own."""
    return dist.TCPStore(HERE, port, is_master=False, wait_for_workers=False)  # type: ignore[attr-defined]


def _stay_on_this_machine() -> None:
    """Keep gloo from looking up the host name, which fails without a network."""
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
