"""Events of a run: what happened, one line of JSON per event in events.jsonl.

Each line has the class name of the event under `type`. Imports msgspec and the standard library only, so that the screen,
the engine and a user's script can all read a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from epochtop.engine.protocol.experiments import Cell, Verdict

Outcome = Literal["finished", "stopped", "diverged", "unsaved"]
"""How a run ended that did not crash; `unsaved` has no last checkpoint. A crash is the event :class:`Failed`."""

# --- codes of notes and warnings: what a message is about; nothing may depend on its wording ---------------

EAGER_FALLBACK = "eager_fallback"
"""Steps are eager although another executor was requested, or `auto` found no faster one."""
EXECUTOR_READY = "executor_ready"
"""How long the executor took to set up."""
PHASE = "phase"
"""What an experiment is doing."""
SETTING_REJECTED = "setting_rejected"
"""A live setting keeps its value."""
RATE_LOWERED = "rate_lowered"
"""The schedule lowered the learning rate."""
LOSS_DIFFERS = "loss_differs"
"""A resumed run computed another loss than it recorded before."""
TASK_CHANGED = "task_changed"
"""The files of a custom task differ from those that the run was started with."""
EVALUATION_CUT = "evaluation_cut"
"""The evaluation at the end of a run was interrupted, so there are no results with the last weights."""
CHECKPOINT_DELAYED = "checkpoint_delayed"
"""A checkpoint waits for disk space."""
CHECKPOINT_FAILED = "checkpoint_failed"
"""A checkpoint could not be written."""
CHECKPOINT_DAMAGED = "checkpoint_damaged"
"""A resumed run continues from another checkpoint than its newest one, which cannot be used."""
DISK_SPACE = "disk_space"
"""The disk is full, was full, or has less space than the next checkpoints need."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Something that happened in a run or an experiment. Viewers show events and nothing else."""


class Started(Event, frozen=True, kw_only=True):
    """The job is built and the first step is about to run."""

    time: float
    """Unix time in seconds."""
    device: str
    """torch's name of the device, such as `cuda:0`."""
    device_name: str
    """Product name of the device."""
    executor: str
    """Executor of the first step: `eager`, `graph` or `compile`."""
    threads: int
    """CPU threads per process."""
    processes: int = 1
    """Number of processes that train together."""
    rows: int
    """Training rows."""
    test_rows: int
    features: int
    """Values per row."""
    outputs: int
    """Units of the last layer: classes, characters, or 1."""
    parameters: int
    """Number of the model's parameters."""
    steps: int
    """Steps of the whole run."""
    steps_per_epoch: int
    loss: str
    """Name of the loss: `cross_entropy`, `binary_cross_entropy`, `mean_squared_error`, `next_character`, or a custom task's."""
    metric: str
    """Name of the headline metric: `accuracy`, `r2`, `bits_per_character`, or a custom task's."""
    eval_split: str = msgspec.field(default="test", name="judged_on")
    """Rows that evaluations use: `validation`, `test`, or `train` if no row is held out."""
    classes: tuple[str, ...] = ()
    """Names of the classes by label; empty for a regression and for text."""
    precision: str = "fp32"
    """Precision of the arithmetic: `fp32`, `tf32`, `bf16` or `fp16`."""
    torch_version: str
    notes: tuple[str, ...] = ()
    """Decisions made while the job was built, one sentence each."""
    fallback: str = ""
    """Why steps are eager although another executor was requested; empty otherwise, and in logs of older versions."""


class Losses(Event, frozen=True, kw_only=True):
    """The losses of one window: consecutive steps from `first_step`, without a gap after the window before."""

    first_step: int
    """Number of the first step, counted from 0."""
    seconds: float
    """Training time at the end of the window, in seconds, without pauses."""
    values: bytes
    """Loss of every step: little-endian float32, 4 bytes each; base64 in JSON."""
    reads: int
    """Device reads so far, including this one."""
    waited: float
    """Seconds the loop has waited for the device so far."""
    learning_rate: float | None = None
    """Learning rate of the last step in the window; None if it is constant."""


class Evaluated(Event, frozen=True, kw_only=True):
    """Loss and metrics on held-out rows, with the weights before step `step`."""

    step: int
    seconds: float
    """Training time in seconds, without pauses."""
    loss: float | None
    """Mean loss; None if it is not finite."""
    metric: float | None
    """Headline metric, named in :attr:`Started.metric`; None if it is not finite."""
    metrics: dict[str, float | None] = {}
    """All metrics by name; None where a value is not finite."""
    confusion: tuple[tuple[int, ...], ...] | None = None
    """Confusion matrix: row counts by true class, then by predicted class; None for a regression or too many classes."""


