"""Checkpoints: safetensors beside a json, complete or absent, never pickled.

The json is written last and names the tensor file, so a reader that finds the json finds a whole checkpoint;
the file of the checkpoint before is removed only after that.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
from safetensors.torch import load_file, save
from torch import Tensor

from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.paths import CHECKPOINTS
from epochtop.engine.runs.writer import write_atomically

Kind = str
"""`last`, `best`, or `epoch-N` for those that are kept."""


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The json of a checkpoint."""

    step: int
    """Steps taken: training goes on with this step."""
    spec: RunSpec
    file: str
    """Name of the safetensors file beside it."""
    values: dict[str, float | int | None]
    """Plain state: position in the epoch, learning rate, schedule, test loss."""


_decode = msgspec.json.Decoder(CheckpointInfo).decode


def write(run: Path, kind: Kind, step: int, spec: RunSpec, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write a checkpoint of tensors that lie on the host. Raises OSError; the one before then stays whole."""
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
    """Whether a checkpoint of this kind was written."""
    return (run / CHECKPOINTS / f"{kind}.json").exists()


def read_info(run: Path, kind: Kind) -> CheckpointInfo:
    """The json of a checkpoint. Raises Invalid when there is none or it is damaged."""
    try:
        return _decode((run / CHECKPOINTS / f"{kind}.json").read_bytes())
    except FileNotFoundError:
        raise Invalid("", f"{run.name} has no checkpoint {kind!r}") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("", f"checkpoint {kind!r} of {run.name} cannot be read: {error}") from None


def read(run: Path, kind: Kind) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    """The checkpoint of a run, tensors on the host. Raises Invalid when there is none or it is damaged."""
    info = read_info(run, kind)
    while True:
        try:
            return info, load_file(run / CHECKPOINTS / Path(info.file).name)
        except FileNotFoundError:
            newer = read_info(run, kind)
            if newer == info:
                raise Invalid("", f"checkpoint {kind!r} of {run.name} has lost its file {info.file}") from None
            info = newer  # it took the other's place meanwhile
        except Exception as error:  # safetensors raises its own kinds
            raise Invalid("", f"checkpoint {kind!r} of {run.name} cannot be read: {error}") from None
