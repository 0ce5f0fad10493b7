"""Network × moment: ranks on two hosts that lose each other take the same steps afterwards, or continue from a checkpoint.

Each host is a network namespace, and a cable of two virtual devices joins them. Only root may make them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from epochtop.engine.distributed.hanging import PATIENCE
from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import RANK_HANGS, Failed, Saved, Warned
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.index import run_paths, summarize
from epochtop.engine.runs.writer import send
from tests.faults.selection import EVERYTHING
from tests.support.engines import HANGING_S, Engine, Watch, losses, rank_of, wait_until

ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 29_417
STEPS = 1920
FLAGS = {
    "dataset": "digits", "hidden": "16", "batch_size": "100", "dropout": "0.3", "epochs": "240", "seed": "3", "device": "cpu",
    "threads": "1", "refresh_ms": "20", "save_every": "0.1", "eval_every": "0",
}  # fmt: skip
SPEC = RunSpec(
    dataset="digits", hidden=(16,), batch_size=100, dropout=0.3, epochs=240, seed=3, device="cpu", threads=1, refresh_ms=20,
    save_every=0.1, eval_every=0, processes=2,
)  # fmt: skip
CUT_S = 3.0

pytestmark = [
    pytest.mark.skipif(not EVERYTHING, reason="starts many processes; part of `make faults`"),
    pytest.mark.xdist_group("processes"),
]


class Cable:
    """Two hosts that a cable joins."""

    def __init__(self) -> None:
        self._holders = [subprocess.Popen(["unshare", "-n", "sleep", str(HANGING_S * 5)]) for _ in ADDRESSES]
        own = Path("/proc/self/ns/net").readlink()
        wait_until(lambda: all(Path(f"/proc/{each.pid}/ns/net").readlink() != own for each in self._holders))
        self.on(
            0, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(self._holders[1].pid)
        )
        for host, address in enumerate(ADDRESSES):
            self.on(host, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self.on(host, "ip", "link", "set", device, "up")

    def command(self, host: int, *words: str) -> list[str]:
        """A command on one of the hosts."""
        return ["nsenter", "-t", str(self._holders[host].pid), "-n", *words]

    def on(self, host: int, *words: str) -> None:
        """Run a command on one of the hosts."""
        subprocess.run(self.command(host, *words), check=True, capture_output=True)

    def cut(self) -> None:
        """Nothing passes any more; no connection is closed."""
        self.on(1, "ip", "link", "set", "eth0", "down")

    def reconnect(self) -> None:
        """Everything passes again."""
        self.on(1, "ip", "link", "set", "eth0", "up")

    def close(self) -> None:
        """Remove hosts and cable."""
        for holder in self._holders:
            holder.kill()
            holder.wait()


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Two hosts."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        pytest.skip("needs root and iproute2")
    with contextlib.closing(Cable()) as joined:
        yield joined


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> npt.NDArray[np.float32]:
    """The losses of two ranks whose network works."""
    with Engine() as engine:
        run = engine.train(SPEC, tmp_path_factory.mktemp("undisturbed"))
        assert engine.wait() == 0
    return losses(run)


@contextlib.contextmanager
def ranks_on(cable: Cable, home: Path) -> Iterator[tuple[Watch, list[psutil.Process]]]:
    """A run with one rank on each host, which trains and has saved."""
    flags = [word for name, value in FLAGS.items() for word in (f"--{name.replace('_', '-')}", value)]
    processes = [
        subprocess.Popen(
            cable.command(rank, sys.executable, "-P", "-m", "epochtop.engine", "train", *flags),
            env={**os.environ, **variables(rank)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        wait_until(lambda: run_paths(home) or any(process.poll() is not None for process in processes))
        watch = Watch(run_paths(home)[0])
        watch.until(Saved)
        watch.windows(2)
        yield watch, [psutil.Process(process.pid) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def variables(rank: int) -> Mapping[str, str]:
    """What torchrun tells a rank, for one process per host."""
    return {
        "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "two hosts",
        "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(PORT), "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def resumed_losses(run: Path) -> npt.NDArray[np.float32]:
    """The losses of a run that two ranks of one host continue."""
    with Engine() as engine:
        assert isinstance(engine.resume(run), Accepted)
        assert engine.wait() == 0
    assert summarize(run).state == "finished"
    return losses(run)


def test_ranks_that_lose_each_other_for_a_while_take_the_same_steps(
    cable: Cable, home: Path, undisturbed: npt.NDArray[np.float32]
) -> None:
    with ranks_on(cable, home) as (watch, processes):
        cable.cut()
        time.sleep(CUT_S)
        watch.catch_up()
        before = len(losses(watch.run))
        assert before < STEPS
        cable.reconnect()
        watch.end()
        for process in processes:
            process.wait(HANGING_S)
    assert summarize(watch.run).state == "finished"
    np.testing.assert_array_equal(losses(watch.run), undisturbed)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_ranks_that_lose_each_other_for_good_continue_from_a_checkpoint(
    how: str, cable: Cable, home: Path, undisturbed: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 names the other one, and obeys Stop although it waits for it."""
    monkeypatch.setenv(PATIENCE, str(CUT_S))
    with ranks_on(cable, home) as (watch, processes):
        cable.cut()
        watch.until(Warned, lambda event: event.code == RANK_HANGS)
        if how == "stopped":
            send(watch.run, Stop())
            assert "rank 1" in watch.until(Failed).message
            processes[0].wait(HANGING_S)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert summarize(watch.run).state == ("failed" if how == "stopped" else "died")
    assert len(losses(watch.run)) < STEPS
    np.testing.assert_array_equal(resumed_losses(watch.run), undisturbed)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_suspended_for_a_while_takes_the_same_steps(
    rank: int, home: Path, undisturbed: npt.NDArray[np.float32]
) -> None:
    with Engine() as engine:
        watch = Watch(engine.train(SPEC, home))
        watch.windows(2)
        pid = engine.process.pid if rank == 0 else rank_of(engine, 1).pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(CUT_S)
        os.kill(pid, signal.SIGCONT)
        watch.end()
        assert engine.wait() == 0
    np.testing.assert_array_equal(losses(watch.run), undisturbed)
