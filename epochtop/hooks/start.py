"""Starts the hooks in one Python process: watches imports, nothing else. Imports built-in modules only."""

from __future__ import annotations

import os
import sys

from epochtop.hooks.imports import ImportWatcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from epochtop.hooks.hooked import Hooks

TORCH = (
    "torch.optim.optimizer",
    "torch.compiler",
    "torch.autograd",
    "torch.amp.grad_scaler",
    "torch.utils.data.dataloader",
    "torch._dynamo.trace_rules",
)
LOGGERS = (
    "torch.utils.tensorboard.writer",
    "tensorboardX.writer",
    "wandb.sdk.wandb_run",
    "mlflow.tracking.fluent",
    "trackio.run",
    "lightning.pytorch.trainer.connectors.logger_connector.logger_connector",
    "pytorch_lightning.trainer.connectors.logger_connector.logger_connector",
    "transformers.trainer",
    "keras.src.callbacks.callback_list",
    "keras.src.optimizers.base_optimizer",
    "keras.src.optimizers.loss_scale_optimizer",
)
"""Modules that are changed when the script has imported them."""

_hooks: list[Hooks] = []
"""The hooks of this process, made when the first of these modules is imported."""


def start() -> None:
    """Watch the imports of this process."""
    ImportWatcher(dict.fromkeys((*TORCH, *LOGGERS), _patch), report).install()


def _patch(module: Any) -> None:
    if not _hooks:
        from epochtop.hooks.hooked import Hooks

        _hooks.append(Hooks(report))
    _hooks[0].patch(module)


def report(message: str) -> None:
    """Tell the user about a problem."""
    if os.environ.get("EPOCHTOP_RUN"):
        sys.stderr.write(f"epochtop: {message}\n")
