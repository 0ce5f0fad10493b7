"""`python -m epochtop.engine train`: train from a command line without a screen, alone or under torchrun.

    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:PORT \\
        -m epochtop.engine train --dataset digits --batch-size 64

Rank 0 creates and writes the run; every other rank finds the data at the same paths on its own machine. After a restart
by torchrun the run continues from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch.distributed as dist

from epochtop.engine.distributed import rank as follower
from epochtop.engine.distributed.leader import DEVICE, NOTHING_TO_DO, RankLauncher
from epochtop.engine.distributed.orders import RankFailure, reports
from epochtop.engine.job.plan import resolved
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.process import signals
from epochtop.engine.process.run import Run, new_run, resumed_run
from epochtop.engine.protocol.events import Failed
from epochtop.engine.protocol.fields import field, fields, show, spec_from
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import index, paths, reader
from epochtop.engine.runs.files import write_atomically
from epochtop.engine.runs.reader import Follower
from epochtop.engine.runs.regular import read_regular
from epochtop.engine.tasks.sources import enter_working_folder
from epochtop.engine.terminal.output import flush, write, write_error
from epochtop.engine.training.resume import resumable_run

REQUESTS = ("resume", "trust")
"""Flags that are not fields: the run to continue, and another owner of it whose task may be executed."""
LAUNCH = "launch"
"""File in a run directory: which launch of torchrun made it."""


# --- torchrun's variables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """This process among those that torchrun launched together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    restarts: int = 0
    key: str = ""
    """Identifies a launch over all its restarts; empty without torchrun."""


def launch_in(environment: Mapping[str, str]) -> Launch:
    """The launch that torchrun's environment variables describe. Raises Invalid if some of them are missing."""
    if "RANK" not in environment:
        return Launch()
    try:
        run_id = environment.get("TORCHELASTIC_RUN_ID", "none")
        # a launch without an id is identified by the agent that started this process
        key = run_id if run_id != "none" else f"{socket.gethostname()}:{os.getppid()}"
        return Launch(
            rank=int(environment["RANK"]),
            world_size=int(environment["WORLD_SIZE"]),
            local_rank=int(environment["LOCAL_RANK"]),
            restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)),
            key=key,
        )
    except (KeyError, ValueError) as error:
        raise Invalid("", f"RANK is set, but other torchrun variables are missing or wrong: {error}") from None


class TorchrunLauncher(RankLauncher):
    """Ranks that torchrun starts and ends."""

    def __init__(self, world_size: int, store: Any, connect: Callable[[], Any]) -> None:
        self.world_size, self._store, self._connect = world_size, store, connect

    def start(self) -> Any:
        return self._store

    def connect(self) -> Any:
        return self._connect()

    def failed_rank(self, patience_s: float = 0.0) -> RankFailure | None:
        until = time.monotonic() + patience_s
        while True:
            failures = reports(self._store)
            causes = [report for report in failures if not report.lost]
            if causes or time.monotonic() >= until:
                break
            time.sleep(0.05)
        if causes or not patience_s:
            return causes[0] if causes else None
        silent = sorted(set(range(1, self.world_size)) - {report.rank for report in failures})
        if not silent:
            return None
        which = f"rank {silent[0]}" if len(silent) == 1 else f"one of the ranks {', '.join(map(str, silent))}"
        return RankFailure(
            rank=silent[0],
            message=f"{which} ended without reporting an error; it may have been killed",
            advice="see torchrun's output for how its processes ended; they may be out of memory",
        )

    def end_rank(self, report: RankFailure) -> bool:
        return False  # its process may be on another machine

    def release(self) -> None:
        pass

    def close(self) -> None:
        pass


# --- the command line ------------------------------------------------------------------------------


def read_flags(arguments: list[str]) -> dict[str, str]:
    """`--name value`, `--name=value`, `--switch`, `--no-switch` as texts by field, and those of REQUESTS. Raises Invalid."""
    texts: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--"):
            raise Invalid("", f"{flag!r} is not a flag; write --FIELD VALUE, for example --epochs 100")
        name, equals, value = flag[2:].partition("=")
        name = name.replace("-", "_")
        values = [value] if equals else []
        if name.startswith("no_") and not equals:
            name, values = name.removeprefix("no_"), ["no"]
        while rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        texts[name] = _joined(name, values)
    return texts


def _joined(name: str, values: list[str]) -> str:
    kind = "text" if name in REQUESTS else field(name).kind
    if kind == "switch" and not values:
        return "yes"
    if len(values) > 1 and kind != "integers":
        raise Invalid(name, f"takes one value, not {' '.join(values)!r}")
    return ",".join(values)


def usage() -> str:
    """All flags with their defaults."""
    lines = [
        "usage: python -m epochtop.engine train [--FIELD VALUE ...]",
        "       python -m epochtop.engine train --resume RUN [--trust OWNER]",
        "       torchrun --nnodes N --nproc-per-node M -m epochtop.engine train [--FIELD VALUE ...]",
        "",
    ]
    for about in fields():
        unit = f" {about.unit}" if about.unit else ""
        lines.append(f"  --{about.name.replace('_', '-')} [{show(about.default)}{unit}]  {about.description}")
    return "\n".join(lines) + "\n"


