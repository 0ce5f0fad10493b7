"""The documentation is checked against the code: links, commands, flags, fields and the run format."""

from __future__ import annotations

import io
import re
import struct
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec
import msgspec.inspect
import pytest

from epochtop.engine.data.dataset import ColumnEncoding, Preparation
from epochtop.engine.lab.catalog import NAMES, find
from epochtop.engine.protocol import commands, datasets, events, experiments, record, requests
from epochtop.engine.protocol.fields import fields
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.training.checkpoint import CheckpointInfo
from epochtop.tui.cli.main import COMMANDS, run
from tests.support.runs import write_run

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "tests" / "bench" / "RESULTS.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
RUN_FORMAT = ROOT / "docs" / "run-format.md"
README_LINES = 200

Struct = type[msgspec.Struct]
RECORDS: list[Struct] = [
    *get_args(events.AnyEvent),
    *get_args(commands.AnyCommand),
    *get_args(requests.AnyRequest),
    *get_args(requests.AnyReply),
    *(
        record.RunRecord,
        record.ScriptRecord,
        record.GitState,
        record.TaskRecord,
        record.SourceFile,
        events.Suggestion,
        events.SeriesSummary,
        events.DeviceRead,
        events.OperatorCost,
        experiments.Verdict,
        experiments.Line,
        experiments.Estimate,
        experiments.ExperimentRequest,
    ),
    *(requests.DeviceFact, requests.ModelSummary, requests.LayerFact, datasets.ColumnFact),
    *(Preparation, ColumnEncoding, CheckpointInfo, RunSpec),
]
"""Every type that run-format.md documents."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(text: str) -> list[str]:
    """Code blocks that are not Python."""
    return re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def spans(text: str) -> list[str]:
    """Inline code outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def code(page: Path) -> list[str]:
    """Every line of code on a page, without comments; continued lines are joined."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(text) for line in block.replace("\\\n", " ").splitlines()]
    return [line.partition("  #")[0].strip() for line in lines] + spans(text)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pages
def test_every_path_in_code_spans_exists(page: Path) -> None:
    for span in spans(page.read_text(encoding="utf-8")):
        if re.fullmatch(r"(engine|tui|tests|docs|screenshots)/[\w./-]*", span):
            assert (ROOT / span).exists(), span


@pages
def test_every_make_target_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    for line in code(page):
        if line.startswith("make "):
            named = {word for word in line.split()[1:] if re.fullmatch(r"[a-z-]+", word)}
            assert named <= targets, line


@cache
def fields_of_runs() -> frozenset[str]:
    return frozenset(f"--{about.name.replace('_', '-')}" for about in fields())


def help_of(*words: str) -> str:
    """What `epochtop WORDS --help` prints."""
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        run([*words, "--help"])
    return printed.getvalue()


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """The flags of every command; of the app itself under the empty name."""
    texts = {name: help_of(name) for name in COMMANDS}
    texts["lab"] += "".join(help_of("lab", name) for name in NAMES)
    flags_by_command = {name: {"--help", *re.findall(r"--[a-z][a-z-]*", text)} for name, text in texts.items()}
    return flags_by_command | {"": {"--start", "--theme", "--host", "--help", "--version", *fields_of_runs()}}


def test_every_command_and_flag_in_the_documentation_exists(flags: dict[str, set[str]]) -> None:
    seen: set[str] = set()
    for page in PAGES:
        for line in code(page):
            words = re.match(r"^(?:epochtop|python -m epochtop)( .*)?$", line)
            if words is None:
                continue
            first = next((word for word in (words[1] or "").split() if word[:1] not in "-["), "")
            command = first if first in COMMANDS else ""
            assert command or not first or (words[1] or "").lstrip()[:1] in "-[", f"{page.name}: {line}"
            unknown = set(re.findall(r"(?<!\S)\[?(--[a-z][a-z-]*)", line)) - flags[command]
            assert not unknown, f"{page.name}: {line}"
            seen.add(command)
    assert seen >= set(COMMANDS), "every command is documented"


def test_every_flag_of_the_engine_in_the_documentation_is_a_field() -> None:
    lines = [line for page in PAGES for line in code(page) if "-m epochtop.engine train" in line]
    assert lines
    for line in lines:
        named = re.findall(r"--[a-z][a-z-]*", line.partition("epochtop.engine train")[2])
        assert set(named) <= fields_of_runs() | {"--resume", "--help"}, line


@pages
def test_every_flag_in_code_spans_exists(page: Path, flags: dict[str, set[str]]) -> None:
    """Spans that begin with a flag speak of epochtop's flags."""
    known = set().union(*flags.values()) | {"--resume", "--torch"}
    for span in spans(page.read_text(encoding="utf-8")):
        if span.startswith("--"):
            assert span.split()[0] in known, span


