"""Checkpoints: a safetensors file and a json file, complete or absent, never pickled.

The json is written last and names the tensor file, so a checkpoint with a json is complete. The previous tensor file is
removed only after that.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
from safetensors.torch import load_file, save
from torch import Tensor

from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.ownership import check_file
from epochtop.engine.runs.paths import CHECKPOINTS
from epochtop.engine.runs.writer import write_atomically

Kind = str
"""`last`, `best`, or `epoch-N` for checkpoints that are kept."""


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of a checkpoint's json file."""

    step: int
    """Steps taken: training continues with this step."""
    spec: RunSpec
    file: str
    """Name of the safetensors file in the same folder."""
    values: dict[str, float | int | None]
    """Plain values: position in the epoch, learning rate, schedule, test loss."""


_decode = msgspec.json.Decoder(CheckpointInfo).decode


def write(run: Path, kind: Kind, step: int, spec: RunSpec, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write a checkpoint of tensors on the host. Raises OSError; the previous checkpoint then stays complete."""
    folder = run / CHECKPOINTS
    name = f"{kind}-{step}.safetensors"
    write_atomically(folder / name, save({key: tensor.contiguous() for key, tensor in tensors.items()}))
    info = CheckpointInfo(step=step, spec=spec, file=name, values=values)
    write_atomically(folder / f"{kind}.json", msgspec.json.format(msgspec.json.encode(info)))
    for old in folder.glob(f"{kind}-*.safetensors"):
        if old.name != name:
            with contextlib.suppress(FileNotFoundError):
                old.unlink()


def exists(run: Path, kind: Kind) -> bool:
    """Whether the run has a checkpoint of this kind."""
    return (run / CHECKPOINTS / f"{kind}.json").exists()


def read_info(run: Path, kind: Kind) -> CheckpointInfo:
    """The json of a checkpoint. Raises Invalid if it is missing or damaged."""
    path = run / CHECKPOINTS / f"{kind}.json"
    check_file(run, path)
    try:
        return _decode(path.read_bytes())
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
            return info, load_file(path)
        except FileNotFoundError:
            newer = read_info(run, kind)
            if newer == info:
                raise Invalid("", f"checkpoint {kind!r} of {run.name} has lost its file {info.file}") from None
            info = newer  # the engine has replaced the checkpoint meanwhile
        except Exception as error:  # safetensors has its own exceptions
            raise Invalid("", f"checkpoint {kind!r} of {run.name} cannot be read: {error}") from None
