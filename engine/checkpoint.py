"""Checkpoints: safetensors beside a json, complete or absent, never pickled.

The json is written last and names the tensor file, so a reader that finds the json finds a whole checkpoint;
the file of the checkpoint before is removed only after that.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from engine.rundir import CHECKPOINTS, write_whole
from engine.spec import Invalid, RunSpec

Kind = Literal["last", "best"]


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The json of a checkpoint."""

    step: int
    """Steps taken: training goes on with this step."""
    spec: RunSpec
    file: str
    """Name of the safetensors file beside it."""
    values: dict[str, float | int | None]
    """Plain state: position in the epoch, learning rate, test loss."""


_decode = msgspec.json.Decoder(CheckpointInfo).decode


def write(run: Path, kind: Kind, step: int, spec: RunSpec, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write a checkpoint of tensors that lie on the host. Raises OSError; the one before then stays whole."""
    folder = run / CHECKPOINTS
    name = f"{kind}-{step}.safetensors"
    write_whole(folder / name, save({key: tensor.contiguous() for key, tensor in tensors.items()}))
    info = CheckpointInfo(step=step, spec=spec, file=name, values=values)
    write_whole(folder / f"{kind}.json", msgspec.json.format(msgspec.json.encode(info)))
    for old in folder.glob(f"{kind}-*.safetensors"):
        if old.name != name:
            with contextlib.suppress(FileNotFoundError):
                old.unlink()


def read(run: Path, kind: Kind) -> tuple[CheckpointInfo, dict[str, torch.Tensor]]:
    """The checkpoint of a run, tensors on the host. Raises Invalid when there is none or it is damaged."""
    path = run / CHECKPOINTS / f"{kind}.json"
    try:
        while True:
            content = path.read_bytes()
            info = _decode(content)
            try:
                return info, load_file(path.with_name(Path(info.file).name))
            except FileNotFoundError:
                if path.read_bytes() == content:
                    raise Invalid("", f"checkpoint {kind!r} of {run.name} has lost its file {info.file}") from None
                # a newer one took its place meanwhile
    except Invalid:
        raise
    except FileNotFoundError:
        raise Invalid("", f"{run.name} has no checkpoint {kind!r}") from None
    except Exception as error:  # safetensors raises its own kinds
        raise Invalid("", f"checkpoint {kind!r} of {run.name} cannot be read: {error}") from None
