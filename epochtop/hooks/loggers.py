"""What the script sends to a logger becomes series of the run too: TensorBoard, wandb, MLflow, Trackio.

Each patch wraps the logger's own function, which does its work first. Values keep their names and steps. Never imports a
logger, never changes what it gets, never raises into the script.
"""

from __future__ import annotations

import functools
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    class Recorder(Protocol):
        """What records the values of loggers."""

        calls: CallDepth

        def log(self, source: str, values: Mapping[str, Any], step: int | None) -> None:
            """Record values that the script has sent to the logger `source`."""

        def describe(self, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
            """Record entries of the configuration and of the summary that the script has told a logger."""

    Read = Callable[..., Any]
    """What a call logs, from its arguments: values and step, or configuration and summary. Raises anything if it has none."""


class CallDepth(threading.local):
    """How many hooked functions run inside each other in this thread; only the outermost one records."""

    depth = 0


def after_call(recorder: Recorder, source: str, owner: Any, name: str, read: Read) -> None:
    """Make `owner.name` record the values that it logs. Does nothing if there is no such function."""
    _wrap(recorder, owner, name, read, functools.partial(recorder.log, source))


def _after_description(recorder: Recorder, owner: Any, name: str, read: Read) -> None:
    """Make `owner.name` record the configuration that it gets. Does nothing if there is no such function."""
    _wrap(recorder, owner, name, read, recorder.describe)


def _wrap(recorder: Recorder, owner: Any, name: str, read: Read, record: Callable[..., None]) -> None:
    original = getattr(owner, name, None)
    if original is None:
        return

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls = recorder.calls
        values = _read(read, args, kwargs) if calls.depth == 0 else None
        calls.depth += 1
        try:
            return original(*args, **kwargs)
        finally:
            calls.depth -= 1
            if values is not None:
                record(*values)

    setattr(owner, name, wrapper)


def _read(read: Read, args: Any, kwargs: Any) -> Any:
    try:
        return read(*args, **kwargs)
    except Exception:  # the logger itself complains about wrong arguments
        return None


def patches(recorder: Recorder) -> dict[str, Callable[[Any], None]]:
    """Patch by the module that it changes."""
    return {
        "torch.utils.tensorboard.writer": lambda module: _tensorboard(recorder, module.SummaryWriter),
        "tensorboardX.writer": lambda module: _tensorboard(recorder, module.SummaryWriter),
        "wandb.sdk.wandb_run": lambda module: _wandb(recorder, module.Run),
        "mlflow.tracking.fluent": lambda module: _mlflow(recorder, module),
        "trackio.run": lambda module: _trackio(recorder, module.Run),
    }


def _tensorboard(recorder: Recorder, writer: Any) -> None:
    after_call(recorder, "tensorboard", writer, "add_scalar", _scalar)
    after_call(recorder, "tensorboard", writer, "add_scalars", _scalars)
    _after_description(recorder, writer, "add_hparams", _hparams)


def _scalar(_writer: Any, tag: str, scalar_value: Any, global_step: Any = None, *_: Any, **__: Any) -> Any:
    return {tag: scalar_value}, _step(global_step)


def _scalars(_writer: Any, main_tag: str, tag_scalar_dict: Any, global_step: Any = None, *_: Any, **__: Any) -> Any:
    return {f"{main_tag}/{tag}": value for tag, value in tag_scalar_dict.items()}, _step(global_step)


def _hparams(_writer: Any, hparam_dict: Any, metric_dict: Any, *_: Any, **__: Any) -> Any:
    return dict(hparam_dict), dict(metric_dict)


def _wandb(recorder: Recorder, run: Any) -> None:
    after_call(recorder, "wandb", run, "log", _wandb_values)
    for name in ("_on_start", "_config_callback"):
        _after_description(recorder, run, name, _wandb_config)


def _wandb_config(run: Any, *_: Any, **__: Any) -> Any:
    return dict(run.config), {}


def _wandb_values(run: Any, data: Any, step: Any = None, *_: Any, **__: Any) -> Any:
    return dict(data), _step(run.step if step is None else step)


def _mlflow(recorder: Recorder, module: Any) -> None:
    after_call(recorder, "mlflow", module, "log_metric", _mlflow_metric)
    after_call(recorder, "mlflow", module, "log_metrics", _mlflow_metrics)
    _after_description(recorder, module, "log_param", lambda key, value, *_, **__: ({key: value}, {}))
    _after_description(recorder, module, "log_params", lambda params, *_, **__: (dict(params), {}))


def _mlflow_metric(key: str, value: Any, step: Any = None, *_: Any, **__: Any) -> Any:
    return {key: value}, _step(0 if step is None else step)


def _mlflow_metrics(metrics: Any, step: Any = None, *_: Any, **__: Any) -> Any:
    return dict(metrics), _step(0 if step is None else step)


def _trackio(recorder: Recorder, run: Any) -> None:
    after_call(recorder, "trackio", run, "log", _trackio_values)
    _after_description(recorder, run, "__init__", lambda *_, config=None, **__: (dict(config), {}))


def _trackio_values(_run: Any, metrics: Any, step: Any = None, *_: Any, **__: Any) -> Any:
    return dict(metrics), _step(step)


def _step(step: Any) -> int | None:
    """A step as an integer; a tensor on a device is not read."""
    if step is None or getattr(step, "is_cpu", True) is False:
        return None
    return int(step)
