"""An engine that starts: it warns of a disk that is too small for its checkpoints, and cleans up after killed ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import DISK_SPACE, Finished, Saved, Warned
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.paths import CHECKPOINTS, EVENTS, LOCK
from epochtop.engine.training import checkpoint
from tests.runs.test_files import names
from tests.support.engines import Engine, Watch, events, is_window

NEARLY_FULL = """
import sys
from types import SimpleNamespace
from epochtop.engine.process import run, standby
run.shutil.disk_usage = lambda folder: SimpleNamespace(free={free})
sys.exit(standby.main())
"""


@pytest.mark.parametrize(("save_every", "copies"), [(0.0, 1), (10.0, 2)])
@pytest.mark.parametrize("missing", [0, 1])
def test_too_little_space_for_checkpoints_is_reported_before_the_first_step(
    home: Path, save_every: float, copies: int, missing: int
) -> None:
    needed = (
        4 * 83 * (1 + 1 + 2) + 8 * 120
    )  # float32 of 83 parameters: best, last, and Adam's two; the order of 120 rows
    spec = RunSpec(
        epochs=50, optimizer="adam", device="cpu", threads=1, executor="eager", save_every=save_every
    )  # fmt: skip
    with Engine(("-c", NEARLY_FULL.replace("{free}", str(copies * needed - missing)))) as engine:
        run = engine.train(spec, home)
        assert engine.wait() == 0
    recorded = events(run)
    reports = [event for event in recorded if isinstance(event, Warned) and event.code == DISK_SPACE]
    assert len(reports) == missing
    if reports:
        first = next(place for place, event in enumerate(recorded) if is_window(event))
        assert recorded.index(reports[0]) < first
        assert f"need {format_bytes(copies * needed)}" in reports[0].message
        assert str(run) in reports[0].message


def test_an_engine_that_starts_cleans_up_after_killed_ones(home: Path) -> None:
    spec = RunSpec(epochs=10**9, device="cpu", threads=1, executor="eager", save_every=0.001, eval_every=0.001)
    with Engine() as engine:
        run = engine.train(spec, home)
        Watch(run).until(Saved, lambda event: event.kind == "last")
        engine.kill()
    folder = run / CHECKPOINTS
    (folder / "last-999999999.safetensors").write_bytes(b"never named by a json")
    (folder / "epoch-3-360.safetensors").write_bytes(b"of a kind that this run does not save again")
    (folder / ".best-3.safetensors.1.epochtop").write_bytes(b"half")
    foreign = folder / "my-thesis-1.safetensors"
    foreign.write_bytes(b"mine")
    abandoned = home / ".new-0123456789abcdef"  # its process was killed while it began another run
    abandoned.mkdir()
    for name in (LOCK, EVENTS):
        (abandoned / name).touch()
    with Engine() as engine:
        assert isinstance(engine.resume(run), Accepted)
        watch = Watch(run)
        watch.command(Stop(), Finished)
        assert engine.wait() == 0
    assert not abandoned.exists()
    assert foreign.read_bytes() == b"mine"
    foreign.unlink()
    left = names(folder)
    tensors = {checkpoint.read_info(run, name.removesuffix(".json")).file for name in left if name.endswith(".json")}
    assert {name for name in left if not name.endswith(".json")} == tensors
    assert not [name for name in names(run) if name.startswith(".")]
