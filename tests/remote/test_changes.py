"""Names, tags, notes and the end of a run on another machine: changed there, and shown here at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import delete, rename, summarize
from epochtop.engine.runs.paths import EVENTS, RECORD
from epochtop.engine.runs.reader import read_record
from epochtop.engine.runs.remote.host import Host
from epochtop.engine.runs.remote.mirror import Mirror
from epochtop.engine.runs.table.labels import Labels, labels_of, set_labels
from epochtop.remote.changing import delete_run, replace_record
from tests.remote.machines import StandIn
from tests.support.engines import wait_until
from tests.support.runs import engine_alive, events_of, write_run

RUN, EXPERIMENT = "iris-mlp-0001", "lab/reads-0001"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The home folder of the other machine, with a run and an experiment."""
    folder = tmp_path / "there"
    write_run(folder, RUN, events_of("finished"))
    write_run(folder / "lab", "reads-0001", events_of("finished"))
    return folder


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    machine = StandIn(tmp_path / "box")
    machine.use(monkeypatch)
    return machine


@pytest.fixture
def mirror(box: StandIn, there: Path) -> Iterator[Mirror]:
    with closing(Mirror(Host("box", str(there)))) as connected:
        connected.wait_until_listed()
        yield connected


def test_name_tags_and_notes_are_stored_there_as_they_would_be_here(there: Path, mirror: Mirror, home: Path) -> None:
    home.mkdir()
    here, copy, labels = write_run(home, RUN, events_of("finished")), mirror.folder / RUN, Labels(("base", "é"), "slow")
    before = (there / RUN / EVENTS).read_bytes()
    for run in (here, copy):
        rename(run, "night")
        set_labels(run.parent, run, labels)
        assert (summarize(run).name, labels_of(read_record(run))) == ("night", labels)
    assert (there / RUN / RECORD).read_bytes() == (here / RECORD).read_bytes()
    assert (there / RUN / EVENTS).read_bytes() == before
    with pytest.raises(Invalid):
        rename(copy, "x" * 1000)


def test_a_run_and_an_experiment_are_deleted_there(there: Path, mirror: Mirror) -> None:
    for name in (RUN, EXPERIMENT):
        delete(mirror.folder / name)
        assert not (there / name).exists()
        assert not (mirror.folder / name).exists()


def test_without_a_connection_nothing_is_changed(box: StandIn, there: Path, mirror: Mirror) -> None:
    box.unplug()
    wait_until(lambda: mirror.problem)
    for change in (lambda: rename(mirror.folder / RUN, "night"), lambda: delete(mirror.folder / RUN)):
        with pytest.raises(Invalid, match="there is no connection to box, so nothing was changed"):
            change()
    assert summarize(there / RUN).name == summarize(mirror.folder / RUN).name != "night"


# --- on the other machine ----------------------------------------------------------------------------------------


def test_a_record_that_changed_meanwhile_or_is_a_link_stays(there: Path) -> None:
    run = there / RUN
    old = (run / RECORD).read_bytes()
    digest = hashlib.sha256(old).hexdigest()
    assert replace_record(run, digest, b"[]") == "its record cannot be replaced"
    assert replace_record(run, digest, b"{") == "it is not a record"
    assert replace_record(run, hashlib.sha256(b"").hexdigest(), b"{}").startswith("the run was changed there")
    (run / RECORD).rename(there / "original")
    (run / RECORD).symlink_to(there / "original")
    assert replace_record(run, digest, b"{}") == "its record cannot be replaced"
    assert (there / "original").read_bytes() == old
    assert replace_record(there / "gone", digest, b"{}") == "No such file or directory"


def test_only_a_run_that_has_ended_is_deleted(there: Path, tmp_path: Path) -> None:
    run = there / RUN
    with engine_alive(run):
        assert delete_run(run) == "it is still running; stop it first"
    assert json.loads((run / RECORD).read_text())
    (there / "linked").symlink_to(run)
    assert delete_run(there / "linked")
    (there / "no-run").mkdir()
    assert delete_run(there / "no-run") == "there is no such run any more"
    assert delete_run(run) == ""
    assert not run.exists()
