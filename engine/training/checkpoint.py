"""Checkpoints: a safetensors file and a json file, complete or absent, never pickled.

The json is written last and names the tensor file with its checksum, so a checkpoint with a json is complete, and damage is
noticed before anything is trained from it. The previous tensor file is
removed only after that. The checkpoint before `last` stays as `previous` while a run trains, in case `last` is damaged. Its
space is released first when the next one is written, so a save never needs more room than the one before.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import msgspec
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from epochtop.engine.protocol.spec import Invalid, RunSpec, Steps
from epochtop.engine.runs.files import write_atomically
from epochtop.engine.runs.ownership import check_file
from epochtop.engine.runs.paths import CHECKPOINTS
from epochtop.engine.runs.regular import check_regular, read_regular

Kind = str
"""`last`, `previous`, `best`, or `epoch-N` for checkpoints that are kept."""
LAST: Kind = "last"
"""The newest state of a run, to resume from."""
BEST: Kind = "best"
"""The weights with the lowest loss on held-out rows."""
PREVIOUS: Kind = "previous"
"""The state before the newest one."""

RESUME_VALUES = ("rows_taken_of_epoch", "learning_rate")
"""Plain values that training cannot continue without."""

_TENSOR_FILE = re.compile(r"(last|best|epoch-\d+)-\d+\.safetensors")


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of a checkpoint's json file."""

    step: Steps
    """Steps taken: training continues with this step."""
    spec: RunSpec
    file: str
    """Name of the safetensors file in the same folder."""
    values: dict[str, float | int | None]
    """Plain values: position in the epoch, learning rate, schedule, test loss."""
    sha256: str = ""
    """SHA-256 of the tensor file, in hexadecimal; empty in checkpoints of older versions."""


_decode = msgspec.json.Decoder(CheckpointInfo).decode


# --- writing ---------------------------------------------------------------------------------------------------


