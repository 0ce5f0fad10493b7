"""The shape of the source tree: sizes of folders and files, purposes of packages, names, and who starts or imports what by name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("engine", "tui")
IN_SCRIPTS = ("epochtop/recording", "epochtop/notifications", "epochtop/configuration", "epochtop/remote")
TREES = (*SOURCES, "epochtop", "tests", "screenshots")

MOST_LINES = 400
MOST_MODULES = 12
CATALOGS = {"engine/lab/experiments", "tests/lab/experiments"}
"""Folders with one module or folder per experiment."""

DYNAMIC_IMPORTS = {
    "epochtop/__init__.py": "public names are imported on first use",
    "epochtop/remote/loader.py": "the texts that were sent to this machine",
    "epochtop/hooks/site/sitecustomize.py": "the user's own sitecustomize",
    "engine/lab/experiments/__init__.py": "an experiment's measurement is imported when it runs",
    "engine/tasks/loader.py": "the user's file",
    "engine/tasks/sources.py": "the user's modules",
}
"""The only modules that may import a module whose name they compute, and why."""

EMPTY_NAMES = {"found", "told", "said", "stuff", "mine"}
"""Names that say that there is a value, not what it is."""

INTERPRETER_AS_FACT = {"engine/device/inventory.py", "epochtop/recording/facts.py"}
"""Modules that record the path of the interpreter and start nothing with it."""


@cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(*trees: str) -> Iterator[Path]:
    """Every module of these trees, relative to the root. The links in `epochtop` are not followed."""
    for tree in trees:
        yield from sorted(path.relative_to(ROOT) for path in (ROOT / tree).rglob("*.py") if _is_source(path))


def _is_source(path: Path) -> bool:
    relative = path.relative_to(ROOT)
    return relative.parts[:2] not in {("epochtop", "engine"), ("epochtop", "tui")}


# --- sizes ------------------------------------------------------------------------------------------------


def test_no_file_is_too_long() -> None:
    lines = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in modules(*TREES)}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def test_no_folder_holds_too_many_modules() -> None:
    counts: dict[str, int] = {}
    for path in modules(*TREES):
        if path.stem not in {"__init__", "__main__"}:
            counts[str(path.parent)] = counts.get(str(path.parent), 0) + 1
    assert {folder for folder, count in counts.items() if count > MOST_MODULES} <= CATALOGS


@pytest.mark.parametrize("tree", SOURCES)
def test_top_folders_hold_packages_only(tree: str) -> None:
    assert {path.name for path in (ROOT / tree).glob("*.py")} == {"__init__.py", "__main__.py"}


# --- purposes ---------------------------------------------------------------------------------------------


def test_a_package_states_its_purpose_and_what_it_never_imports() -> None:
    """An experiment's package states its question; the rule about its imports is that of the catalog."""
    packages = {path: _docstring(path) for path in modules(*SOURCES, *IN_SCRIPTS) if path.name == "__init__.py"}
    assert [path for path, text in packages.items() if len(text) < 30] == []
    silent = {path.parent for path, text in packages.items() if not re.search(r"\bimport(s|ed|able)?\b", text.lower())}
    assert {folder for folder in silent if folder.parent.as_posix() != "engine/lab/experiments"} == set()


def test_a_module_states_why_it_exists() -> None:
    assert [path for path in modules(*SOURCES, "epochtop") if not _docstring(path)] == []


def _docstring(path: Path) -> str:
    return ast.get_docstring(parse(ROOT / path)) or ""


# --- names ------------------------------------------------------------------------------------------------


def test_a_name_says_what_the_value_is() -> None:
    assert [f"{path}:{line}" for path in modules(*TREES) for line in empty_names(parse(ROOT / path))] == []


def empty_names(tree: ast.Module) -> list[int]:
    """Lines that bind one of the empty names: a variable, an attribute, a parameter, a function or a class."""
    lines = []
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                pass
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                pass
            case _:
                continue
        lines += [node.lineno] if name.strip("_").lower() in EMPTY_NAMES else []
    return lines


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("found = 1", 1),
        ("def read(told): self._said = told", 2),
        ("def found(): return 1", 1),
        ("class Found: pass", 1),
        ("print(found)", 0),
        ("found_at = 1", 0),
    ],
)
def test_an_empty_name_is_seen(source: str, count: int) -> None:
    assert len(empty_names(ast.parse(source))) == count


