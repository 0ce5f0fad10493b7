"""The rows in which the preloaded library lets calls fail, and a run that trains meanwhile.

`take` returns facts: what the run was at its end, its losses, what the folder holds, and what a later engine makes of it. The
test that reads them decides whether that is right.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

OPERATIONS = ("write", "sync", "rename", "open")
PLACES = ("events.jsonl", "checkpoints", "output.log", "runs/")
ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EROFS", "slow")
MOMENTS = ("once", "for a while", "to the end")
FOREVER = 10**9


class Row(NamedTuple):
    """One fault."""

    operation: str
    place: str
    error: str
    moment: str

    @property
    def setting(self) -> str:
        """As the library reads it."""
        number = 0 if self.error == "slow" else getattr(errno, self.error)
        first, count = (2, 1) if self.moment == "once" else (2, FOREVER)
        return f"{self.operation}:{number}:{first}:{count}:{self.place}"


def possible(row: Row) -> bool:
    """The log is opened once, never renamed, and output.log is written only when something is wrong."""
    if row.place == "events.jsonl":
        return row.operation in ("write", "sync")
    if row.place == "output.log":
        return row.operation == "write"
    return True


TABLE = [row for row in itertools.starmap(Row, itertools.product(OPERATIONS, PLACES, ERRORS, MOMENTS)) if possible(row)]
IN_CI = [
    Row("write", "events.jsonl", "ENOSPC", "for a while"),
    Row("write", "checkpoints", "EDQUOT", "to the end"),
    Row("sync", "checkpoints", "EIO", "once"),
    Row("rename", "checkpoints", "ENOSPC", "once"),
    Row("open", "runs/", "EROFS", "to the end"),
    Row("write", "events.jsonl", "slow", "to the end"),
]
STEPS = 1500
HEALS_AFTER_S = 0.6


def spec_of_run() -> Any:
    """The run of every row."""
    from epochtop.engine.protocol.spec import RunSpec

    return RunSpec(
        epochs=STEPS, threads=1, device="cpu", executor="eager", refresh_ms=10, save_every=0.05, eval_every=0
    )


def train(
    run: Path, lock: IO[bytes], moment: str, observer: Any = None, on_start: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Train to the end. Whether everything was written, and how long it took.

    The run has little patience with a disk that will not work again, and enough with one that will, if slowly.
    """
    from epochtop.engine.job.prepare import prepare_job
    from epochtop.engine.training import loop, recorder

    recorder.PATIENCE_S, recorder.RETRY_S = 1.0 if moment == "to the end" else 60.0, 0.05
    spec = spec_of_run()
    began = time.monotonic()
    with lock:
        writing = recorder.Recorder(run, spec, observer=observer)
        training = loop.Loop(prepare_job(spec), writing)
        writing.start(on_command=training.wake)
        on_start()
        writing.put(training.run())
        written = writing.close()
    return {"written": written, "seconds": time.monotonic() - began}


def take(row: Row, folder: Path) -> dict[str, Any]:
    """Train while the disk fails; returns the facts."""
    from epochtop.engine.protocol.spec import Invalid
    from epochtop.engine.runs.writer import create

    home = folder / "runs"
    facts: dict[str, Any] = {"row": list(row)}
    os.environ["EPOCHTOP_FAULT_HITS"] = str(folder / "hits")
    over = threading.Event()

    def heal_later() -> None:
        while not hits(folder) and not over.wait(0.005):
            pass
        over.wait(HEALS_AFTER_S)
        heal()

    healing = threading.Thread(target=heal_later, name="healing")
    try:
        os.environ["EPOCHTOP_FAULT"] = row.setting
        run, lock = create(home, spec_of_run(), {}, time.time())
    except Invalid as error:
        heal()
        return facts | {"refused": error.message, "left": names(home), "hits": hits(folder)}
    try:
        facts |= train(run, lock, row.moment, on_start=healing.start if row.moment == "for a while" else lambda: None)
    finally:
        over.set()
        if healing.ident is not None:
            healing.join()
        heal()
    return facts | {"hits": hits(folder)} | after(run)


def hits(folder: Path) -> int:
    """Calls that failed or were slow."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / "hits").stat().st_size
    return 0


def after(run: Path) -> dict[str, Any]:
    """What the run looks like on a disk that works again, and whether it can be resumed."""
    import numpy as np

    from epochtop.engine.protocol.spec import Invalid
    from epochtop.engine.runs.files import clean_run
    from epochtop.engine.runs.index import summarize
    from epochtop.engine.training.resume import resumable_run
    from tests.support.engines import events, losses
    from tests.support.executors import go_on

    try:
        recorded = losses(run)
    except AssertionError as error:
        return {"broken": f"losses are missing or come twice: {error}"}
    facts: dict[str, Any] = {
        "state": summarize(run).state,
        "steps": len(recorded),
        "finite": bool(np.isfinite(recorded).all()),
        "warnings": sum("Bad" in type(event).__name__ for event in events(run)),
    }
    with contextlib.suppress(Invalid):
        resumable_run(run)
        clean_run(run)
        go_on(run)
        facts["resumed"] = True
    facts["losses"] = losses(run).tobytes().hex()
    facts["left"] = names(run)
    return facts


def names(folder: Path) -> list[str]:
    """Names of all files below, without those of checkpoints that have a json."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def heal() -> None:
    """Let the disk work."""
    os.environ["EPOCHTOP_FAULT"] = ""
