"""The trial of a task with two rows, and errors of its steps explained in the user's terms. Must never change the task."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset

from epochtop.engine.data.dataset import Rows
from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.models.checked_rows import IGNORED, RowError, class_loss_options, class_numbers, label_range
from epochtop.engine.models.nested import mapped, tensors_of
from epochtop.engine.models.set_metric import SetMetric, depends_on_batches, fresh
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks import extra_state, user_state
from epochtop.engine.tasks.errors.shape_errors import explain_shapes
from epochtop.engine.tasks.errors.tracebacks import TaskError, describe_value, explain_user_error, one_line, place
from epochtop.engine.tasks.loss_module import PREFIX, LossModule, module_of, modules_of, parameters_behind
from epochtop.engine.tasks.task import Part, Task
from epochtop.engine.tasks.traits import BatchWatch, TaskTraits

HOST = torch.device("cpu")
TRIED_ROWS, TRIED_ROWS_OF_A_DATASET, TRIED_VALUES = 32, 8, 1 << 20
"""Rows with which metrics are tried, at most: of arrays, of a Dataset, and of large rows by their values."""
BROADCAST = "Using a target size"
"""First words of torch's warning that a loss broadcasts outputs against labels."""


def try_out(task: Task, file: Path, function: Callable[[], Any] | None = None) -> TaskTraits:
    """Run the forward pass, loss, gradients and metrics with two rows; restores buffers and random generators.

    Returns what the trial shows about the task, which `function` returned. Raises Invalid with the problem and the user's
    line.
    """
    trial = Trial(task)
    with _restored_state(task, file):
        try:
            trial.load()
            with _restored(task):
                return trial.step()
        except (Exception, SystemExit) as error:
            raise Invalid("task", trial.explain(error, file, function)) from error


class Trial:
    """A step of a task that stops at the first problem, and what it was doing then."""

    def __init__(self, task: Task, x: Any = None, y: Any = None) -> None:
        """`x` and `y` are a batch, unless the first rows are loaded."""
        self._task, self._x, self._y = task, x, y
        self._owners: tuple[object, ...] = ()
        """Objects of the user's that may be wrong, the likeliest first."""

    def load(self) -> None:
        """Use the first training rows, and initialize lazy modules with them. Raises what the user's code raises."""
        self._owners = dataset_methods(self._task)
        self._x, self._y = _on_model_device(self._task, self._task.batch())
        self._owners = (self._task.model,)
        _initialize(self._task, self._x)

    def step(self) -> TaskTraits:
        """Try everything that a step and an evaluation do. Raises TaskError, or what the user's code raises."""
        task = self._task
        watch = BatchWatch((self._x, self._y))
        output, loss = self.loss()
        unused, sparse, needs_backward = _tried_gradients(task, (self._x, self._y), loss)
        self.metrics(mapped(output, torch.Tensor.detach))
        self._owners = tuple(getattr(type(part), "get_extra_state", None) for part in task.model.modules())
        extra_state.encode(task.model)
        return TaskTraits(watch.changed(), unused, needs_backward, sparse)

    def loss(self) -> tuple[Any, Tensor]:
        """Output and loss of the batch."""
        task, y = self._task, self._y
        self._owners = (task.model,)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            output = task.model(self._x)
            if output is None:
                raise TaskError("the model returns None; end its forward with `return output`")
            self._owners = (task.loss, task.model)
            labels, numbers = label_range(task.loss, output), class_numbers(y)
            row = None if labels is None or numbers is None else labels.first_outside(numbers)
            if labels is not None and numbers is not None and row is not None:
                self._owners = ()
                raise TaskError(labels.problem("training", row, numbers[row]))
            loss = task.loss(output, y)
        for warning in caught:
            if str(warning.message).startswith(BROADCAST):
                raise TaskError(_broadcast_problem(output, y))
        _check_number("the loss", loss)
        return output, loss

    def metrics(self, output: Any) -> None:
        """Compute the metrics of an output for the batch."""
        for name, metric in self._task.metrics.items():
            self._owners = (metric, self._task.model)
            _try_metric(name, metric, output, self._y)

    def explain(
        self, error: BaseException, file: Path, function: Callable[[], Any] | None = None, line: str = ""
    ) -> str:
        """An error of this step in one line: the user's `line` if it is known already, and what is wrong.

        Without a line of the user's in its traceback, the definition of what was called, else of `function`.
        """
        problem = None
        if self._x is not None and not isinstance(error, RowError):
            problem = explain_shapes(error, self._x, self._task.model, self._y)
        where = line or place(error, file, (*self._owners, function))
        return f"{where}: {problem or one_line(error)}"