def write(run: Path, kind: Kind, step: int, spec: RunSpec, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write a checkpoint of tensors on the host. Raises OSError; the checkpoint before it then stays complete."""
    folder = run / CHECKPOINTS
    name = f"{kind}-{step}.safetensors"
    if kind == LAST:
        remove_previous(run)
    try:
        content = save({key: tensor.contiguous() for key, tensor in tensors.items()})
        write_atomically(folder / name, content)
        if kind == LAST:
            _keep_as_previous(folder, step)
        info = CheckpointInfo(step=step, spec=spec, file=name, values=values, sha256=sha256(content).hexdigest())
        write_atomically(folder / f"{kind}.json", msgspec.json.format(msgspec.json.encode(info)))
    finally:
        remove_unnamed(run, kind)


def remove_previous(run: Path) -> None:
    """Remove the checkpoint before `last`, if there is one."""
    with contextlib.suppress(OSError):
        (run / CHECKPOINTS / f"{PREVIOUS}.json").unlink(missing_ok=True)
    remove_unnamed(run, LAST)


def remove_unnamed(run: Path, kind: Kind | None = None) -> None:
    """Remove tensor files of a kind (None: of all kinds) that no json names: replaced ones, and those of failed saves."""
    folder = run / CHECKPOINTS
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):  # a damaged json may name any file
        named = {_decode(read_regular(path)).file for path in folder.glob("*.json")}
        for path in folder.iterdir():
            match = _TENSOR_FILE.fullmatch(path.name)
            if match and match[1] == (kind or match[1]) and path.name not in named:
                path.unlink()


def _keep_as_previous(folder: Path, step: int) -> None:
    """Name the current `last` `previous`, unless it is damaged or of the same `step`, which is about to replace it."""
    last, previous = folder / f"{LAST}.json", folder / f"{PREVIOUS}.json"
    try:
        content = read_regular(last)
        if _decode(content).step == step:
            return
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return
    try:
        previous.hardlink_to(last)  # needs no sync of its own, which would delay the answer to a command
    except OSError:  # a file system without links
        write_atomically(previous, content)


# --- reading ---------------------------------------------------------------------------------------------------


def exists(run: Path, kind: Kind) -> bool:
    """Whether the run has a checkpoint of this kind, intact or not."""
    return os.path.lexists(run / CHECKPOINTS / f"{kind}.json")


def read_info(run: Path, kind: Kind) -> CheckpointInfo:
    """The json of a checkpoint. Raises Invalid if it is missing or damaged."""
    path = run / CHECKPOINTS / f"{kind}.json"
    check_file(run, path)
    try:
        return _decode(read_regular(path))
    except FileNotFoundError:
        raise Invalid("", f"{run.name} has no checkpoint {kind!r}") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("", f"checkpoint {kind!r} of {run.name} cannot be read: {error}") from None


def read(run: Path, kind: Kind) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    """A checkpoint with its tensors on the host. Raises Invalid if it is missing or damaged."""
    info = read_info(run, kind)
    while True:
        path = run / CHECKPOINTS / Path(info.file).name
        check_file(run, path)
        try:
            check_regular(path)
            tensors = load_file(path)
            if _is_intact(path, info):
                return info, tensors
            problem = f"is damaged: {info.file} is not the file that was saved"
        except FileNotFoundError:
            problem = f"has lost its file {info.file}"
        except Exception as error:  # safetensors has its own exceptions
            problem = f"cannot be read: {error}"
        newer = read_info(run, kind)
        if newer == info:
            raise Invalid("", f"checkpoint {kind!r} of {run.name} {problem}")
        info = newer  # the engine has replaced the checkpoint meanwhile


def intact_info(run: Path, kind: Kind) -> CheckpointInfo:
    """The json of a checkpoint whose tensor file is the one that was saved. Raises Invalid if it is missing or damaged."""
    info = read_info(run, kind)
    path = run / CHECKPOINTS / Path(info.file).name
    check_file(run, path)
    try:
        check_regular(path)
        with safe_open(path, framework="pt"):
            intact = _is_intact(path, info)
    except Exception as error:
        raise Invalid("", f"checkpoint {kind!r} of {run.name} cannot be read: {error}") from None
    if not intact:
        raise Invalid("", f"checkpoint {kind!r} of {run.name} is damaged: {info.file} is not the file that was saved")
    return info


def _is_intact(path: Path, info: CheckpointInfo) -> bool:
    """Whether a tensor file has the checksum of its json; older versions wrote none. Raises OSError."""
    if not info.sha256:
        return True
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest() == info.sha256


def newest_step(run: Path, kinds: Sequence[Kind]) -> int | None:
    """The step of the first intact checkpoint of `kinds`, the newest first; None if there is none."""
    for kind in kinds:
        with contextlib.suppress(Invalid):
            return intact_info(run, kind).step
    return None


@dataclass(frozen=True)
class Newest:
    """The newest intact checkpoint of some kinds; without one, `info` is None."""

    info: CheckpointInfo | None
    tensors: dict[str, Tensor]
    kind: Kind = ""
    problems: Sequence[str] = ()
    """What is wrong with newer ones, one sentence each."""


def newest(run: Path, kinds: Sequence[Kind], steps: float = float("inf"), values: Sequence[str] = ()) -> Newest:
    """The first intact checkpoint of `kinds`, the newest first, with these values and at most `steps` steps."""
    problems: list[str] = []
    for kind in (kind for kind in kinds if exists(run, kind)):
        try:
            info, tensors = read(run, kind)
        except Invalid as error:
            problems.append(error.message)
            continue
        missing = [name for name in values if info.values.get(name) is None]
        if missing:
            problems.append(f"checkpoint {kind!r} of {run.name} has no value {' and no '.join(map(repr, missing))}")
            continue
        if info.step <= steps:
            return Newest(info, tensors, kind, problems)
        problems.append(f"checkpoint {kind!r} is of step {info.step:,}, but the log ends at step {steps:,.0f}")
    return Newest(None, {}, problems=problems)