class Mapped(Event, frozen=True, kw_only=True):
    """Decision regions of a classifier with two features: its answer in every cell of a grid, before step `step`."""

    step: int
    columns: int
    """Cells of the grid from left to right."""
    rows: int
    """Cells of the grid from top to bottom."""
    low: tuple[float, float]
    """Lowest value of each feature in the grid, scaled as the model sees it."""
    high: tuple[float, float]
    """Highest value of each feature in the grid, scaled likewise."""
    cells: bytes
    """Predicted class of every cell, one byte each, row by row from the top; base64 in JSON."""
    classes: tuple[str, ...]
    """Names of the classes by label."""
    points: tuple[tuple[float, float, int], ...]
    """A sample of the training rows: both features and the class."""


class Saved(Event, frozen=True, kw_only=True):
    """A complete checkpoint is stored in `checkpoints/<kind>`."""

    step: int
    """Number of steps the checkpoint includes."""
    kind: str
    """Name of the checkpoint: `last`, `best` or `epoch-N`."""


class Paused(Event, frozen=True, kw_only=True):
    """Training is paused; steps 0 … `step`−1 are recorded."""

    step: int
    by: str = ""
    """Sender of the command, as `user@host:pid`; empty if there was none."""


class Resumed(Event, frozen=True, kw_only=True):
    """Training continues with step `step` after a pause."""

    step: int
    by: str = ""
    """Sender of the command, as `user@host:pid`; empty if there was none."""


class Continued(Event, frozen=True, kw_only=True):
    """A new engine resumes a run that had ended or died, from its checkpoint of step `step`.

    Steps `step` … `recorded`−1 run again; their losses are already in the log and are not written twice. Events that
    ended the run before no longer count.
    """

    time: float
    """Unix time in seconds."""
    step: int
    """First step that runs again."""
    recorded: int
    """Number of steps whose losses were already in the log."""
    device: str
    """torch's name of the device, such as `cuda:0`."""
    executor: str = ""
    """Executor from here on; empty in logs of older versions."""
    why: str = ""
    """Reason; empty if a user asked for it."""
    batch_size: int | None = None
    """Rows per batch from here on, if it differs from the spec; `accumulate` batches make the same steps."""
    accumulate: int = 1
    """Batches per step from here on."""


class Switched(Event, frozen=True, kw_only=True):
    """Another executor runs the steps from `step` on."""

    step: int
    executor: str
    """Executor from here on: `eager`, `graph` or `compile`."""
    why: str = ""
    """Reason, in one sentence."""


class Changed(Event, frozen=True, kw_only=True):
    """A live setting has a new value from `step` on."""

    step: int
    field: str
    """`learning_rate` or `refresh_ms`."""
    value: float
    by: str = ""
    """Sender of the command, as `user@host:pid`; empty if the engine decided."""


class Noted(Event, frozen=True, kw_only=True):
    """A decision or a measurement that explains the run."""

    message: str
    code: str = ""
    """One of the codes above; empty in logs of older versions."""


class Warned(Event, frozen=True, kw_only=True):
    """A problem that does not end the run."""

    message: str
    code: str = ""
    """One of the codes above; empty in logs of older versions."""


class Prepared(Event, frozen=True, kw_only=True):
    """An experiment is about to measure; the first event of its log."""

    time: float
    """Unix time in seconds."""
    budget_s: float
    """Time budget in seconds."""
    devices: tuple[str, ...]
    """Devices to measure, by torch's names."""
    machine: dict[str, Cell]
    """Facts about the machine: processor, threads, memory, GPU, versions."""
    cannot_see: tuple[str, ...] = ()
    """Limits of this machine: what it cannot show, one sentence each."""


class Measured(Event, frozen=True, kw_only=True):
    """One row of an experiment's results."""

    values: dict[str, Cell]
    """Values by column; the columns belong to the experiment."""