def dataset_methods(task: Task) -> tuple[object, ...]:
    """The functions that read the rows of a task's Datasets."""
    parts = (task.train, task.validation, task.test)
    return tuple(getattr(type(part), "__getitem__", None) for part in parts if isinstance(part, Dataset))


def trains_on(task: Task, rows: int) -> bool:
    """Whether the task computes a training loss of its first `rows` rows, which BatchNorm refuses for a single row.

    For one row the loss must be finite, unless that of two rows is not finite either, or the row has an ignored label.
    """
    loss = _loss_of(task, rows)
    if loss is None or rows > 1 or loss.isfinite() or _is_ignored(task):
        return loss is not None
    more = _loss_of(task, 2)
    return more is None or not bool(more.isfinite())


def evaluates(task: Task, rows: int) -> bool:
    """Whether the task computes a loss of its first `rows` rows in evaluation mode."""
    return _loss_of(task, rows, training=False) is not None


def needs_all_rows(task: Task) -> tuple[str, ...]:
    """Names of the metrics that are functions, but not means over rows, such as an F1 score.

    Tries them with some rows, their outputs, and random outputs, for a model that gives all rows the same class.
    """
    functions = {name: metric for name, metric in task.metrics.items() if not isinstance(metric, SetMetric)}
    if not functions:
        return ()
    part: Part = "validation" if task.validation is not None else "test" if task.test is not None else "train"
    numbers = _spread_rows(task, part)
    with _restored(task), torch.no_grad():
        task.model.eval()
        try:
            x, y = _on_model_device(task, task.batch_of(part, numbers))
            output = task.model(x)
            generator = torch.Generator().manual_seed(0)
            noise = mapped(output, lambda value: _noise(value, generator))
            return tuple(
                name
                for name, function in functions.items()
                if any(depends_on_batches(function, one, y, len(numbers)) for one in (output, noise))
            )
        except Exception:  # the first evaluation explains it
            return ()


