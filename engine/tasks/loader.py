"""Loads a custom task: executes the user's file, calls its function, and tries the task with two rows.

The file is executed again on every load. Every error names the user's line.
"""

from __future__ import annotations

import difflib
import inspect
import linecache
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from epochtop.engine.device import generators
from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.models.attributes import restored_attributes
from epochtop.engine.models.nested import mapped, tensors_of
from epochtop.engine.models.set_metric import SetMetric, fresh
from epochtop.engine.protocol.record import TaskRecord
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks import sources, user_state
from epochtop.engine.tasks.dict_rows import with_paired_rows
from epochtop.engine.tasks.loss_module import PREFIX, LossModule, module_of, modules_of
from epochtop.engine.tasks.shape_errors import explain_shapes
from epochtop.engine.tasks.task import MODULE_PREFIX, Task
from epochtop.engine.tasks.tracebacks import explain_user_error, is_of, user_line
from epochtop.engine.tasks.traits import BatchWatch, TaskTraits

HOST = torch.device("cpu")
BROADCAST = "Using a target size"
"""First words of torch's warning that a loss broadcasts outputs against labels."""


@dataclass(frozen=True)
class LoadedTask:
    """A task and the code that it was loaded from."""

    task: Task
    record: TaskRecord
    traits: TaskTraits = TaskTraits()  # noqa: RUF009 - frozen
    """What its trial showed."""


def load_task(text: str, stored: TaskRecord | None = None) -> Task:
    """The task of :func:`load_recorded`, without its record."""
    return load_recorded(text, stored).task


def load_recorded(text: str, stored: TaskRecord | None = None) -> LoadedTask:
    """The task that FUNCTION in `PATH.py:FUNCTION` returns, tried with two rows. Raises Invalid for the field `task`.

    Executes the sources in `stored` instead of the files, if it has them.
    """
    stored = stored if stored is not None and stored.stored else None
    file, name = parse_task(text, must_exist=stored is None)
    with _importable(file) as imported, sources.in_place_of_files(stored) if stored else nullcontext():
        content = _content(file) if stored is None else b""
        try:
            module = _execute(file, content if stored is None else stored.sources[0].text or "")
            task = _function(module, name, file)()
        except Invalid:
            raise
        except (Exception, SystemExit) as error:
            raise Invalid("task", explain_user_error(error, file)) from error
        if not isinstance(task, Task):
            raise Invalid("task", f"{file.name}: {name}() returned {_describe(task)}; it must return an epochtop.Task")
        try:
            task = with_paired_rows(task)
        except Exception as error:
            raise Invalid("task", explain_user_error(error, file)) from error
        traits = try_out(task, file)
        record = stored or sources.task_record(file, content, imported())
    return LoadedTask(task, record, traits)


def parse_task(text: str, must_exist: bool = True) -> tuple[Path, str]:
    """Absolute path and function name of `PATH.py:FUNCTION`. Raises Invalid if there is no such file."""
    path, colon, name = text.rpartition(":")
    if not colon or not path or not name.isidentifier():
        raise Invalid("task", f"{text!r} is not PATH.py:FUNCTION, for example train_me.py:make_task")
    file = Path(path).expanduser().absolute()
    if must_exist and not file.is_file():
        raise Invalid(
            "task", f"{path} is a folder; name a Python file in it" if file.is_dir() else f"there is no file {path}"
        )
    return file, name


@contextmanager
def _importable(file: Path) -> Iterator[Callable[[], dict[str, Path]]]:
    """Let the file import modules in its folder, freshly every time, without writing bytecode next to it.

    Yields a function that returns the files of the modules imported so far, by name.
    """
    folder, dont_write_bytecode, modules_before = str(file.parent), sys.dont_write_bytecode, set(sys.modules)

    def imported() -> dict[str, Path]:
        files = {
            name: Path(source)
            for name in set(sys.modules) - modules_before
            if (source := getattr(sys.modules[name], "__file__", None))
        }
        return {name: path for name, path in files.items() if is_of(path, file) and path != file}

    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    sources.forget_stored_lines(file.parent)
    try:
        yield imported
    finally:
        sys.dont_write_bytecode = dont_write_bytecode
        sys.path.remove(folder)
        for name in imported():
            del sys.modules[name]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Invalid("task", f"{file} cannot be read: {error.strerror}") from None


