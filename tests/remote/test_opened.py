"""Logs of other tools that were opened on another machine: listed here, and followed across a drop."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from epochtop.engine.runs.opened.folders import OpenedLogs
from epochtop.engine.runs.remote.host import Host
from epochtop.engine.runs.remote.mirror import Mirror
from epochtop.formats.scan import find_logs
from epochtop.remote import opened
from epochtop.remote.opened import OpenedFolders
from tests.formats.writers import Read, losses, tensorboard
from tests.remote.machines import StandIn
from tests.support.engines import wait_until
from tests.support.runs import events_of, write_run

EVENTS = "events.out.tfevents.1.box"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder with a log of each kind, in which large and foreign files lie too, and the home folder that opened it."""
    folder = tmp_path / "logs"
    (folder / "tb").mkdir(parents=True)
    (folder / "tb" / EVENTS).write_bytes(tensorboard(losses(3)))
    (folder / "csv").mkdir()
    (folder / "csv" / "metrics.csv").write_text("epoch,step,train_loss\n0,0,1.0\n0,1,0.5\n")
    (folder / "csv" / "weights.ckpt").write_bytes(b"w" * 1000)
    (folder / "csv" / "secret.csv").symlink_to("/etc/passwd")
    write_run(folder, "iris-mlp-0001", events_of("finished"))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "opened.json").write_text(json.dumps({"paths": [str(folder)]}))
    return folder


def test_only_files_that_may_be_logs_are_sent(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = OpenedFolders(tmp_path / "there", {})
    names = [header["name"] for header, _ in folders.next_frames()]
    assert names == ["0/logs/csv/metrics.csv", f"0/logs/tb/{EVENTS}"]
    assert list(folders.next_frames()) == []
    monkeypatch.setattr(opened, "LARGEST_LOG", 10)
    types = [header["type"] for header, _ in OpenedFolders(tmp_path / "there", {}).next_frames()]
    assert types == ["left_out", "log"]


def test_logs_of_another_machine_are_listed_and_followed(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = StandIn(tmp_path / "box")
    box.use(monkeypatch)
    with closing(Mirror(Host("box", str(tmp_path / "there")))) as mirror:
        wait_until(lambda: len(find_logs(mirror.folder / "opened").logs if mirror.opened_paths() else []) == 2)
        listed = {log.kind: log for log in OpenedLogs(mirror.folder).list()}
        assert {kind: log.path.name for kind, log in listed.items()} == {
            log.kind: log.path.name for log in find_logs(logs).logs if log.kind != "epochtop"
        }
        board = next(log for log in listed.values() if log.path.name == "tb")
        mirrored, original = board.path / EVENTS, logs / "tb" / EVENTS
        wait_until(lambda: mirrored.read_bytes() == original.read_bytes())
        assert mirrored.stat().st_mtime == pytest.approx(original.stat().st_mtime, abs=1e-3)
        read = Read(board.follow())
        box.unplug()
        wait_until(lambda: mirror.problem)
        with open(original, "ab") as file:
            file.write(tensorboard(losses(6)[3:]))
        (logs / "csv" / "metrics.csv").write_text("epoch,step,train_loss,lr\n0,0,1.0,1\n")
        box.plug()
        wait_until(lambda: mirrored.read_bytes() == original.read_bytes())
        assert list(read.more().series["train/loss"]) == list(range(6))
        csv = mirror.folder / "opened" / "0" / "logs" / "csv" / "metrics.csv"
        wait_until(lambda: csv.read_text() == (logs / "csv" / "metrics.csv").read_text())