# --- imports ----------------------------------------------------------------------------------------------


def test_nothing_imports_top_level_engine_or_tui() -> None:
    """A user may have an `engine.py` or a `tui` folder: only `epochtop.engine` and `epochtop.tui` are ours."""
    assert [f"{path}:{line}" for path in modules(*TREES) for line in top_level_uses(parse(ROOT / path))] == []


def top_level_uses(tree: ast.Module) -> list[int]:
    """Lines that import `engine` or `tui`, or name one of their modules in a string."""
    lines = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                names_used = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                names_used = [module]
            case ast.Constant(value=str(text)) if re.fullmatch(r"(engine|tui)(\.\w+)+", text):
                names_used = [text] if not text.endswith((".py", ".toml", ".tcss")) else []
            case _:
                continue
        lines += [node.lineno for name in names_used if name.partition(".")[0] in SOURCES]
    return lines


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import engine", 1),
        ("from tui.app import app", 1),
        ("import_module('engine.runs.paths')", 1),
        ("import epochtop.engine", 0),
        ("from .engine import run", 0),
        ("open('engine.py')", 0),
    ],
)
def test_a_top_level_import_is_seen(source: str, count: int) -> None:
    assert len(top_level_uses(ast.parse(source))) == count


def test_only_documented_modules_import_by_a_computed_name() -> None:
    users = {path.as_posix() for path in modules(*SOURCES, "epochtop") if computed_imports(parse(ROOT / path))}
    assert users <= set(DYNAMIC_IMPORTS)


def computed_imports(tree: ast.Module) -> list[int]:
    """Lines with an import that the contracts cannot see: a computed name, or a literal name of our own modules."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in {"import_module", "__import__", "run_path", "run_module", "spec_from_file_location", "exec"}:
            literal = isinstance(node.args[0], ast.Constant) and not str(node.args[0].value).startswith("epochtop")
            lines += [] if literal else [node.lineno]
    return lines


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import_module(name)", 1),
        ("importlib.import_module(f'epochtop.engine.{name}')", 1),
        ("__import__('epochtop.engine.training.loop')", 1),
        ("import_module('torch._dynamo')", 0),
    ],
)
def test_a_computed_import_is_seen(source: str, count: int) -> None:
    assert len(computed_imports(ast.parse(source))) == count


# --- child processes --------------------------------------------------------------------------------------


def test_every_child_interpreter_is_started_with_a_safe_path() -> None:
    """With `-P`, modules in the current folder cannot take the place of ours or of our dependencies."""
    unsafe = {path.as_posix() for path in modules(*SOURCES, "epochtop") if unsafe_interpreters(parse(ROOT / path))}
    assert unsafe <= INTERPRETER_AS_FACT


def test_a_child_does_start_somewhere() -> None:
    """Otherwise the test above would prove nothing."""
    starts = [path for path in modules(*SOURCES) if "sys.executable" in (ROOT / path).read_text(encoding="utf-8")]
    assert len(starts) > 3


def unsafe_interpreters(tree: ast.Module) -> list[int]:
    """Lines that use `sys.executable` other than at the beginning of `[sys.executable, "-P", ...]`, or with the stricter -I."""
    safe = {
        id(node.elts[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.List | ast.Tuple) and len(node.elts) > 1
        if isinstance(node.elts[1], ast.Constant) and node.elts[1].value in {"-P", "-I"}
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "executable" and id(node) not in safe
    ]


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("run([sys.executable, '-P', '-m', 'epochtop.engine'])", 0),
        ("spawn([sys.executable, '-I', '-S', CHILD])", 0),
        ("run([sys.executable, '-m', 'epochtop.engine'])", 1),
        ("run([sys.executable, *arguments])", 1),
        ("program = sys.executable", 1),
    ],
)
def test_a_child_without_a_safe_path_is_seen(source: str, count: int) -> None:
    assert len(unsafe_interpreters(ast.parse(source))) == count
