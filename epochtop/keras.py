"""Records `fit()` of a Keras model: `model.fit(..., callbacks=[EpochtopCallback("my run")])`.

Imports keras and epochtop.recording only.
"""

from __future__ import annotations

from typing import Any

import keras

from epochtop.recording.run import Run


class EpochtopCallback(keras.callbacks.Callback):
    """Records the metrics of every epoch, and Keras' running means after every batch as `batch/loss`.

    Steps are batches. The run ends with the script. A stop in the app sets `model.stop_training`.
    """

    def __init__(self, name: str = "", *, run: Run | None = None, batches: bool = True, **options: Any) -> None:
        """`run` is a run to record into; otherwise one is started with `name` and `options`, the arguments of Run.

        Keras reads the metrics from the device after every batch if `batches` is True or a progress bar is shown.
        """
        super().__init__()
        self.run = run
        self._name, self._options, self._step = name, options, 0
        if not batches:
            default = super().on_train_batch_end  # Keras computes nothing for it
            object.__setattr__(self, "on_train_batch_end", default)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the run, unless it has started."""
        if self.run is None:
            self.run = Run(self._name or self.model.name, **self._options)
        self.run.config.update({"fit": dict(self.params or {})})
        self._obey()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the running means; wait while the run is paused."""
        assert self.run is not None
        self.run.log({"batch": logs or {}}, step=self._step)
        self._step += 1
        self._obey()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the metrics of the epoch at its last step."""
        assert self.run is not None
        self._step = max(self._step, (epoch + 1) * int((self.params or {}).get("steps") or 1))
        rate = getattr(self.model.optimizer, "learning_rate", None)
        self.run.log({**(logs or {}), "epoch": epoch + 1}, step=self._step - 1)
        if rate is not None:
            self.run.log(learning_rate=float(rate), step=self._step - 1)
        self._obey()

    def _obey(self) -> None:
        assert self.run is not None
        if self.run.stopping:
            self.model.stop_training = True
        self.run.obey()
