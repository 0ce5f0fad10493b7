"""Fields and rows of the experiment `executors`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.datasets import declared

CACHES = {"new": "", "part": " with part of it cached", "kept": " with all of it cached"}
"""The state of the cache before a set-up, in words; the emptiest first."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether to wait for the slow executor."""

    compile: Annotated[
        Literal["auto", "yes", "no"],
        declared(
            "measure the executor compile: auto does if time allows, and not with quick; yes waits up to 3 minutes",
            "experiment",
        ),
    ] = "auto"


class JobFacts(Measurement, frozen=True, kw_only=True, tag="job"):
    """The steps of the job's run, and its threads."""

    device: str
    steps: int
    threads: int = 0


class SetUpTime(Measurement, frozen=True, kw_only=True, tag="setup"):
    """The set-up of an executor."""

    device: str
    executor: str
    cache: str
    """A key of CACHES."""
    round: int
    seconds: float


class StepTime(Measurement, frozen=True, kw_only=True, tag="step"):
    """A step with an executor, and the whole run of the job that follows from it."""

    device: str
    executor: str
    round: int
    repeats: int = 0
    seconds: float
    steps: int
    run_seconds: float


class LeftOut(Measurement, frozen=True, kw_only=True, tag="left_out"):
    """An executor that was not measured, with the reason."""

    device: str
    executor: str
    why: str
