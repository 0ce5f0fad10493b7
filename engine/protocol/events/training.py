"""Events of a run that the engine trains. Imports msgspec and other modules of the protocol only."""

from __future__ import annotations

import msgspec

from epochtop.engine.protocol.datasets import ColumnFact
from epochtop.engine.protocol.events.event import Event, Step, UnixTime


class Started(Event, frozen=True, kw_only=True):
    """The job is built and the first step is about to run."""

    time: UnixTime
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
    columns: tuple[ColumnFact, ...] = ()
    """What the run does with each column of a table, and with arrays, images and texts; empty for other data, and in logs of older
    versions."""
    fallback: str = ""
    """Why steps are eager although another executor was requested; empty otherwise, and in logs of older versions."""


class Losses(Event, frozen=True, kw_only=True):
    """The losses of one window: consecutive steps from `first_step`, without a gap after the window before."""

    first_step: Step
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

    def __post_init__(self) -> None:
        """Raises ValueError if `values` are not whole numbers of 4 bytes."""
        if len(self.values) % 4:
            raise ValueError(f"`values` has {len(self.values)} bytes, no multiple of 4")


class Evaluated(Event, frozen=True, kw_only=True):
    """Loss and metrics on held-out rows, with the weights before step `step`."""

    step: Step
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

    def __post_init__(self) -> None:
        """Raises ValueError if the confusion matrix is not square."""
        if self.confusion is not None and any(len(row) != len(self.confusion) for row in self.confusion):
            raise ValueError("`confusion` is not square")


class Mapped(Event, frozen=True, kw_only=True):
    """Decision regions of a classifier with two features: its answer in every cell of a grid, before step `step`."""

    step: Step
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

    def __post_init__(self) -> None:
        """Raises ValueError if the grid does not have one class per cell."""
        if min(self.columns, self.rows) < 0 or len(self.cells) != self.columns * self.rows:
            raise ValueError(f"`cells` has {len(self.cells)} classes for {self.columns} × {self.rows} cells")
        if max(self.cells, default=0) >= max(len(self.classes), 1):
            raise ValueError("`cells` has a class without a name")


class Saved(Event, frozen=True, kw_only=True):
    """A complete checkpoint is stored in `checkpoints/<kind>`."""

    step: Step
    """Number of steps the checkpoint includes."""
    kind: str
    """Name of the checkpoint: `last`, `best` or `epoch-N`."""


class Continued(Event, frozen=True, kw_only=True):
    """A new engine resumes a run that had ended or died, from its checkpoint of step `step`.

    Steps `step` … `recorded`−1 run again; their losses are already in the log and are not written twice. Events that
    ended the run before no longer count.
    """

    time: UnixTime
    """Unix time in seconds."""
    step: Step
    """First step that runs again."""
    recorded: Step
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

    step: Step
    executor: str
    """Executor from here on: `eager`, `graph` or `compile`."""
    why: str = ""
    """Reason, in one sentence."""


class Telemetry(Event, frozen=True, kw_only=True):
    """Load of the engine and of its device, every few seconds. None means unknown."""

    time: UnixTime
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
