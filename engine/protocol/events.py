"""Every type that crosses a process: what is asked, what happened, what is commanded.

This module must import nothing but msgspec and the standard library (:mod:`epochtop.engine.protocol.spec` keeps the same
rule), so that the screen, the engine and a user's script can all read a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from epochtop.engine.protocol.experiments import Cell, ExperimentRequest, Verdict
from epochtop.engine.protocol.spec import RunSpec

PROTOCOL_VERSION = 1

Outcome = Literal["finished", "stopped", "diverged"]
"""How a run that ended by its own will ended. A crash is :class:`Failed`, never an outcome."""


# --- events: past tense, one a line of events.jsonl ---------------------------------------------------


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Something that happened in a run. Always the last word: viewers draw events and nothing else."""


class Started(Event, frozen=True, kw_only=True):
    """The job is built and the first step is about to be taken."""

    time: float
    """Unix time in seconds."""
    device: str
    device_name: str
    executor: str
    threads: int
    processes: int = 1
    """Those that train together, each with `threads` threads."""
    rows: int
    """Training rows."""
    test_rows: int
    features: int
    outputs: int
    """Units of the last layer: classes, or 1."""
    parameters: int
    steps: int
    """Steps asked for in total."""
    steps_per_epoch: int
    loss: str
    """`cross_entropy`, `binary_cross_entropy` or `mean_squared_error`."""
    metric: str
    """Name of the headline metric: `accuracy`, `r2`, `bits_per_character`, or an own task's."""
    eval_split: str = msgspec.field(default="test", name="judged_on")
    """Rows that evaluations are made on: `test`, `validation`, or `train` where no row is held out."""
    classes: tuple[str, ...] = ()
    precision: str = "fp32"
    torch_version: str
    notes: tuple[str, ...] = ()
    fallback: str = ""
    """Why steps are eager although another executor was requested; empty otherwise, and in logs of older versions."""


class Losses(Event, frozen=True, kw_only=True):
    """A window of losses: every step from `first_step` on, without a gap to the window before."""

    first_step: int
    seconds: float
    """Training time in seconds, pauses left out, at the end of the window."""
    values: bytes
    """Little-endian float32, 4 bytes a step."""
    reads: int
    """Device reads so far, this one included."""
    waited: float
    """Seconds the loop has waited for the device so far."""
    learning_rate: float | None = None
    """Of the last step of the window, where a schedule moves it."""


class Evaluated(Event, frozen=True, kw_only=True):
    """Loss and metrics on held-out rows with the weights before `step` was taken."""

    step: int
    seconds: float
    loss: float | None
    """None where it is not a finite number."""
    metric: float | None
    """The headline metric."""
    metrics: dict[str, float | None] = {}
    """All of them by name."""
    confusion: tuple[tuple[int, ...], ...] | None = None
    """Rows by true class and predicted class; None for a regression and for too many classes."""


class Mapped(Event, frozen=True, kw_only=True):
    """What a classifier of two features answers all over their plane, with the weights before `step` was taken."""

    step: int
    columns: int
    rows: int
    low: tuple[float, float]
    """Least value of both features, scaled as the model sees them."""
    high: tuple[float, float]
    cells: bytes
    """Class of each cell, a byte each, row by row from the top."""
    classes: tuple[str, ...]
    points: tuple[tuple[float, float, int], ...]
    """Some training rows: both features and the class."""


class Saved(Event, frozen=True, kw_only=True):
    """A complete checkpoint lies in `checkpoints/<kind>`."""

    step: int
    kind: str
    """`last`, `best` or `epoch-N`."""


class Paused(Event, frozen=True, kw_only=True):
    """The loop waits; steps 0 … `step`−1 are recorded."""

    step: int
    by: str = ""


class Resumed(Event, frozen=True, kw_only=True):
    """The loop goes on with `step`."""

    step: int
    by: str = ""


class Continued(Event, frozen=True, kw_only=True):
    """An engine goes on with a run that had ended or died, from its checkpoint of `step`.

    Steps up to `recorded` are taken again and recorded once: what ended the run before counts no more.
    """

    time: float
    step: int
    recorded: int
    """Steps whose losses were in the log already."""
    device: str
    executor: str = ""
    """How steps are executed from here on; empty in logs of older versions."""
    why: str = ""
    batch_size: int | None = None
    """Rows in a batch from here on, where they are others than asked for; `accumulate` of them make the same steps."""
    accumulate: int = 1


class Switched(Event, frozen=True, kw_only=True):
    """Steps are executed in another way from `step` on."""

    step: int
    executor: str
    why: str = ""


class Changed(Event, frozen=True, kw_only=True):
    """A live setting has a new value from `step` on."""

    step: int
    field: str
    value: float
    by: str = ""


class Noted(Event, frozen=True, kw_only=True):
    """A decision or a measurement."""

    message: str
    code: str = ""
    """One of :mod:`epochtop.engine.protocol.codes`."""


class Warned(Event, frozen=True, kw_only=True):
    """Something the user should know that does not end the run."""

    message: str
    code: str = ""
    """One of :mod:`epochtop.engine.protocol.codes`."""