def _spread_rows(task: Task, part: Part) -> list[int]:
    """Numbers of some rows of a part, few of large rows, evenly spaced because neighbors may be of one class."""
    examples = task.examples(part)
    count, values = len(examples), sum(tensor[:1].numel() for tensor in tensors_of(task.batch(1)[0]) if tensor.ndim)  # type: ignore[arg-type]
    most = TRIED_ROWS if isinstance(examples, Rows) else TRIED_ROWS_OF_A_DATASET
    rows = min(most, max(2, TRIED_VALUES // max(1, values)))
    return sorted({place * count // rows for place in range(rows)})


def _noise(value: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers in place of an output; whole numbers, which may be codes, stay as they are."""
    if not value.is_floating_point():
        return value
    return torch.randn(value.shape, generator=generator).to(value)


def _is_ignored(task: Task) -> bool:
    """Whether the loss ignores all labels of the first row."""
    options, labels = class_loss_options(task.loss), class_numbers(task.batch(1)[1])
    return options is not None and labels is not None and bool((labels == options.get("ignore_index", IGNORED)).all())


def _loss_of(task: Task, rows: int, training: bool = True) -> Tensor | None:
    """The loss of the first rows; None if the task fails for another reason than memory."""
    with _restored(task):
        task.model.train(training)
        try:
            x, y = _on_model_device(task, task.batch(rows))
            return task.loss(task.model(x), y).detach()
        except Exception as error:
            return torch.zeros(()) if is_out_of_memory(error) else None


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


def _initialize(task: Task, x: Any) -> None:
    """Give the parameters and buffers of lazy modules their shapes, which the first forward pass decides."""
    modules = modules_of(task)
    if any(is_lazy(tensor) for part in modules for tensor in (*part.parameters(), *part.buffers())):
        with task.untouched(HOST), torch.no_grad():
            task.model.eval()(x)


@contextmanager
def _restored(task: Task) -> Iterator[None]:
    """Restore random generators, buffers, and counters and training modes of modules afterwards."""
    devices = sorted({weight.device.index or 0 for weight in task.model.parameters() if weight.is_cuda})
    with torch.random.fork_rng(devices=devices), task.untouched(HOST), torch.enable_grad():
        task.model.train()
        yield


def _try_metric(name: str, metric: Any, output: Any, y: Any) -> None:
    if not isinstance(metric, SetMetric):
        _check_number(f"the metric {name!r}", metric(output, y))
        return
    device = next((tensor.device for tensor in tensors_of(output)), HOST)
    trial = fresh(metric, device)
    trial.update(output, y)
    try:
        result = trial.compute()
    except Exception:  # two rows may be too few, for example to have rows of both classes
        return
    if not isinstance(result, int | float):
        _check_number(f"the metric {name!r}", result)


@contextmanager
def _restored_state(task: Task, file: Path) -> Iterator[None]:
    """Restore the task's own state afterwards. Raises Invalid if a checkpoint could not contain it."""
    try:
        state = user_state.decode(user_state.encode(task.state_dict()))
        if state is not None and type(task).load_state_dict is Task.load_state_dict:
            raise TaskError("the task defines state_dict but not load_state_dict; define both")
    except Exception as error:
        owners = (type(task).state_dict, type(task).load_state_dict)
        raise Invalid("task", explain_user_error(error, file, owners)) from error
    yield
    load_state(task, state, file)


def load_state(task: Task, state: dict[str, Any] | None, file: Path) -> None:
    """Restore what the task's `state_dict` returned; None changes nothing. Raises Invalid with the user's line."""
    if state is None:
        return
    try:
        task.load_state_dict(state)
    except Exception as error:
        raise Invalid("task", explain_user_error(error, file, (type(task).load_state_dict,))) from error


def _check_number(what: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TaskError(
            f"{what} is {describe_value(value)}; return a tensor with the mean over the batch, without .item()"
        )
    if value.ndim:
        raise TaskError(f"{what} has the shape {tuple(value.shape)}; return one number, for example its .mean()")


def check_gradient(loss: Tensor) -> None:
    """Raise TaskError if no gradient can be computed from a loss."""
    if not loss.requires_grad:
        raise TaskError(
            "the loss does not depend on the model's weights; check for detach(), no_grad or numpy on the way"
        )


def _tried_gradients(task: Task, batch: tuple[Any, Any], loss: Tensor) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Names of the trained parameters without a gradient and with a sparse one, and whether gradients need `backward`.

    Raises TaskError.
    """
    trained = {name: weight for name, weight in task.model.named_parameters() if weight.requires_grad}
    loss_module = module_of(task.loss, task.model)
    if loss_module is not None:
        weights = LossModule(loss_module, task.model).trained
        trained |= {f"{PREFIX}{name}": weight for name, weight in weights.items()}
    if not trained:
        raise TaskError("the model has no trainable parameters; set requires_grad on some")
    check_gradient(loss)
    _check_parameters(task, loss)
    parameters = list(trained.values())
    needs_backward = any(getattr(weight, "_post_accumulate_grad_hooks", None) for weight in parameters)
    try:
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(loss, parameters, allow_unused=True)
    except RuntimeError:  # reentrant checkpointing works with backward only
        gradients, needs_backward = _backward(task, batch, parameters), True
    named = list(zip(trained, gradients, strict=True))
    unused = tuple(name for name, gradient in named if gradient is None)
    sparse = tuple(name for name, gradient in named if gradient is not None and gradient.is_sparse)
    if len(unused) == len(trained):
        raise TaskError("the loss does not depend on any trained weight; use them, or freeze fewer")
    return unused, sparse, needs_backward


def _check_parameters(task: Task, loss: Tensor) -> None:
    """Raise TaskError if the loss depends on parameters that are not those of the model or of the loss."""
    known = {weight.data_ptr() for part in modules_of(task) for weight in part.parameters()}
    others = [weight for weight in parameters_behind(loss) if weight.data_ptr() not in known]
    if others:
        raise TaskError(
            f"a parameter of the shape {tuple(others[0].shape)} belongs neither to the model nor to the loss, so it would not be "
            "trained; make it an attribute of an nn.Module (layers in an nn.ModuleList), or freeze it with requires_grad_(False)"
        )


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
