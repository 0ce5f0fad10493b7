"""The functions of the package, and scripts that were written for wandb."""

from __future__ import annotations

from pathlib import Path

import pytest

import epochtop
from epochtop.engine.protocol.events import Configured, ScriptEnded, Summarized
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.reader import read_record
from epochtop.recording import current
from epochtop.recording.values import ignored
from tests.recording.scripts import only_run, recorded, run, series


@pytest.fixture(autouse=True)
def _no_current_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "_current", None)
    monkeypatch.setattr(ignored._report, "_known", set())


def test_two_lines_record_a_script(home: Path) -> None:
    status, _, errors = run("import epochtop\nfor i in range(3): epochtop.log(loss=1 / (i + 1))", home)
    assert (status, errors) == (0, "")
    path = only_run(home)
    assert series(path) == {"loss": [(0, 1.0), (1, 0.5), (2, 1 / 3)]}
    assert path.name.startswith("python-")
    assert isinstance(recorded(path)[-1], ScriptEnded)


WANDB = """
    import epochtop as wandb

    wandb.login()
    run = wandb.init(
        project="vision", entity="team", name="baseline", config={"lr": 0.1, "layers": [1, 2]}, tags=["a"], job_type="train",
        dir="/tmp", mode="online", settings=wandb.Settings(start_method="fork"), group="g", notes="n", save_code=True,
    )
    wandb.config.update({"seed": 3}, allow_val_change=True)
    wandb.define_metric("val/*", step_metric="epoch")
    wandb.watch(object(), log="all", log_freq=10)
    for step in range(3):
        wandb.log({"train": {"loss": 1.0 / (step + 1)}, "image": wandb.Image("x")}, step=step)
    wandb.log({"train": {"loss": 0.25}}, 3)
    wandb.log({"a": 1}, commit=False)
    wandb.log({"b": 2})
    table = wandb.Table(columns=["a"])
    table.add_data(1)
    wandb.log({"table": table, "curve": wandb.plot.line(table, "x", "y", title="t")})
    artifact = wandb.Artifact("model", type="model")
    with artifact.new_file("x") as file:
        file.write("x")
    wandb.run.log_artifact(artifact)
    wandb.run.summary["best"] = 0.9
    wandb.summary["worst"] = 0.1
    wandb.save("model.pt")
    assert len({wandb.util.generate_id() for _ in range(9)}) == 9
    annotation = wandb.sdk.wandb_run.Run
    try:
        raise ValueError("not wandb's")
    except (wandb.errors.CommError, wandb.Error):
        raise
    except ValueError:
        wandb.alert(title="t", text="t", level=wandb.AlertLevel.WARN)
    print(wandb.run.name, wandb.config.lr, wandb.config["layers"], bool(wandb.run.id), wandb.run.url)
    wandb.finish()
    print(wandb.run)
"""


def test_a_script_for_wandb_runs_with_another_import(home: Path) -> None:
    status, output, errors = run(WANDB, home)
    assert status == 0, errors
    assert output == "baseline 0.1 [1, 2] True None\nNone\n"
    path = only_run(home)
    assert series(path) == {
        "train/loss": [(0, 1.0), (1, 0.5), (2, 1 / 3), (3, 0.25)],
        "a": [(4, 1.0)],
        "b": [(4, 2.0)],
    }
    record = read_record(path)
    assert record.script is not None
    assert (record.script.name, record.script.project, record.script.group) == ("baseline", "vision", "g")
    events = recorded(path)
    assert [event.values for event in events if isinstance(event, Configured)] == [{"seed": 3}]
    assert [event.values for event in events if isinstance(event, Summarized)] == [{"best": 0.9}, {"worst": 0.1}]
    for name in (
        "Settings",
        "define_metric",
        "watch",
        "Image",
        "Table",
        "plot.line",
        "Artifact",
        "log_artifact",
        "save",
        "alert",
    ):
        assert errors.count(f"epochtop: {name} is ignored") == 1, errors
    assert len(errors.splitlines()) == 10, errors


