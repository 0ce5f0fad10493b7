"""Records `fit()` of a skorch network: `NeuralNetClassifier(..., callbacks=[EpochtopCallback("my run")])`.

Imports skorch and epochtop.recording only.
"""

from __future__ import annotations

from typing import Any

from skorch.callbacks import Callback

from epochtop.recording.run import Run


class EpochtopCallback(Callback):
    """Records the loss of every training batch and what skorch computes per epoch. Steps are training batches.

    The run ends with `fit()` and continues with `partial_fit()`. A stop in the app raises KeyboardInterrupt, with which
    skorch ends training.
    """

    def __init__(self, name: str = "", run: Run | None = None, config: Any = None) -> None:
        """`run` is a run to record into; otherwise one is started with `name` and `config`."""
        self.name, self.run, self.config = name, run, config

    def initialize(self) -> EpochtopCallback:
        """Forget the run of an earlier fit."""
        self.run_: Run | None = self.run
        self.step_ = 0
        return self

    def on_train_begin(self, net: Any, *_: Any, **__: Any) -> None:
        """Start the run, or continue it."""
        if self.run_ is None:
            self.run_ = Run(self.name or type(net).__name__, config=self.config)
            simple = {name: value for name, value in net.get_params(deep=False).items() if name != "callbacks"}
            self.run_.config.update({"net": simple})
        elif self.run_.is_finished:
            self.run_ = Run(resume=self.run_.path)

    def on_batch_end(self, net: Any, *_: Any, training: bool = False, **__: Any) -> None:
        """Record the loss of a training batch."""
        if training and self.run_ is not None:
            self.run_.log({"batch/train_loss": net.history[-1, "batches", -1].get("train_loss")}, step=self.step_)
            self.step_ += 1

    def on_epoch_end(self, net: Any, *_: Any, **__: Any) -> None:
        """Record what skorch computed for the epoch, at its last step."""
        if self.run_ is not None:
            values = {name: value for name, value in net.history[-1].items() if _is_metric(name, value)}
            self.run_.log(values, step=max(self.step_ - 1, 0))

    def on_train_end(self, net: Any, *_: Any, **__: Any) -> None:
        """End the run, unless it was given."""
        if self.run_ is not None and self.run is None:
            self.run_.finish()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("run", "run_")} | {"run": None}


def _is_metric(name: str, value: Any) -> bool:
    """Whether an entry of skorch's history is a metric."""
    return isinstance(value, (int, float)) and not name.endswith(("_best", "_batch_count")) and name[:6] != "event_"
