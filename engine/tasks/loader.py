"""The user's file: executed afresh every time, its function called, its task tried with two rows.

Whatever goes wrong is said with the user's own line.
"""

from __future__ import annotations

import difflib
import inspect
import linecache
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epochtop.engine.models.trace import mapped, tensors_of
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks.shape_errors import explain_shapes
from epochtop.engine.tasks.task import Task
from epochtop.engine.tasks.tracebacks import explain_user_error, is_of, user_line

BROADCAST = "Using a target size"
"""Beginning of torch's warning about outputs and labels that are compared crosswise."""


def load(text: str) -> Task:
    """See :func:`epochtop.engine.tasks.loader.load_task`."""
    file, name = parse_task(text)
    with _importable(file):
        try:
            module = _execute(file)
            task = _function(module, name, file)()
        except Invalid:
            raise
        except (Exception, SystemExit) as error:
            raise Invalid("task", explain_user_error(error, file)) from error
        if not isinstance(task, Task):
            raise Invalid("task", f"{file.name}: {name}() returned {_said(task)}; it must return an epochtop.Task")
        try_out(task, file)
    return task


def parse_task(text: str) -> tuple[Path, str]:
    """File, absolute, and function of `PATH.py:FUNCTION`. Raises Invalid where there is no such file."""
    path, colon, name = text.rpartition(":")
    if not colon or not path or not name.isidentifier():
        raise Invalid("task", f"{text!r} is not PATH.py:FUNCTION, for example train_me.py:make_task")
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise Invalid("task", f"{path}: {'is a folder' if file.is_dir() else 'there is no such file'}")
    return file, name


@contextmanager
def _importable(file: Path) -> Iterator[None]:
    """The modules beside `file` can be imported, and are read again the next time; nothing is written beside it."""
    folder, writes, before = str(file.parent), sys.dont_write_bytecode, set(sys.modules)
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            source = getattr(sys.modules[name], "__file__", None)
            if source and is_of(Path(source), file) and Path(source) != file:
                del sys.modules[name]


def _execute(file: Path) -> ModuleType:
    """The module, under a name of its own: pickles of its classes find it for as long as this process lives."""
    try:
        source = file.read_bytes()
    except OSError as error:
        raise Invalid("task", f"{file}: {error.strerror}") from None
    linecache.checkcache(str(file))
    code = compile(source, str(file), "exec")
    module = ModuleType(f"task_of_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)
    return module


def _function(module: ModuleType, name: str, file: Path) -> Callable[[], Any]:
    function = getattr(module, name, None)
    if function is None:
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        close = difflib.get_close_matches(name, own, n=1) or own[:5]
        hint = f"it has {', '.join(close)}" if close else "it has no function at all"
        raise Invalid("task", f"{file.name} has no function {name}; {hint}")
    if not callable(function):
        raise Invalid("task", f"{file.name}: {name} is {_said(function)}, not a function")
    needed = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise Invalid("task", f"{file.name}: {name} is called without arguments; give {', '.join(needed)} a default")
    return function  # type: ignore[no-any-return]


def _said(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


# --- a step with two rows ----------------------------------------------------------------------------------


def try_out(task: Task, file: Path) -> None:
    """Forward, loss, gradients and metrics with two rows, on the host; leaves weights, buffers and generators alone.

    Raises Invalid with what was wrong, and the user's line where there is one.
    """
    x: Any = None
    y: Any = None
    with _left_alone(task):
        try:
            x, y = _near(task, task.batch())
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                output = task.model(x)
                loss = task.loss(output, y)
            for warned in heard:
                if str(warned.message).startswith(BROADCAST):
                    raise ValueError(_crosswise(output, y))
            _check_number("the loss", loss)
            _check_gradients(task, loss)
            for name, metric in task.metrics.items():
                _check_number(
                    f"the metric {name!r}", metric(output.detach() if isinstance(output, Tensor) else output, y)
                )
        except (Exception, SystemExit) as error:
            raise Invalid("task", _explained(error, x, y, task, file)) from error


def _explained(error: BaseException, x: Any, y: Any, task: Task, file: Path) -> str:
    why = explain_shapes(error, x, task.model, y)
    if why is None:
        return explain_user_error(error, file)
    where = user_line(error, file)
    return f"{where}: {why}" if where else f"{file.name}: {why}"


def _near(task: Task, batch: tuple[Any, Any]) -> tuple[Any, Any]:
    """The batch where the model is: a file may have put it on a device already."""
    first = next(task.model.parameters(), None)
    if first is None:
        return batch
    x, y = mapped(batch, lambda value: value.to(first.device))
    return x, y


@contextmanager
def _left_alone(task: Task) -> Iterator[None]:
    """Generators, buffers and the training mode are put back."""
    modes = [(module, module.training) for module in task.model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in task.model.buffers()]
    others = random.getstate(), np.random.get_state()
    devices = sorted({weight.device.index or 0 for weight in task.model.parameters() if weight.is_cuda})
    task.model.train()
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        try:
            yield
        finally:
            random.setstate(others[0])
            np.random.set_state(others[1])
            for module, training in modes:
                module.training = training
            with torch.no_grad():
                for buffer, kept in buffers:
                    buffer.copy_(kept)


def _check_number(what: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{what} is {_said(value)}; return a tensor, the mean over the batch, without .item()")
    if value.ndim:
        raise ValueError(f"{what} has the shape {tuple(value.shape)}; return one number, for example its .mean()")


def _check_gradients(task: Task, loss: Tensor) -> None:
    trained = {name: weight for name, weight in task.model.named_parameters() if weight.requires_grad}
    if not trained:
        raise ValueError("the model has no parameter that can be trained (requires_grad)")
    if not loss.requires_grad:
        raise ValueError(
            "the loss does not depend on the model's weights; was the output detached, or put through numpy?"
        )
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    unused = [name for name, gradient in zip(trained, gradients, strict=True) if gradient is None]
    if unused:
        raise ValueError(
            f"the loss does not depend on {_some(unused)}; use it, or freeze it with .requires_grad_(False)"
        )


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _crosswise(output: Any, y: Any) -> str:
    given, wanted = (tuple(next(tensors_of(value)).shape) for value in (output, y))
    return (
        f"the output has the shape {given} and the labels {wanted}: the loss would compare every row with every "
        "other one; give both the same shape, for example with output.squeeze(1)"
    )


def load_task(text: str) -> Task:
    """The task that the function of `PATH.py:FUNCTION` returns, tried with two rows. Raises Invalid for the field task."""
    from epochtop.engine.tasks.loader import load

    return load(text)