def test_a_run_without_a_name_is_named_by_its_id(home: Path) -> None:
    recording = epochtop.init(project="vision")
    assert recording.path is not None
    assert recording.name == recording.id == Path(recording.path).name
    assert read_record(Path(recording.path)).name == ""
    epochtop.finish()
    assert epochtop.init(mode="disabled").name
    epochtop.finish()


def test_files_of_a_script_for_wandb_have_a_folder(home: Path) -> None:
    recording = epochtop.init("files")
    assert recording.path is not None
    assert recording.dir == str(Path(recording.path) / "files")
    (Path(recording.dir) / "model.pt").write_bytes(b"x")
    assert (recording.entity, recording.offline, recording.sweep_id) == ("", True, None)
    epochtop.finish()
    disabled = epochtop.init(mode="disabled")
    assert Path(disabled.dir).is_dir()
    Path(disabled.dir).rmdir()
    epochtop.finish()


def test_a_second_init_ends_the_first_run_unless_it_names_nothing(home: Path) -> None:
    first = epochtop.init("one")
    epochtop.log(loss=1.0)
    assert epochtop.init() is first
    second = epochtop.init("two")
    epochtop.log(loss=2.0)
    epochtop.finish()
    assert first.is_finished
    assert {path.name[:3]: series(path) for path in run_paths(home)} == {
        "one": {"loss": [(0, 1.0)]},
        "two": {"loss": [(0, 2.0)]},
    }
    assert second.is_finished
    assert epochtop.run is None
    epochtop.finish()


def test_init_continues_a_run_by_its_id(home: Path) -> None:
    first = epochtop.init("one")
    epochtop.log(loss=1.0)
    epochtop.finish()
    epochtop.init(id=first.id, resume="allow")
    epochtop.log(loss=2.0)
    epochtop.finish()
    assert series(only_run(home)) == {"loss": [(0, 1.0), (1, 2.0)]}


def test_init_continues_a_run_by_the_id_that_the_script_has_chosen(home: Path) -> None:
    for rate in (0.1, 0.2):
        epochtop.init(name="night", id="job-7", resume="allow", config={"lr": rate})
        epochtop.log({"loss": rate})
        epochtop.finish()
    epochtop.init(name="night", id="job-8", resume="allow")
    epochtop.finish()
    first, second = sorted(run_paths(home), key=lambda path: len(series(path)), reverse=True)
    assert series(first) == {"loss": [(0, 0.1), (1, 0.2)]}
    assert Configured(values={"lr": 0.2}) in recorded(first)
    assert series(second) == {}


def test_a_disabled_run_records_nothing(home: Path) -> None:
    disabled = epochtop.init("off", mode="disabled")
    epochtop.log(loss=1.0)
    epochtop.finish()
    assert disabled.path is None
    assert not home.exists()


def test_a_misspelled_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'loog'"):
        epochtop.loog  # noqa: B018


def test_every_public_name_can_be_imported() -> None:
    for name in epochtop.__all__:
        assert hasattr(epochtop, name)
    epochtop.finish()


def test_the_import_loads_a_few_built_in_modules(home: Path) -> None:
    """Slow ones would be noticed in every script: json, re, threading, typing, pathlib."""
    code = """
    import sys
    before = set(sys.modules)
    import epochtop
    run = epochtop.Run("light")
    run.log(loss=1.0)
    print(*sorted(set(sys.modules) - before))
    """
    status, output, _ = run(code, home)
    assert status == 0
    loaded = {name for name in output.split() if not name.startswith("epochtop")}
    assert loaded <= {
        "__future__",
        "_collections",
        "_struct",
        "atexit",
        "binascii",
        "errno",
        "fcntl",
        "itertools",
        "math",
        "pwd",
        "struct",
    }
