"""`find-lr` and `find-batch`: what to train with, found by trying.

Both leave the trying to an engine process; this module never imports torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from epochtop.engine.protocol.quantities import format_bytes, format_number
from epochtop.engine.protocol.requests import BatchFound, Refused
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.tui.cli.train import STATUS, train_to_the_end
from epochtop.tui.client.standby import EngineDied, Standby
from epochtop.tui.state.run import RunState

TOP = 10.0
"""The learning rate that a test ends with, unless another is asked for; it begins at 1e-7 of it."""
STEPS = 250
"""Of a test, unless max_steps says so: some 35 for each power of ten."""
SET_BY_TEST = (
    *("schedule", "epochs", "warmup", "patience", "eval_every", "eval_epochs"),
    *("save_every", "keep_epochs", "max_seconds"),
)
"""Fields that a test sets itself, which are no flags of its command."""


def rate_defaults() -> RunSpec:
    """What `find-lr` trains unless it is told otherwise."""
    return RunSpec(learning_rate=TOP, max_steps=STEPS)


def find_lr(spec: RunSpec, home: Path, as_json: bool) -> int:
    """Run a range test and say which learning rate it suggests. Returns 0, or 3 for no suggestion; raises Invalid."""
    steps = spec.max_steps or STEPS
    test = msgspec.structs.replace(
        spec, schedule="range_test", max_steps=steps, epochs=steps, eval_every=0.0, save_every=0.0
    )
    trained = train_to_the_end(test, home, quiet=as_json)
    if isinstance(trained, int):
        return trained
    run, state = trained
    if as_json:
        sys.stdout.write(msgspec.json.encode(_rate_found(run, state)).decode() + "\n")
    elif state.finished is not None:
        sys.stdout.write(_rate_words(run, state) + "\n")
    status = STATUS[state.state]
    return status or (0 if state.finished and state.finished.suggestion else 3)


def _rate_found(run: Path, state: RunState) -> dict[str, Any]:
    end = state.finished
    found = end.suggestion if end else None
    names = ("learning_rate", "steepest_rate", "lowest_rate", "tenth_of_lowest", "first_loss", "lowest_loss")
    return {
        "run": run.name,
        "outcome": state.state,
        "reason": end.reason if end else state.verdict(),
        "steps": state.step,
        **{name: getattr(found, name) if found else None for name in names},
    }


def _rate_words(run: Path, state: RunState) -> str:
    assert state.finished is not None
    found = state.finished.suggestion
    if found is None:
        return f"{state.finished.advice}; `epochtop attach {run.name}` shows its curve"
    return (
        f"--learning-rate {found.learning_rate:g}\n"
        f"the loss fell fastest there; it was lowest, {format_number(found.lowest_loss)} after {format_number(found.first_loss)}, at "
        f"{found.lowest_rate:.2g}, and a tenth of that, {found.tenth_of_lowest:.2g}, is the other usual choice\n"
        f"`epochtop attach {run.name}` shows the loss over the learning rate"
    )


# --- the batch size ----------------------------------------------------------------------------------------------


def find_batch(spec: RunSpec, margin: float, as_json: bool) -> int:
    """Say which batch is the largest that fits. Returns 0, or 1 if the engine died; raises Invalid."""
    standby = Standby()
    try:
        reply = standby.find_batch(spec, margin)
    except EngineDied as error:
        sys.stderr.write(f"epochtop: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        standby.close()
    if isinstance(reply, Refused):
        raise Invalid(reply.field, reply.message)
    sys.stdout.write((msgspec.json.encode(reply).decode() if as_json else _batch_words(reply)) + "\n")
    return 0


def _batch_words(found: BatchFound) -> str:
    tries = ", ".join(
        f"{rows:,}: {format_bytes(need) if need is not None else 'did not fit'}" for rows, need in found.tries
    )
    kind = "all training rows" if found.batch_size == found.rows else "the largest power of two that fits"
    return (
        f"--batch-size {found.batch_size}\n"
        f"{kind} on {found.device}, of {found.rows:,} rows; {found.ended}\n"
        f"a row needs {format_bytes(found.row_bytes)}; this batch {format_bytes(found.needed_bytes)} of {format_bytes(found.budget_bytes)}, "
        f"{found.margin:.0%} of the {format_bytes(found.available_bytes)} that were free\n"
        f"measured in full steps with an evaluation: {tries}"
    )