def _execute(file: Path, source: bytes | str) -> ModuleType:
    """Execute the source of the file as a module; it stays in sys.modules, so that its classes can be pickled."""
    linecache.checkcache(str(file))
    code = compile(source, str(file), "exec")
    module = ModuleType(f"{MODULE_PREFIX}{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)
    return module


def _function(module: ModuleType, name: str, file: Path) -> Callable[[], Any]:
    function = getattr(module, name, None)
    if function is None:
        defined = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        suggestions = difflib.get_close_matches(name, defined, n=1) or defined[:5]
        hint = f"it has {', '.join(suggestions)}" if suggestions else "it defines no functions"
        raise Invalid("task", f"{file.name} has no function {name}; {hint}")
    if not callable(function):
        raise Invalid("task", f"{file.name}: {name} is {_describe(function)}, not a function")
    required = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise Invalid(
            "task", f"{file.name}: {name} is called without arguments; give {', '.join(required)} a default value"
        )
    return function  # type: ignore[no-any-return]


def _describe(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


# --- a trial step with two rows ----------------------------------------------------------------------------


def try_out(task: Task, file: Path) -> TaskTraits:
    """Run the forward pass, loss, gradients and metrics with two rows; restores buffers and random generators.

    Returns what the trial shows about the task. Raises Invalid with the problem and the user's line, if there is one.
    """
    x: Any = None
    y: Any = None
    with _restored_state(task, file), _restored(task):
        try:
            x, y = _on_model_device(task, task.batch())
            watch = BatchWatch((x, y))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                output = task.model(x)
                loss = task.loss(output, y)
            for warning in caught:
                if str(warning.message).startswith(BROADCAST):
                    raise ValueError(_broadcast_problem(output, y))
            _check_number("the loss", loss)
            unused, needs_backward = _tried_gradients(task, (x, y), loss)
            _try_metrics(task, mapped(output, torch.Tensor.detach), y)
            return TaskTraits(watch.changed(), unused, needs_backward)
        except (Exception, SystemExit) as error:
            raise Invalid("task", _explained(error, x, y, task, file)) from error


def trains_on(task: Task, rows: int) -> bool:
    """Whether the task computes a training loss of its first `rows` rows, which BatchNorm refuses for a single row.

    For one row the loss must be finite, unless that of two rows is not finite either.
    """
    loss = _loss_of(task, rows)
    if loss is None or rows > 1 or loss.isfinite():
        return loss is not None
    more = _loss_of(task, 2)
    return more is None or not bool(more.isfinite())


def _loss_of(task: Task, rows: int) -> Tensor | None:
    """The training loss of the first rows; None if the task fails for another reason than memory."""
    with _restored(task):
        try:
            x, y = _on_model_device(task, task.batch(rows))
            return task.loss(task.model(x), y).detach()
        except Exception as error:
            return torch.zeros(()) if is_out_of_memory(error) else None


def _explained(error: BaseException, x: Any, y: Any, task: Task, file: Path) -> str:
    explanation = explain_shapes(error, x, task.model, y)
    if explanation is None:
        return explain_user_error(error, file)
    line = user_line(error, file)
    return f"{line}: {explanation}" if line else f"{file.name}: {explanation}"


def _on_model_device(task: Task, batch: tuple[Any, Any]) -> tuple[Any, Any]:
    """The batch on the model's device, and the loss too; the user's file may have moved the model already."""
    first = next(task.model.parameters(), None)
    if first is None:
        return batch
    loss_module = module_of(task.loss, task.model)
    if loss_module is not None:
        loss_module.to(first.device)
    x, y = mapped(batch, lambda value: value.to(first.device))
    return x, y


@contextmanager
def _restored(task: Task) -> Iterator[None]:
    """Restore random generators, buffers, and counters and training modes of modules afterwards."""
    parts = modules_of(task)
    buffers = [(buffer, buffer.detach().clone()) for part in parts for buffer in part.buffers()]
    devices = sorted({weight.device.index or 0 for weight in task.model.parameters() if weight.is_cuda})
    forks = torch.random.fork_rng(devices=devices), generators.forked(HOST, task.generator_owners())
    with forks[0], forks[1], ExitStack() as attributes, torch.enable_grad():
        for part in parts:
            attributes.enter_context(restored_attributes(part))
        task.model.train()
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, values in buffers:
                    buffer.copy_(values)


def _try_metrics(task: Task, output: Any, y: Any) -> None:
    for name, metric in task.metrics.items():
        if not isinstance(metric, SetMetric):
            _check_number(f"the metric {name!r}", metric(output, y))
            continue
        device = next((tensor.device for tensor in tensors_of(output)), torch.device("cpu"))
        trial = fresh(metric, device)
        trial.update(output, y)
        try:
            result = trial.compute()
        except Exception:  # two rows may be too few, for example to have rows of both classes
            continue
        if not isinstance(result, int | float):
            _check_number(f"the metric {name!r}", result)


@contextmanager
def _restored_state(task: Task, file: Path) -> Iterator[None]:
    """Restore the task's own state afterwards. Raises Invalid if a checkpoint could not contain it."""
    try:
        state = user_state.decode(user_state.encode(task.state_dict()))
        if state is not None and type(task).load_state_dict is Task.load_state_dict:
            raise TypeError("the task defines state_dict but not load_state_dict; define both")
    except Exception as error:
        raise Invalid("task", explain_user_error(error, file)) from error
    yield
    load_state(task, state, file)


def load_state(task: Task, state: dict[str, Any] | None, file: Path) -> None:
    """Restore what the task's `state_dict` returned; None changes nothing. Raises Invalid with the user's line."""
    if state is None:
        return
    try:
        task.load_state_dict(state)
    except Exception as error:
        raise Invalid("task", explain_user_error(error, file)) from error


def _check_number(what: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{what} is {_describe(value)}; return a tensor with the mean over the batch, without .item()")
    if value.ndim:
        raise ValueError(f"{what} has the shape {tuple(value.shape)}; return one number, for example its .mean()")


def _tried_gradients(task: Task, batch: tuple[Any, Any], loss: Tensor) -> tuple[tuple[str, ...], bool]:
    """Names of the trained parameters without a gradient, and whether gradients need `backward`. Raises ValueError."""
    trained = {name: weight for name, weight in task.model.named_parameters() if weight.requires_grad}
    loss_module = module_of(task.loss, task.model)
    if loss_module is not None:
        weights = LossModule(loss_module, task.model).trained
        trained |= {f"{PREFIX}{name}": weight for name, weight in weights.items()}
    if not trained:
        raise ValueError("the model has no trainable parameters; set requires_grad on some")
    if not loss.requires_grad:
        raise ValueError(
            "the loss does not depend on the model's weights; check for detach(), no_grad or numpy on the way"
        )
    parameters = list(trained.values())
    needs_backward = any(getattr(weight, "_post_accumulate_grad_hooks", None) for weight in parameters)
    try:
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(loss, parameters, allow_unused=True)
    except RuntimeError:  # reentrant checkpointing works with backward only
        gradients, needs_backward = _backward(task, batch, parameters), True
    unused = tuple(name for name, gradient in zip(trained, gradients, strict=True) if gradient is None)
    if len(unused) == len(trained):
        raise ValueError("the loss does not depend on any trained weight; use them, or freeze fewer")
    return unused, needs_backward


def _backward(task: Task, batch: tuple[Any, Any], parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    """The gradients that `backward` leaves for a batch; those in the parameters stay as they are."""
    before = [weight.grad for weight in parameters]
    for weight in parameters:
        weight.grad = None
    try:
        task.loss(task.model(batch[0]), batch[1]).backward()
        return tuple(weight.grad for weight in parameters)
    finally:
        for weight, gradient in zip(parameters, before, strict=True):
            weight.grad = gradient


def _broadcast_problem(output: Any, y: Any) -> str:
    output_shape, label_shape = (tuple(next(tensors_of(value)).shape) for value in (output, y))
    return (
        f"the output has the shape {output_shape} and the labels {label_shape}: the loss would compare every row with "
        "every other row; give both the same shape, for example with output.squeeze(1)"
    )