class Concluded(Event, frozen=True, kw_only=True):
    """The experiment has ended, by itself or by command; the last event of its log."""

    time: float
    """Unix time in seconds."""
    seconds: float
    """Duration in seconds."""
    outcome: Literal["finished", "stopped"]
    verdict: Verdict
    cannot_see: tuple[str, ...] = ()
    """Limits found while measuring: what this machine could not show, one sentence each."""


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """The learning rate that a range test suggests, with the values it follows from."""

    learning_rate: float
    """Suggested learning rate: `steepest_rate` rounded to two digits."""
    steepest_rate: float
    """Rate at which the smoothed loss fell fastest over the logarithm of the rate."""
    lowest_rate: float
    """Rate at which the smoothed loss was lowest."""
    tenth_of_lowest: float
    """A tenth of `lowest_rate`, the other common rule."""
    first_loss: float
    """Smoothed loss at the start."""
    lowest_loss: float
    """Lowest smoothed loss."""


class Telemetry(Event, frozen=True, kw_only=True):
    """Load of the engine and of its device, every few seconds. None means unknown."""

    time: float
    """Unix time in seconds."""
    engine_cpu_percent: float | None = None
    """CPU use of the engine process; 100 is one busy CPU."""
    engine_memory_bytes: int | None = None
    """Resident memory of the engine process."""
    gpu_percent: float | None = None
    """Share of the time in which any kernel ran on the device, 0 to 100."""
    sm_percent: float | None = None
    """Share of the multiprocessors that were busy, 0 to 100."""
    gpu_memory_bytes: int | None = None
    """Memory in use on the device, by all processes."""
    temperature_c: float | None = None
    """Temperature of the device in degrees Celsius."""
    power_w: float | None = None
    """Power draw of the device in watts."""
    slowed_by: tuple[str, ...] = ()
    """Reasons why the device's clocks were reduced."""
    reason: str = ""
    """Reason why the device's values are unknown; empty if they are known or the device is the CPU."""


class Finished(Event, frozen=True, kw_only=True):
    """Summary of a run that did not crash; its last event unless the run is resumed."""

    time: float
    """Unix time in seconds."""
    outcome: Outcome
    reason: str
    """Why the run ended, in one sentence."""
    advice: str = ""
    """What to try next; empty if there is nothing to say."""
    steps: int
    """Steps run in total."""
    epochs: float
    """Passes over the training rows."""
    seconds: float
    """Training time in seconds: with evaluations and saving, without set-up and pauses."""
    steps_per_second: float
    final_loss: float | None
    """Loss of the last step; None if it is not finite or no step ran."""
    best_loss: float | None
    """Lowest loss of a step; None if none was finite."""
    best_step: int | None
    """Step with the lowest loss."""
    diverged_step: int | None = None
    """First step whose loss was not finite; None if there was none."""
    test_loss: float | None = None
    """Loss on the test rows with the last weights; None without test rows or if it is not finite."""
    test_metric: float | None = None
    """Headline metric on the test rows with the last weights."""
    best_test_loss: float | None = None
    """Lowest loss of an evaluation."""
    metrics: dict[str, float | None] = {}
    """All metrics on the test rows with the last weights, by name."""
    device_reads: int
    """Number of device reads."""
    waited_seconds: float
    """Seconds the loop waited for the device."""
    suggestion: Suggestion | None = None
    """Suggested learning rate of a range test; None for other runs or if the loss never fell."""
    planned_memory_bytes: int | None = None
    """Memory that the plan estimated."""
    peak_memory_bytes: int | None = None
    """Peak memory: allocated by torch on the device, or the growth of the process on the CPU; None if unknown."""


class Failed(Event, frozen=True, kw_only=True):
    """The run ended with an error."""

    time: float
    """Unix time in seconds."""
    step: int
    """Step at which it failed."""
    message: str
    """What went wrong and where."""
    advice: str = ""
    """What to do about it; empty if unknown."""
    traceback: str = ""
    """Python traceback; empty if it would not help."""


AnyEvent = (
    Started
    | Losses
    | Evaluated
    | Mapped
    | Saved
    | Paused
    | Resumed
    | Continued
    | Switched
    | Changed
    | Noted
    | Warned
    | Prepared
    | Measured
    | Concluded
    | Telemetry
    | Finished
    | Failed
)
"""Every event."""


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of decoding a line: not valid JSON or of another type, not UTF-8, nested too deeply."""

encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""Encode any of these types as one line of JSON, without the newline."""
decode_event: Callable[[bytes], AnyEvent] = msgspec.json.Decoder(AnyEvent).decode