@pages
def test_every_experiment_that_is_called_exists(page: Path) -> None:
    for line in code(page):
        words = line.split()
        if words[:2] == ["epochtop", "lab"] and len(words) > 2 and words[2].islower() and words[2].isalpha():
            assert words[2] in NAMES, line


def test_every_experiment_is_documented() -> None:
    page = (ROOT / "docs" / "lab.md").read_text(encoding="utf-8")
    experiments_table = page.partition("## Which experiments are there?")[2].partition("\n## ")[0]
    assert [name for name in NAMES if f"`{name}`" not in experiments_table] == []


def rows_on_the_page(name: str) -> list[tuple[str, ...]]:
    """Kind, column, type and default of every row that lab-rows.md documents for an experiment."""
    page = (ROOT / "docs" / "lab-rows.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]
    cells = [[cell.strip(" `") for cell in line.split("|")[1:5]] for line in section.splitlines() if line[:1] == "|"]
    return [tuple(row) for row in cells[2:]]


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_and_column_of_an_experiment_is_documented(name: str) -> None:
    rows: list[tuple[str, ...]] = []
    for kind in find(name).kinds:
        info = msgspec.inspect.type_info(kind)
        assert isinstance(info, msgspec.inspect.StructType)
        rows.append((str(info.tag), "", "", ""))
        rows += [("", *(cell.strip("`") for cell in expected_row(field))) for field in info.fields]
    assert rows_on_the_page(name) == rows


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


# --- the run format ------------------------------------------------------------------------------------------


def sections() -> dict[str, list[tuple[str, str, str]]]:
    """Field, type and default of every row, by type of record."""
    rows_by_type: dict[str, list[tuple[str, str, str]]] = {}
    for section in re.split(r"^#+ ", RUN_FORMAT.read_text(encoding="utf-8"), flags=re.MULTILINE):
        name = re.match(r"`(\w+)`\n", section)
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", section, re.MULTILINE)
        if name is not None:
            rows_by_type.setdefault(name[1], rows)
    return rows_by_type


def _place(name: str) -> int:
    order = ("number", "integer", "string", "null")
    return order.index(name) if name in order else 0


def json_type(kind: msgspec.inspect.Type) -> str:
    """A type as run-format.md writes it."""
    match kind:
        case msgspec.inspect.Metadata():
            return json_type(kind.type)
        case msgspec.inspect.UnionType():
            return " or ".join(sorted({json_type(member) for member in kind.types}, key=_place))
        case msgspec.inspect.VarTupleType():
            return f"array of {json_type(kind.item_type)}"
        case msgspec.inspect.TupleType():
            return f"array [{', '.join(map(json_type, kind.item_types))}]"
        case msgspec.inspect.DictType():
            return f"object of {json_type(kind.value_type)}"
        case msgspec.inspect.StructType():
            return f"[{kind.cls.__name__}](#{kind.cls.__name__.lower()})"
    return JSON_TYPES[type(kind)]


JSON_TYPES: dict[type, str] = {
    msgspec.inspect.IntType: "integer",
    msgspec.inspect.FloatType: "number",
    msgspec.inspect.StrType: "string",
    msgspec.inspect.LiteralType: "string",
    msgspec.inspect.BoolType: "boolean",
    msgspec.inspect.BytesType: "base64",
    msgspec.inspect.NoneType: "null",
    msgspec.inspect.AnyType: "any",
}


def expected_row(field: msgspec.inspect.Field) -> tuple[str, str, str]:
    """The row of a field: its key in JSON, its type, and what a reader takes where it is missing."""
    if field.required:
        return field.encode_name, json_type(field.type), "required"
    default: Any = field.default
    if default is msgspec.NODEFAULT:
        default = field.default_factory()
    return field.encode_name, json_type(field.type), f"`{msgspec.json.encode(default).decode()}`"


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_the_run_format_names_every_field_with_its_type_and_default(record: Struct) -> None:
    info = msgspec.inspect.type_info(record)
    assert isinstance(info, msgspec.inspect.StructType)
    assert sections().get(record.__name__) == [expected_row(field) for field in info.fields]


def test_the_run_format_names_nothing_else() -> None:
    assert set(sections()) == {record.__name__ for record in RECORDS}


def test_the_run_format_names_every_code() -> None:
    table = RUN_FORMAT.read_text(encoding="utf-8").partition("### Codes\n")[2].partition("\n## ")[0]
    declared = {value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == declared


def test_the_reader_in_the_run_format_reads_every_loss(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as it is on the page, in the folder of a run."""
    losses = [1.5, 0.25, float("inf"), 0.125]
    windows = [
        events.Losses(
            first_step=first, seconds=1.0, values=struct.pack("<2f", *losses[first : first + 2]), reads=1, waited=0
        )
        for first in (0, 2)
    ]
    monkeypatch.chdir(write_run(home, "read", windows))
    reader = re.findall(r"^```python\n(.*?)^```", RUN_FORMAT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(reader[0], names)
    assert names["losses"] == losses
