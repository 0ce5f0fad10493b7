"""Bad input gets one clear line that names file, row and field, and leaves no run directory behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from epochtop.engine.protocol.events import encode
from epochtop.engine.protocol.fields import spec_from
from epochtop.engine.protocol.requests import Accepted, Begin, Plan, Refused, decode_reply
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.support.engines import Engine

IRIS_LINES = "\n".join(f"{row},{row % 7},{'ab'[row % 2]}" for row in range(20))


@pytest.fixture(scope="module")
def standby() -> Iterator[Engine]:
    """One engine for all refusals: it waits for the next request after each."""
    with Engine() as engine:
        yield engine


def refusal(standby: Engine, spec: RunSpec, home: Path) -> Refused:
    """The answer to a run that must be refused; describing it must say the same."""
    reply = standby.begin(spec, home)
    assert isinstance(reply, Refused)
    assert standby.describe(spec) == reply
    assert not home.exists()
    assert "\n" not in reply.message
    return reply


# --- tables ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bad:
    """A file that cannot be trained on, and what its refusal must say."""

    content: str | bytes
    says: tuple[str, ...]
    field: str = "dataset"
    other: tuple[str, Any] | None = None


FILES = {
    "empty": Bad("", ("is empty", "header row")),
    "header only": Bad("a,b,label\n", ("0 rows", "at least two")),
    "one row": Bad("a,b,label\n1,2,x\n", ("1 rows", "at least two")),
    "one class": Bad("a,b,label\n1,2,x\n3,4,x\n5,6,x\n", ("'label'", "one class", "'x'", "two"), "target"),
    "one numeric class": Bad("a,label\n1,7\n3,7\n5,7\n", ("'label'", "one class", "'7'", "two"), "target"),
    "missing value": Bad("a,b,label\n1,2,x\n,4,y\n", ("line 3", "'a'", "missing"), "missing", ("missing", "refuse")),
    "infinite": Bad("a,b,label\n1,2,x\n3,inf,y\n", ("line 3", "'b'", "inf", "finite")),
    "too large for float": Bad("a,b,label\n1,2,x\n3,1e999,y\n", ("line 3", "'b'", "finite")),
    "too large for float32": Bad(
        "a,b,label\n" + "1,1e39,x\n2,3e39,y\n" * 5, ("'b'", "float32", "scale"), "scaling", ("scaling", "none")
    ),
    "label column absent": Bad("a,b,kind\n1,2,x\n3,4,y\n", ("no column 'label'", "a, b, kind"), "target"),
    "target not given": Bad("a,b,label\n1,2,x\n3,4,y\n", ("label column", "a, b, label"), "target", ("target", "")),
    "short row": Bad("a,b,label\n1,2,x\n3,4\n", ("line 3", "2 cells", "3")),
    "long row": Bad("a,b,label\n1,2,x\n3,4,y,5\n", ("line 3", "4 cells", "3")),
    "open quote": Bad('a,b,label\n1,2,x\n3,"4,y\n', ("line 3",)),
    "latin-1": Bad(
        "a,b,label\n1,2,x\n3,4,caf\xe9\n".encode("latin-1"),
        ("line 3", "0xe9", "UTF-8"),
        "dataset",
        ("encoding", "utf-8"),
    ),
    "binary": Bad(b"\x89PNG\r\n\x1a\n\x00\x00", ("PNG image", "images:FOLDER")),
    "fewer rows than classes": Bad(
        "a,label\n" + "".join(f"{row},kind{row}\n" for row in range(10)), ("8 training rows", "10 classes")
    ),
    "label only": Bad("label\nx\ny\n", ("only", "'label'", "feature")),
    "no header": Bad("1,2,3\n4,5,6\n7,8,9\n", ("line 1", "name the columns")),
    "nothing left to test": Bad(
        "a,label\n1,x\n2,y\n3,x\n", ("0.9", "3 rows", "0.2"), "test_fraction", ("test_fraction", 0.9)
    ),
    "constant target": Bad("a,label\n1,2.5\n2,2.5\n3,2.5\n4,2.5\n", ("same value", "2.5"), "target"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_table_that_cannot_be_trained_on(standby: Engine, home: Path, tmp_path: Path, name: str) -> None:
    bad = FILES[name]
    file = tmp_path / "table.csv"
    file.write_bytes(bad.content.encode() if isinstance(bad.content, str) else bad.content)
    fields = {"dataset": f"csv:{file}", "target": "label"} | dict([bad.other] if bad.other else [])
    reply = refusal(standby, RunSpec(**fields), home)
    assert reply.field == bad.field
    for words in bad.says:
        assert words in reply.message
    assert str(file) in reply.message
    if bad.says[0].startswith("line"):
        assert reply.message.startswith(f"{file}, line ")


def test_a_table_that_is_not_there(standby: Engine, home: Path, tmp_path: Path) -> None:
    reply = refusal(standby, RunSpec(dataset=f"csv:{tmp_path}/no.csv", target="label"), home)
    assert (reply.field, reply.message) == ("dataset", f"there is no file {tmp_path}/no.csv")


def test_a_table_that_is_a_folder(standby: Engine, home: Path, tmp_path: Path) -> None:
    reply = refusal(standby, RunSpec(dataset=f"csv:{tmp_path}", target="label"), home)
    assert reply.field == "dataset"
    assert f"{tmp_path} is a folder" in reply.message


WELL_FORMED = {
    "semicolons": "a;b;label\n" + IRIS_LINES.replace(",", ";"),
    "tabs": "a\tb\tlabel\n" + IRIS_LINES.replace(",", "\t"),
    "bars": "a|b|label\n" + IRIS_LINES.replace(",", "|"),
    "byte order mark": "\ufeffa,b,label\n" + IRIS_LINES,
    "target behind the mark": "\ufefflabel,b,a\n" + re.sub(r"(.+),(.+),(.+)", r"\3,\2,\1", IRIS_LINES),
    "quotes": '"a","b, in cm","label"\n' + re.sub(r"(\d+),(\d+),(\w)", r'"\1","\2","\3"', IRIS_LINES),
    "spaces": "a , b , label\n" + IRIS_LINES.replace(",", " , "),
    "windows lines": ("a,b,label\n" + IRIS_LINES).replace("\n", "\r\n"),
    "blank first line": "\na,b,label\n" + IRIS_LINES,
    "blank lines": "a,b,label\n" + IRIS_LINES.replace("\n", "\n\n") + "\n\n",
}


@pytest.mark.parametrize("name", WELL_FORMED)
def test_tables_as_programs_write_them_are_understood(standby: Engine, tmp_path: Path, name: str) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(WELL_FORMED[name].encode())
    plan = standby.describe(RunSpec(dataset=f"csv:{file}", target="label", device="cpu"))
    assert isinstance(plan, Plan)
    assert (plan.rows, plan.test_rows, plan.features, plan.outputs) == (16, 4, 2, 2)


def test_a_table_that_was_corrected_is_read_again(standby: Engine, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    spec = RunSpec(dataset=f"csv:{file}", target="label", device="cpu")
    file.write_text("a,b,label\n" + IRIS_LINES)
    assert isinstance(standby.describe(spec), Plan)
    file.write_text("a,b,label\n" + IRIS_LINES + "\n1,2\n")
    assert isinstance(standby.describe(spec), Refused)


# --- fields ------------------------------------------------------------------------------------------------


def test_a_network_that_does_not_fit_is_refused_with_needed_and_free_memory(standby: Engine, home: Path) -> None:
    reply = refusal(standby, RunSpec(hidden=(10**9,), device="cpu"), home)
    assert reply.field == "hidden"
    needed, free = (float(size.replace(",", "")) for size in re.findall(r"([\d,.]+) GiB", reply.message))
    weights = 4 * 10**9 + 10**9 + 3 * 10**9 + 3  # 4 features, 3 classes
    assert needed >= 2 * 4 * weights / 2**30  # with their gradients, float32
    assert needed > free > 0
    assert f"{weights:,} parameters" in reply.message


TYPED = {
    ("hidden", "0"): "from 1",
    ("hidden", "10, 0"): "from 1",
    ("hidden", "-5"): "from 1",
    ("hidden", "ten"): "whole numbers",
    ("learning_rate", "0"): "above 0",
    ("learning_rate", "-0.1"): "above 0",
    ("learning_rate", "nan"): "above 0",
    ("learning_rate", "inf"): "above 0",
    ("learning_rate", ""): "above 0",
    ("learning_rate", "fast"): "a number",
    ("momentum", "-0.1"): "from 0 and below 1",
    ("momentum", "1"): "from 0 and below 1",
    ("weight_decay", "-1"): "from 0",
    ("epochs", "0"): "from 1",
    ("epochs", "2.5"): "a whole number",
    ("batch_size", "-1"): "from 0",
    ("test_fraction", "1"): "below 1",
    ("refresh_ms", "0"): "from 10",
    ("eval_every", "-1"): "from 0",
    ("save_every", "nan"): "from 0",
    ("threads", "-1"): "from 0",
    ("seed", "-1"): "from 0",
    ("dataset", "flowers"): "hf:FOLDER or openml:NAME",
    ("dataset", "csv:"): "csv:PATH",
    ("device", "gpu"): "auto, cpu, cuda, cuda:N or mps",
    ("device", "cuda:x"): "cuda:N",
    ("optimizer", "lion"): "sgd, adam, adamw",
    ("activation", "step"): "relu, tanh",
    ("scaling", "log"): "minmax, standard, none",
    ("name", "a/b"): "letters",
}


@pytest.mark.parametrize(("name", "text"), TYPED)
def test_the_error_for_a_value_out_of_bounds_says_what_would_be_right(name: str, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        spec_from({name: text})
    assert caught.value.field == name
    assert TYPED[name, text] in caught.value.message
    assert repr(text) in caught.value.message or not text


VALUES = {
    "hidden": [0],
    "learning_rate": 0.0,
    "momentum": -0.5,
    "weight_decay": -1,
    "epochs": 0,
    "refresh_ms": 1,
    "dataset": "flowers",
    "device": "gpu",
    "optimizer": "lion",
    "seed": "one",
}


@pytest.mark.parametrize("name", VALUES)
def test_the_engine_refuses_a_value_that_no_viewer_should_have_sent(standby: Engine, home: Path, name: str) -> None:
    request = msgspec.json.decode(encode(Begin(spec=RunSpec(), home=str(home))))
    request["spec"][name] = VALUES[name]
    standby.tell(encode(request))
    reply = standby.reply()
    assert isinstance(reply, Refused)
    assert reply.field == name
    assert reply.message.startswith("needs ")
    assert not home.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_engine_refuses_a_rate_that_is_not_a_number(standby: Engine, home: Path, value: float) -> None:
    reply = standby.begin(RunSpec(learning_rate=value), home)
    assert reply == Refused(field="learning_rate", message="needs a number above 0 and up to 1,000,000")
    assert not home.exists()


@pytest.mark.parametrize("line", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"type":"Begin","spec":{"colour":1}}'])
def test_the_engine_survives_lines_that_are_not_requests(standby: Engine, line: bytes) -> None:
    standby.tell(line)
    reply = standby.reply()
    assert isinstance(reply, Refused)
    assert reply.message.startswith("not a request")
    assert isinstance(standby.describe(RunSpec(device="cpu")), Plan)


def test_rules_between_fields_name_the_field(standby: Engine, home: Path) -> None:
    momentum = refusal(standby, RunSpec(optimizer="adam", momentum=0.9), home)
    assert momentum.field == "momentum"
    assert "sgd" in momentum.message
    target = refusal(standby, RunSpec(target="species"), home)
    assert target.field == "target"
    assert "applies to tables only" in target.message


@pytest.mark.parametrize("device", ["cuda:99", "mps", "cuda"])
def test_a_device_that_is_not_present(standby: Engine, home: Path, device: str) -> None:
    present = {fact.device for fact in standby.ready.devices}  # type: ignore[union-attr]
    if device in present or (device == "cuda" and "cuda:0" in present):
        pytest.skip(f"this machine has {device}")
    reply = refusal(standby, RunSpec(device=device), home)
    assert reply.field == "device"
    assert reply.message.startswith(f"{device} is not on this machine")
    assert "cpu" in reply.message


# --- the home folder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["below a file", "/proc/epochtop", "a file", "too long"])
def test_a_home_that_cannot_be_written(standby: Engine, tmp_path: Path, folder: str) -> None:
    """No permissions here: the tests may run as root, who has them all."""
    file = tmp_path / "file"
    file.touch()
    home = {"below a file": file / "runs", "a file": file, "too long": tmp_path / ("x" * 300)}.get(folder, Path(folder))
    reply = standby.begin(RunSpec(device="cpu"), home)
    assert isinstance(reply, Refused)
    assert f"cannot write runs to {home}: " in reply.message
    assert "EPOCHTOP_HOME" in reply.message
    assert [*tmp_path.iterdir()] == [file]


def test_an_engine_that_refused_everything_can_still_train(home: Path) -> None:
    with Engine() as engine:
        assert isinstance(engine.begin(RunSpec(device="cuda:99"), home), Refused)
        assert isinstance(engine.begin(RunSpec(device="cpu", threads=1, epochs=5), home), Accepted)
        assert engine.wait() == 0


def test_decoding_a_refusal_gives_what_was_refused() -> None:
    refused = Refused(message="no such file", field="dataset")
    assert decode_reply(encode(refused)) == refused
