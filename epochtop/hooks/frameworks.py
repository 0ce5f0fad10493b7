"""What training frameworks log becomes series of the run: Lightning, Hugging Face Trainer, Keras.

Like the loggers: each patch wraps the framework's own function. Never imports a framework, never raises into the script.
"""

from __future__ import annotations

import functools
import sys

from epochtop.hooks.loggers import after_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from epochtop.hooks.loggers import Recorder


def patches(
    recorder: Recorder, stepped: Callable[[Any], None], scaled: Callable[[Any, Any, Any], None]
) -> dict[str, Callable[[Any], None]]:
    """Patch by the module that it changes.

    `stepped` is called after every step of an optimizer of Keras, `scaled` when one has scaled a loss.
    """
    lightning = "pytorch.trainer.connectors.logger_connector.logger_connector"
    result: dict[str, Callable[[Any], None]] = {
        f"{package}{lightning[start:]}": lambda module: after_call(
            recorder, "lightning", module._LoggerConnector, "log_metrics", _lightning_values
        )
        for package, start in (("lightning.", 0), ("pytorch_lightning.", len("pytorch.")))
    }
    result["transformers.trainer"] = lambda module: after_call(
        recorder, "transformers", module.Trainer, "log", _transformers_values
    )
    result["keras.src.callbacks.callback_list"] = lambda module: _keras_callbacks(recorder, module.CallbackList)
    result["keras.src.optimizers.base_optimizer"] = lambda module: _keras_steps(module.BaseOptimizer, stepped, scaled)
    result["keras.src.optimizers.loss_scale_optimizer"] = lambda module: _keras_scaling(
        module.LossScaleOptimizer, scaled
    )
    return result


def _lightning_values(connector: Any, metrics: Any, step: Any = None, *_: Any, **__: Any) -> Any:
    values = dict(metrics)
    logged_step = values.pop("step", None)
    if step is None:
        step = logged_step if logged_step is not None else connector.trainer.fit_loop.epoch_loop._batches_that_stepped
    return values, int(step)


def _transformers_values(trainer: Any, logs: Any, *_: Any, **__: Any) -> Any:
    return dict(logs), int(trainer.state.global_step)


# --- Keras ----------------------------------------------------------------------------------------------------


def _keras_callbacks(recorder: Recorder, callbacks: Any) -> None:
    """Record the logs of every epoch of `fit` at the number of batches so far."""
    count = {"batches": 0}
    original = callbacks.on_train_batch_end

    @functools.wraps(original)
    def on_train_batch_end(self: Any, batch: Any, logs: Any = None) -> Any:
        count["batches"] += 1
        return original(self, batch, logs)

    callbacks.on_train_batch_end = on_train_batch_end
    after_call(recorder, "keras", callbacks, "on_epoch_end", functools.partial(_keras_values, count))


def _keras_values(count: dict[str, int], _callbacks: Any, epoch: int, logs: Any = None) -> Any:
    return {**(logs or {}), "epoch": epoch}, max(count["batches"] - 1, 0)


def _keras_steps(optimizer: Any, stepped: Callable[[Any], None], scaled: Callable[[Any, Any, Any], None]) -> None:
    """Call `stepped` after every step on torch; other backends trace their steps."""
    original = optimizer.apply

    @functools.wraps(original)
    def apply(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if _runs_on_torch():
            stepped(self)
        return result

    optimizer.apply = apply
    _keras_scaling(optimizer, scaled)


def _keras_scaling(optimizer: Any, scaled: Callable[[Any, Any, Any], None]) -> None:
    original = optimizer.scale_loss

    @functools.wraps(original)
    def scale_loss(self: Any, loss: Any) -> Any:
        result = original(self, loss)
        if _runs_on_torch():
            scaled(self, loss, result)
        return result

    optimizer.scale_loss = scale_loss


def _runs_on_torch() -> bool:
    keras = sys.modules.get("keras.src.backend")
    return keras is not None and keras.backend() == "torch" and "torch" in sys.modules
