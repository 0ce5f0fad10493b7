"""A run for other programs: TensorBoard's event files, weights as safetensors or state_dict, the model as ONNX.

Each function writes to `output`, or to a place in the current folder named after the run, and returns what to tell:
the path first. Packages that only one of them needs are imported there.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from epochtop.engine.inference import tensorboard
from epochtop.engine.inference.trained_model import Trained, load, preparation_of, weights
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.reader import read_record
from epochtop.engine.runs.writer import write_atomically
from epochtop.engine.tasks.tracebacks import user_line

MOST_ONNX_BYTES = 2**31
"""A protobuf message cannot be longer."""


def export_tensorboard(run: Path, output: Path | None) -> list[str]:
    """Event files in a folder, in place of those of an export before. Raises Invalid."""
    folder = output or Path("tensorboard") / run.name
    with _package("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
    mine = f"*{tensorboard.SUFFIX}"
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        earlier = list(folder.glob(mine))
        if set(folder.glob("*tfevents*")) - set(earlier):
            raise Invalid("", f"{folder} has event files of another program; give --output a folder of its own")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as aside:
            writer = SummaryWriter(aside, filename_suffix=tensorboard.SUFFIX)
            tensorboard.write(run, writer)
            writer.close()
            for old in earlier:
                old.unlink()
            for new in Path(aside).glob(mine):
                shutil.move(new, folder / new.name)
    return [str(folder), f"look at it with: tensorboard --logdir {folder}"]


def export_safetensors(run: Path, output: Path | None) -> list[str]:
    """The evaluated weights, with the run's spec and preparation as metadata. Raises Invalid."""
    from safetensors.torch import save

    found, path = weights(run), output or Path(f"{run.name}.safetensors")
    tensors = {name: tensor.contiguous() for name, tensor in found.tensors.items()}
    with _writing(path):
        write_atomically(path, save(tensors, {"format": "pt", "step": str(found.step), **_about(run)}))
    return [str(path), f'load it with: safetensors.torch.load_file("{path}")  # names and tensors']


def export_torch(run: Path, output: Path | None) -> list[str]:
    """The evaluated weights as a state_dict that `torch.load` reads without pickled code. Raises Invalid."""
    found, path = weights(run), output or Path(f"{run.name}.pt")
    content = io.BytesIO()
    torch.save(found.tensors, content)
    with _writing(path):
        write_atomically(path, content.getvalue())
    return [str(path), f'load it with: model.load_state_dict(torch.load("{path}", weights_only=True))']


def export_onnx(run: Path, output: Path | None) -> list[str]:
    """The model from prepared rows to outputs, any number of rows, with spec and preparation as metadata. Raises Invalid."""
    with _package("onnx", "onnxscript"):
        import onnx
        import onnxscript  # noqa: F401 - torch.onnx needs it
    trained, path = load(run), output or Path(f"{run.name}.onnx")
    if sum(tensor.nbytes for tensor in trained.weights.tensors.values()) >= MOST_ONNX_BYTES:
        raise Invalid("", "an ONNX file holds at most 2 GiB, and the weights have more; use safetensors or torch")
    made = _onnx(trained)
    onnx.helper.set_model_props(made, {"step": str(trained.weights.step), **_about(run)})
    with _writing(path):
        write_atomically(path, made.SerializeToString())
    inputs = ", ".join(value.name for value in made.graph.input)
    return [str(path), f"it takes prepared rows as {inputs!r}: features scaled as the metadata 'preparation' says"]


def _onnx(trained: Trained) -> Any:
    """The model as an onnx.ModelProto. Raises Invalid where torch cannot translate it."""
    example, rows = trained.example, torch.export.Dim("rows")
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it warns that torchvision is not there, which nobody needs
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # where torch prints the graph that it could not translate
            program = torch.onnx.export(
                trained.model,
                (example,),
                dynamic_shapes=(_by_rows(example, rows),),
                input_names=["input"] if isinstance(example, Tensor) else None,
                output_names=["output"],
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        return program.model_proto
    except Exception as error:
        raise Invalid("", f"torch cannot translate this model to ONNX: {_why(error, trained.spec.task)}") from None


def _why(error: Exception, task: str) -> str:
    """The first line of what torch says of its cause, behind the user's own line where there is one."""
    cause = error.__cause__ or error
    said = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    where = user_line(error, Path(task.rpartition(":")[0])) if task else ""
    return f"{where}: {said}" if where else said


def _by_rows(example: Any, rows: Any) -> Any:
    """The first dimension of every tensor is open."""
    if isinstance(example, Tensor):
        return {0: rows}
    if isinstance(example, dict):
        return {name: _by_rows(part, rows) for name, part in example.items()}
    if isinstance(example, list | tuple):
        return type(example)(_by_rows(part, rows) for part in example)
    return None


FORMATS: dict[str, Callable[[Path, Path | None], list[str]]] = {
    "tensorboard": export_tensorboard,
    "safetensors": export_safetensors,
    "onnx": export_onnx,
    "torch": export_torch,
}


def _about(run: Path) -> dict[str, str]:
    """What a reader of the weights must know, as json."""
    spec = read_record(run).spec
    about = {"run": run.name, "spec": msgspec.json.encode(spec).decode()}
    if not spec.task:
        about["preparation"] = msgspec.json.encode(preparation_of(run)).decode()
    return about


@contextlib.contextmanager
def _package(*names: str) -> Iterator[None]:
    """Raises Invalid with the command that installs what is missing."""
    try:
        yield
    except ImportError as error:
        command = f"pip install {' '.join(names)}"
        raise Invalid("", f"this format needs {' and '.join(names)}: {command} ({error})") from None


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Invalid("", f"cannot write {path}: {error.strerror}") from None
