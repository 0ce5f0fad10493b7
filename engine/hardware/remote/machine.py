"""Machine and samples from the messages of :mod:`epochtop.remote.machine`.

The files of the other machine's kernel become files in a temporary folder, so the code that identifies this machine identifies
that one too. Nothing in a message is trusted: paths are checked, and text becomes plain. Never imports torch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from epochtop.engine.hardware.cgroups import CpuQuota, MemoryLimit, Roots
from epochtop.engine.hardware.environment import container
from epochtop.engine.hardware.facts import CoreLoad, EngineLoad, Fact, Machine, Sample, UnreadableMachineError
from epochtop.engine.hardware.machine import Surroundings, machine_of
from epochtop.engine.hardware.remote.nvidia_smi import inventory_of, samples_of
from epochtop.engine.hardware.sampler import NO_SWAP, hidden_engine, load_of
from epochtop.engine.terminal.plain import plain_line, plain_text
from epochtop.remote.frames import is_file_path
from epochtop.remote.gpus import INTERVAL_S
from epochtop.remote.machine import MARKERS

MOST_FILES = 50_000
GPU_INTERVAL_S = float(INTERVAL_S)
"""Age of a reading of nvidia-smi that is not late."""


class Identity(msgspec.Struct, frozen=True):
    """What a machine is."""

    host: str
    problem: str = ""
    """Why nothing can be read; empty if it can be."""
    affinity: int = 1
    quota: tuple[float, int] | None = None
    """CPUs, and version of the control groups."""
    memory_bytes: int = 0
    memory_limits: list[tuple[int, int, int]] = []
    markers: list[str] = []
    files: dict[str, str] = {}
    """Contents by path below the root folder."""


class GpuLines(msgspec.Struct, frozen=True):
    """What nvidia-smi printed."""

    lines: list[str] = []
    age_s: float = 0.0
    problem: str = ""


class Engine(msgspec.Struct, frozen=True):
    """Load of the process that records a run; None where it is unknown."""

    pid: int
    percent: float | None = None
    memory_bytes: int | None = None


class Load(msgspec.Struct, frozen=True):
    """How busy a machine is."""

    cpu_percent: float | None
    cores: list[tuple[int, float]]
    memory_bytes: tuple[int, int]
    """Used and usable."""
    swap_bytes: tuple[int, int]
    """Used and total."""
    gpus: GpuLines
    engine: Engine | None = None


_identity, _load = msgspec.json.Decoder(Identity).decode, msgspec.json.Decoder(Load).decode


def machine_from(identity: bytes, load: bytes) -> Machine:
    """The machine of two messages. Raises UnreadableMachineError."""
    try:
        facts, gpus = _identity(identity), _load(load).gpus
        with tempfile.TemporaryDirectory(prefix="epochtop-machine-") as folder:
            root = Path(folder)
            _unpack(facts, root)
            roots = Roots(root / "proc", root / "sys")
            surroundings = Surroundings(
                host=plain_line(facts.host),
                container=container(roots, root),
                affinity=max(1, facts.affinity),
                quota=CpuQuota(*facts.quota, root) if facts.quota is not None else None,
                memory_bytes=facts.memory_bytes,
                memory_limits=[MemoryLimit(*limit) for limit in facts.memory_limits],
            )
            return machine_of(roots, surroundings, inventory_of(gpus.lines, gpus.problem), {})
    except (msgspec.MsgspecError, ValueError, OSError) as error:
        raise UnreadableMachineError(f"its figures cannot be understood: {error}") from None


def check_identity(identity: bytes) -> None:
    """Raises UnreadableMachineError if the other machine says that nothing can be read."""
    try:
        problem = _identity(identity).problem
    except msgspec.MsgspecError as error:
        raise UnreadableMachineError(f"its figures cannot be understood: {error}") from None
    if problem:
        raise UnreadableMachineError(plain_line(problem))


def sample_from(load: bytes) -> Sample:
    """The sample of a message. Raises UnreadableMachineError."""
    try:
        message = _load(load)
        gpus = samples_of(message.gpus.lines)
    except (msgspec.MsgspecError, ValueError) as error:
        raise UnreadableMachineError(f"its figures cannot be understood: {error}") from None
    swap_used, swap_total = message.swap_bytes
    return Sample(
        cpu_percent=load_of(message.cpu_percent),
        core_percents=tuple(CoreLoad(*core) for core in message.cores),
        memory_used_bytes=message.memory_bytes[0],
        memory_usable_bytes=message.memory_bytes[1],
        swap_used_bytes=Fact(swap_used) if swap_total else Fact(reason=NO_SWAP),
        swap_total_bytes=Fact(swap_total) if swap_total else Fact(reason=NO_SWAP),
        engine=_engine(message.engine),
        gpus=gpus,
        gpu_age_s=max(0.0, message.gpus.age_s - GPU_INTERVAL_S),
        gpu_count=len(gpus),
    )


def _engine(engine: Engine | None) -> EngineLoad | None:
    if engine is None:
        return None
    if engine.memory_bytes is None:
        return hidden_engine(engine.pid)
    return EngineLoad(pid=engine.pid, cpu_percent=load_of(engine.percent), memory_bytes=Fact(engine.memory_bytes))


def _unpack(facts: Identity, root: Path) -> None:
    """Write the files of a machine below `root`. Raises ValueError for a path that leads elsewhere, and OSError."""
    if len(facts.files) > MOST_FILES:
        raise ValueError(f"it sent more than {MOST_FILES:,} files")
    for name in ("proc", "sys"):
        (root / name).mkdir()
    for path, text in facts.files.items():
        if not is_file_path(path) or not path.startswith(("proc/", "sys/")):
            raise ValueError("it sent an invalid file name")
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(plain_text(text), encoding="utf-8")
    for marker in MARKERS:
        if marker in facts.markers:
            (root / marker).parent.mkdir(exist_ok=True)
            (root / marker).touch()
