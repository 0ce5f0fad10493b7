"""Records a trainer of Hugging Face: `Trainer(..., callbacks=[EpochtopCallback("my run")])`.

Imports transformers and epochtop.recording only.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from epochtop.recording.run import Run


class EpochtopCallback(TrainerCallback):
    """Records what the trainer logs, its arguments and the model's configuration. The run ends with the script.

    A stop in the app ends training after the current step, as the trainer's own early stopping does.
    """

    def __init__(self, name: str = "", *, run: Run | None = None, **options: Any) -> None:
        """`run` is a run to record into; otherwise one is started with `name` and `options`, the arguments of Run."""
        self.run = run
        self._name, self._options = name, options

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Start the run in the main process, unless it has started."""
        if self.run is None and state.is_world_process_zero:
            self.run = Run(self._name or args.run_name or "", **self._options)
        if self.run is not None:
            control.should_training_stop |= self.run.stopping
            config: Any = getattr(model, "config", None)
            model_config = config.to_dict() if hasattr(config, "to_dict") else {}
            self.run.config.update({"trainer": args.to_dict(), "model": model_config})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Record what the trainer logs."""
        if self.run is not None and logs:
            self.run.log(logs, step=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait while the run is paused; end training if it is stopped."""
        if self.run is not None:
            if self.run.stopping:
                control.should_training_stop = True
            self.run.obey()
