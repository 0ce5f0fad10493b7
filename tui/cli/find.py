"""`find-lr` and `find-batch`: a learning rate and a batch size, found by trial.

An engine process does the trials; this module never imports torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from epochtop.engine.protocol.quantities import format_bytes, format_number
from epochtop.engine.protocol.requests import BatchFound
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.terminal.output import write, write_json
from epochtop.tui.cli.train import STATUS, train_to_the_end
from epochtop.tui.client.foreground import ask
from epochtop.tui.state.run import RunState

TOP = 10.0
"""The last learning rate of a test, unless one is set; the first is 1e-7 of it."""
STEPS = 250
"""Steps of a test, unless max_steps is set: about 35 for each power of ten."""
SET_BY_TEST = (
    *("schedule", "epochs", "warmup", "patience", "eval_every", "eval_epochs"),
    *("save_every", "keep_epochs", "max_seconds"),
)
"""Fields that a test sets itself; they are not flags of its command."""


def rate_defaults() -> RunSpec:
    """Defaults of `find-lr`."""
    return RunSpec(learning_rate=TOP, max_steps=STEPS)


def find_lr(spec: RunSpec, home: Path, as_json: bool) -> int:
    """Run a range test and print the learning rate it suggests. Returns 0, or 3 without one. Raises Invalid, EngineDied."""
    steps = spec.max_steps or STEPS
    test = msgspec.structs.replace(
        spec, schedule="range_test", max_steps=steps, epochs=steps, eval_every=0.0, save_every=0.0
    )
    run, state = train_to_the_end(test, home, quiet=as_json)
    if as_json:
        write_json(msgspec.json.encode(_rate_result(run, state)))
    elif state.finished is not None:
        write(_rate_text(run, state) + "\n")
    status = STATUS[state.state]
    return status or (0 if state.finished and state.finished.suggestion else 3)


def _rate_result(run: Path, state: RunState) -> dict[str, Any]:
    end = state.finished
    suggestion = end.suggestion if end else None
    names = ("learning_rate", "steepest_rate", "lowest_rate", "tenth_of_lowest", "first_loss", "lowest_loss")
    return {
        "run": run.name,
        "outcome": state.state,
        "reason": end.reason if end else state.verdict(),
        "steps": state.step,
        **{name: getattr(suggestion, name) if suggestion else None for name in names},
    }


def _rate_text(run: Path, state: RunState) -> str:
    assert state.finished is not None
    suggestion = state.finished.suggestion
    if suggestion is None:
        return f"{state.finished.advice}; `epochtop attach {run.name}` shows the curve"
    first, lowest = format_number(suggestion.first_loss), format_number(suggestion.lowest_loss)
    return (
        f"--learning-rate {suggestion.learning_rate:g}\n"
        f"the loss fell fastest at this rate; it fell from {first} to its lowest value, {lowest}, at "
        f"{suggestion.lowest_rate:.2g}; a tenth of that rate, {suggestion.tenth_of_lowest:.2g}, is the other common choice\n"
        f"`epochtop attach {run.name}` shows the loss over the learning rate"
    )


# --- the batch size ----------------------------------------------------------------------------------------------


def find_batch(spec: RunSpec, margin: float, as_json: bool) -> int:
    """Print the largest batch that fits. Returns 0. Raises Invalid, EngineDied."""
    reply = ask(lambda standby: standby.find_batch(spec, margin), on_progress=lambda _: None)
    if as_json:
        write_json(msgspec.json.encode(reply))
    else:
        write(_batch_text(reply) + "\n")
    return 0


def _batch_text(reply: BatchFound) -> str:
    tries = ", ".join(
        f"{rows:,}: {format_bytes(need) if need is not None else 'did not fit'}" for rows, need in reply.tries
    )
    kind = "all training rows" if reply.batch_size == reply.rows else "the largest power of two that fits"
    return (
        f"--batch-size {reply.batch_size}\n"
        f"{kind} on {reply.device}, of {reply.rows:,} rows; {reply.ended}\n"
        f"a row needs {format_bytes(reply.row_bytes)}; this batch needs {format_bytes(reply.needed_bytes)} of "
        f"{format_bytes(reply.budget_bytes)}, {reply.margin:.0%} of the {format_bytes(reply.available_bytes)} that were free\n"
        f"measured in full steps with an evaluation: {tries}"
    )
