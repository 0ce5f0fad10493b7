"""Exports of a run: TensorBoard event files, weights as safetensors or state_dict, the model as ONNX.

Every function writes to `output`, by default to a file in the current folder named after the run, and returns lines to
print: the path, then how to use it. Packages that only one format needs are imported there. Must never write into the run.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch

from epochtop.engine.inference import tensorboard
from epochtop.engine.inference.flat_model import FlatModel
from epochtop.engine.inference.trained_model import TrainedModel, load, preparation_of, report_changes, weights
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.files import remove_left_overs_of, remove_old, write_atomically
from epochtop.engine.runs.reader import read_record
from epochtop.engine.tasks.errors.tracebacks import user_line

_NEW_FILES = re.compile(r"\.new-[a-z0-9_]{8}")
"""Folders that event files are written to before they are complete."""
MAX_ONNX_BYTES = 2**31
"""Largest protobuf message."""


def export_tensorboard(run: Path, output: Path | None) -> list[str]:
    """Write event files to a folder and replace those of an earlier export. Raises Invalid."""
    folder = output or Path("tensorboard") / run.name
    with _package("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
    pattern = f"*{tensorboard.SUFFIX}"
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_old(folder, _NEW_FILES)
        earlier = list(folder.glob(pattern))
        if set(folder.glob("*tfevents*")) - set(earlier):
            raise Invalid("", f"{folder} has event files of another program; give --output an empty folder")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as aside:
            writer = SummaryWriter(aside, filename_suffix=tensorboard.SUFFIX)
            tensorboard.write(run, writer)
            writer.close()
            for old in earlier:
                old.unlink()
            for new in Path(aside).glob(pattern):
                shutil.move(new, folder / new.name)
    return [str(folder), f"view it with: tensorboard --logdir {folder}"]


def export_safetensors(run: Path, output: Path | None) -> list[str]:
    """Write the evaluated weights, with the run's spec and preparation as metadata. Raises Invalid."""
    from safetensors.torch import save

    evaluated, path = weights(run), output or Path(f"{run.name}.safetensors")
    tensors = {name: tensor.contiguous() for name, tensor in evaluated.tensors.items()}
    with _writing(path):
        write_atomically(path, save(tensors, {"format": "pt", "step": str(evaluated.step), **_about(run)}))
    missing = ", ".join(evaluated.extras)
    note = [f"it has no {missing}, because safetensors holds tensors only; use --format torch"] if missing else []
    return [str(path), f'load it with: safetensors.torch.load_file("{path}")  # names and tensors', *note]


def export_torch(run: Path, output: Path | None) -> list[str]:
    """Write the evaluated weights as a state_dict that `torch.load` reads with weights_only. Raises Invalid."""
    evaluated, path = weights(run), output or Path(f"{run.name}.pt")
    content = io.BytesIO()
    torch.save(evaluated.tensors | evaluated.extras, content)
    with _writing(path):
        write_atomically(path, content.getvalue())
    return [str(path), f'load it with: model.load_state_dict(torch.load("{path}", weights_only=True))']


def export_onnx(run: Path, output: Path | None, trusted_owner: str = "") -> list[str]:
    """Write the model from prepared rows to outputs, with spec and preparation as metadata. Raises Invalid.

    `trusted_owner` is another owner of the run whose task may be executed.
    """
    with _package("onnx", "onnxscript"):
        import onnx
        import onnxscript  # noqa: F401 - torch.onnx needs it
    trained, path = load(run, trusted_owner), output or Path(f"{run.name}.onnx")
    report_changes(trained)
    if sum(tensor.nbytes for tensor in trained.weights.tensors.values()) >= MAX_ONNX_BYTES:
        raise Invalid("", "an ONNX file holds at most 2 GiB, but the weights are larger; use safetensors or torch")
    model = _onnx(trained)
    onnx.helper.set_model_props(model, {"step": str(trained.weights.step), **_about(run)})
    with _writing(path):
        write_atomically(path, model.SerializeToString())
    inputs = ", ".join(repr(value.name) for value in model.graph.input)
    if trained.task is not None:
        return [
            str(path),
            f"its input {inputs} takes rows of the task" + ", one tensor each" * (len(model.graph.input) > 1),
        ]
    return [
        str(path),
        f"its input {inputs} takes prepared rows: columns encoded and scaled as described by the metadata 'preparation'",
    ]


def _onnx(trained: TrainedModel) -> Any:
    """The model as an onnx.ModelProto. Raises Invalid if torch cannot translate it."""
    if any(isinstance(part, torch.jit.ScriptModule) for part in trained.model.modules()):
        raise Invalid("", "torch cannot translate a scripted model to ONNX; train it without torch.jit.script")
    flat, rows = FlatModel(trained.model, trained.example), torch.export.Dim("rows")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns about missing torchvision, which is not needed
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # torch prints graphs that it cannot translate
            program = torch.onnx.export(
                flat,
                flat.inputs,
                dynamic_shapes=(({0: rows},) * len(flat.inputs),),
                input_names=flat.input_names,
                output_names=flat.output_names,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        return program.model_proto
    except Exception as error:
        raise Invalid("", f"torch cannot translate this model to ONNX: {_why(error, trained.spec.task)}") from None


def _why(error: Exception, task: str) -> str:
    """The first line of torch's error message, after the place in the user's file if there is one."""
    cause = error.__cause__ or error
    first = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    where = user_line(error, Path(task.rpartition(":")[0])) if task else ""
    return f"{where}: {first}" if where else first


FORMATS: dict[str, Callable[[Path, Path | None], list[str]]] = {
    "tensorboard": export_tensorboard,
    "safetensors": export_safetensors,
    "torch": export_torch,
}
"""Formats that execute no code of the run."""


def _about(run: Path) -> dict[str, str]:
    """Metadata for readers of the weights, as json."""
    spec = read_record(run).spec
    about = {"run": run.name, "spec": msgspec.json.encode(spec).decode()}
    if not spec.task:
        about["preparation"] = msgspec.json.encode(preparation_of(run)).decode()
    return about


@contextlib.contextmanager
def _package(*names: str) -> Iterator[None]:
    """Raise Invalid with an install command if a package is missing."""
    try:
        yield
    except ImportError as error:
        command = f"pip install {' '.join(names)}"
        raise Invalid("", f"this format needs {' and '.join(names)}: {command} ({error})") from None


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        remove_left_overs_of(path)
        yield
    except OSError as error:
        raise Invalid("", f"cannot write {path}: {error.strerror}") from None