def spec_of(texts: dict[str, str], launch: Launch) -> RunSpec:
    """The checked spec, with as many processes as torchrun launched. Raises Invalid."""
    if not launch.key:
        return spec_from(texts)
    spec = spec_from({**texts, "processes": texts.get("processes", str(launch.world_size))})
    if spec.processes != launch.world_size:
        raise Invalid("processes", f"torchrun started {launch.world_size}, not {spec.processes}; leave it out")
    return spec


# --- one process ---------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Entry of `python -m epochtop.engine train`. Exit status: 0, 1 failed, 2 wrong request, 4 unsaved."""
    if {"-h", "--help"} & {*arguments}:
        write(usage())
        return 0
    try:
        launch = launch_in(os.environ)
        store = _store(launch) if launch.world_size > 1 else None
        if launch.rank:
            return follower.serve(store, launch.rank, launch.world_size, launch.local_rank, lambda: _store(launch))
        return _lead(read_flags(arguments), launch, store)
    except Invalid as error:
        write_error(f"{error}\n")
        return 2


def _store(launch: Launch) -> Any:
    """The store that all processes of this attempt share, at MASTER_ADDR and MASTER_PORT.

    torchrun keeps its store over restarts, so every attempt needs its own keys: keys of an earlier attempt would send
    a rank to peers that are gone.
    """
    store, _, _ = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    return dist.PrefixStore(f"epochtop/{launch.restarts}/{launch.world_size}", store)  # type: ignore[attr-defined]


def _lead(texts: dict[str, str], launch: Launch, store: Any) -> int:
    trusted_owner = _trusted_owner(texts)
    launched = TorchrunLauncher(launch.world_size, store, lambda: _store(launch)) if launch.world_size > 1 else None
    earlier = _earlier_run(texts, launch)
    if earlier is not None and launch.restarts and index.summarize(earlier).state == "finished":
        if store is not None:
            store.set(DEVICE, NOTHING_TO_DO)
        return 0
    try:
        if earlier is None:
            run = _begin(spec_of(texts, launch), launched)
        else:
            run = _resume(earlier, launch, launched, trusted_owner)
        write_atomically(run.path / LAUNCH, launch.key.encode())
    except BaseException:
        signals.release()
        raise
    _print(f"{run.path.name}\n")
    status = run.serve()
    _print_end(run.path)
    return status


def _trusted_owner(texts: dict[str, str]) -> str:
    """The owner that `--trust` names; the flag is taken out of `texts`. Raises Invalid without `--resume`."""
    owner = texts.pop("trust", "")
    if owner and "resume" not in texts:
        raise Invalid("trust", "names the owner of a run that continues; add --resume RUN, or leave it out")
    return owner


def _earlier_run(texts: dict[str, str], launch: Launch) -> Path | None:
    """The run to continue: the named one, or that of an earlier attempt; None for a new run."""
    home = paths.home()
    name = texts.pop("resume", None)
    if name is not None:
        if texts:
            raise Invalid(next(iter(texts)), "cannot be changed in a run that continues; leave it out")
        if not launch.restarts:
            return index.find(home, name)
    if launch.restarts and launch.key:
        return next((path for path in index.run_paths(home) if _launch_of(path) == launch.key), None)
    return None


def _launch_of(run: Path) -> str:
    try:
        return read_regular(run / LAUNCH, 4096).decode()
    except (OSError, UnicodeDecodeError):
        return ""


def _begin(spec: RunSpec, launched: RankLauncher | None) -> Run:
    return new_run(prepare_job(resolved(spec)), paths.home(), launched, attached=True)


def _resume(path: Path, launch: Launch, launched: RankLauncher | None, trusted_owner: str) -> Run:
    recorded = resumable_run(path, trusted_owner)
    if launch.key and recorded.spec.processes != launch.world_size:
        raise Invalid(
            "processes", f"{path.name} needs {recorded.spec.processes}, but torchrun started {launch.world_size}"
        )
    path = path.absolute()
    enter_working_folder(recorded.task_record)
    job = prepare_job(recorded.spec, task_record=recorded.task_record)
    return resumed_run(job, recorded, path, launched, attached=True)


def _print(text: str) -> None:
    with contextlib.suppress(OSError):  # training does not depend on who reads this
        write(text)
        flush()


def _print_end(run: Path) -> None:
    events = Follower(run)
    try:
        last = [event for event in events.read_all() if not isinstance(event, reader.BadLine)][-1:]
    finally:
        events.close()
    if last and isinstance(last[0], Failed):
        write_error(f"{last[0].traceback}\n{run.name} failed: {last[0].message}\n{last[0].advice}\n")
        return
    summary = index.summarize(run)
    facts = msgspec.structs.asdict(summary)
    figures = ", ".join(
        f"{name} {facts[name]:g}" for name in ("steps", "final_loss", "test_loss") if facts[name] is not None
    )
    note = f"; {summary.note}" if summary.state == "unsaved" else ""
    _print(f"{run.name} {summary.state}: {figures}{note}\n")