class Prepared(Event, frozen=True, kw_only=True):
    """An experiment is about to measure."""

    time: float
    """Unix time in seconds."""
    budget_s: float
    devices: tuple[str, ...]
    machine: dict[str, Cell]
    """What it is measured on: processor, threads, memory, GPU, versions."""
    cannot_see: tuple[str, ...] = ()
    """What this machine cannot show, a sentence each."""


class Measured(Event, frozen=True, kw_only=True):
    """A row of figures of an experiment."""

    values: dict[str, Cell]


class Concluded(Event, frozen=True, kw_only=True):
    """An experiment has ended, by itself or by command; the last event of its run."""

    time: float
    seconds: float
    outcome: Literal["finished", "stopped"]
    verdict: Verdict
    cannot_see: tuple[str, ...] = ()


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A learning rate that a run with the schedule `range_test` found, and what speaks for it."""

    learning_rate: float
    """The one to try: `steepest_rate` in two digits."""
    steepest_rate: float
    """Where the smoothed loss fell fastest over the logarithm of the rate."""
    lowest_rate: float
    """Where the smoothed loss was lowest."""
    tenth_of_lowest: float
    """A tenth of that, the other usual rule."""
    first_loss: float
    """Smoothed, at the beginning."""
    lowest_loss: float


class Telemetry(Event, frozen=True, kw_only=True):
    """How busy the device in use was, every few seconds. None is unknown."""

    time: float
    """Unix time in seconds."""
    engine_cpu_percent: float | None = None
    """Of the engine's process; 100 is one CPU kept busy."""
    engine_memory_bytes: int | None = None
    """Resident."""
    gpu_percent: float | None = None
    """Share of the time in which some kernel ran on the device."""
    sm_percent: float | None = None
    """Share of the multiprocessors that were busy."""
    gpu_memory_bytes: int | None = None
    """Used on the device, by everybody."""
    temperature_c: float | None = None
    power_w: float | None = None
    slowed_by: tuple[str, ...] = ()
    """What held the device's clocks back."""
    reason: str = ""
    """Why the device's figures are unknown; empty when they are known, or the device is the CPU."""


class Finished(Event, frozen=True, kw_only=True):
    """The one summary of a run that ended by itself, by command, or in NaN."""

    time: float
    outcome: Outcome
    reason: str
    advice: str = ""
    steps: int
    epochs: float
    seconds: float
    """Of training alone: no set-up, no pauses, evaluations and saving included."""
    steps_per_second: float
    final_loss: float | None
    best_loss: float | None
    best_step: int | None
    diverged_step: int | None = None
    test_loss: float | None = None
    test_metric: float | None = None
    best_test_loss: float | None = None
    metrics: dict[str, float | None] = {}
    """Of the test rows with the last weights."""
    device_reads: int
    waited_seconds: float
    suggestion: Suggestion | None = None
    """Of a range test whose loss fell."""
    planned_memory_bytes: int | None = None
    """What the plan said the run needs."""
    peak_memory_bytes: int | None = None
    """The most it really held: what torch allocated on the device; on the CPU by how much the process grew."""


class Failed(Event, frozen=True, kw_only=True):
    """The run could not go on: what went wrong, where, and what would help."""

    time: float
    step: int
    message: str
    advice: str = ""
    traceback: str = ""


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


# --- commands: imperative, one a line of commands.jsonl ------------------------------------------------


class Command(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Something a viewer asks of a running engine."""

    by: str = ""
    """Who asks, as `user@host:pid`; comes back in the event that answers."""


class Pause(Command, frozen=True, kw_only=True):
    """Finish the step and wait."""


class Resume(Command, frozen=True, kw_only=True):
    """Go on after a pause."""


class Stop(Command, frozen=True, kw_only=True):
    """Finish the step, evaluate, save, end."""


class Save(Command, frozen=True, kw_only=True):
    """Write a checkpoint now."""


class Set(Command, frozen=True, kw_only=True):
    """Change a live setting."""

    field: Literal["learning_rate", "refresh_ms"]
    value: float


AnyCommand = Pause | Resume | Stop | Save | Set


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of run.json: what was asked, by which versions, on which host, when."""

    spec: RunSpec
    """Of an experiment: the job it measures."""
    experiment: ExperimentRequest | None = None
    """None for a run that trains."""
    created: float
    """Unix time in seconds."""
    host: str
    user: str
    pid: int
    """Process id of the engine."""
    versions: dict[str, str]
    protocol: int = PROTOCOL_VERSION


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a line can raise: not JSON or not of the type, not UTF-8, nested without end."""

encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""Any of these types to one line of JSON, without the newline."""
decode_event: Callable[[bytes], AnyEvent] = msgspec.json.Decoder(AnyEvent).decode
decode_command: Callable[[bytes], AnyCommand] = msgspec.json.Decoder(AnyCommand).decode
decode_record: Callable[[bytes], RunRecord] = msgspec.json.Decoder(RunRecord).decode
