"""Foreign text reaches widgets and terminals through one module each. This test finds every other way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.test_tree import ROOT, modules, parse

WIDGET_TEXT = "tui/cells/plain.py"
"""The only module that gives Textual a text as it is."""
OUTPUT = "engine/terminal/output.py"
"""The only module that writes to standard output and standard error."""
OWN_CONSOLE = {"tui/cli/train.py": "rich's progress bar; its lines pass plain_text and are not parsed"}
"""Modules that write with a library, and why that is safe."""

PLAIN = {"plain", "plain_block"}
"""Functions whose result every widget takes."""
TITLES = {"border_title", "border_subtitle", "tooltip", "label"}
"""Attributes that Textual parses as markup."""
FIRST_ARGUMENT = {"Label", "Button"}
CELLS = {"add_row": 0, "update_cell": 2}
"""Methods of tables, and the position of their first text."""
PARSERS = {"from_markup", "from_ansi", "escape_markup"}


def direct_texts(tree: ast.Module) -> list[int]:
    """Lines that give a widget a computed text without a function of PLAIN, or parse markup."""
    lines = []
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=value) if name in TITLES:
                lines += [] if _is_plain(value) else [node.lineno]
            case ast.Call():
                lines += [node.lineno] if _gives_text(node) else []
    return lines


def _gives_text(call: ast.Call) -> bool:
    name, receiver = _name_of(call.func), getattr(call.func, "value", None)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name == "Static" or name in PARSERS:
        return True
    if getattr(keywords.get("markup"), "value", False):
        return True
    if name not in {"Binding", "_key"} and "tooltip" in keywords and not _is_plain(keywords["tooltip"]):
        return True
    if name in FIRST_ARGUMENT:
        return bool(call.args) and not _is_plain(call.args[0])
    if name in CELLS and receiver is not None:
        return not all(map(_is_plain, call.args[CELLS[name] :]))
    return name == "write" and _name_of(receiver) == "log_lines" and not _is_plain(call.args[0])


def _is_plain(value: ast.expr) -> bool:
    """Whether a value is a literal or the result of a function of PLAIN."""
    match value:
        case ast.Constant():
            return True
        case ast.Call(func=function) if _name_of(function) in PLAIN:
            return True
        case ast.Starred(value=ast.Call(func=ast.Name(id="map"), args=[ast.Name(id=function), *_])):
            return function in PLAIN
    return False


def _name_of(node: ast.AST | None) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return _name_of(value)
    return ""


def direct_output(tree: ast.Module) -> list[int]:
    """Lines that write to standard output or standard error, or give one of them away."""
    lines = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                lines.append(node.lineno)
            case ast.Call(func=ast.Attribute(attr="print" | "print_exc" | "print_exception")):
                lines.append(node.lineno)
            case ast.Call(
                func=ast.Attribute(
                    attr="write" | "writelines", value=ast.Attribute(attr=stream, value=ast.Name(id="sys"))
                )
            ) if stream.strip("_") in {"stdout", "stderr"}:
                lines.append(node.lineno)
            case ast.Call(args=arguments) if _name_of(node.func) not in {"isinstance", "getattr"}:
                lines += [node.lineno for value in arguments if _is_stream(value)]
            case ast.Yield(value=value) | ast.Return(value=value) if value is not None and _is_stream(value):
                lines.append(value.lineno)
    return lines


def _is_stream(value: ast.expr) -> bool:
    return isinstance(value, ast.Attribute) and value.attr in {"stdout", "stderr"} and _name_of(value.value) == "sys"


def test_every_text_of_a_widget_goes_through_one_module() -> None:
    users = {path.as_posix(): direct_texts(parse(ROOT / path)) for path in modules("tui")}
    assert {path: lines for path, lines in users.items() if lines and path != WIDGET_TEXT} == {}


def test_every_output_goes_through_one_module() -> None:
    users = {path.as_posix(): direct_output(parse(ROOT / path)) for path in modules("engine", "tui")}
    assert {path for path, lines in users.items() if lines} - {OUTPUT} == set(OWN_CONSOLE)


@pytest.mark.parametrize(
    ("name", "module", "parent"),
    [
        ("EpochtopApp", "tui/app/app.py", "TerminalApp"),
        ("TerminalApp", "tui/app/terminal.py", "OpeningApp"),
        ("OpeningApp", "tui/screens/opening.py", "PlainApp"),
    ],
)
def test_the_app_is_a_plain_app(name: str, module: str, parent: str) -> None:
    """Its notifications are plain, and its lines pass the last guard."""
    (base,) = [
        _name_of(node.bases[0])
        for node in ast.walk(parse(Path(ROOT / module)))
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    assert base == parent


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("Static(text)", 1),
        ("Static(text, markup=False)", 1),
        ("Label(name)", 1),
        ("Label('name')", 0),
        ("Label(plain(name))", 0),
        ("Button(f'{name}', id='a')", 1),
        ("Button('Stop', tooltip=why)", 1),
        ("Button('Stop', tooltip='Stop it')", 0),
        ("box.border_title = name", 1),
        ("box.border_title = 'Machine'", 0),
        ("self.tooltip = reason", 1),
        ("table.add_row(*cells, key=key)", 1),
        ("table.add_row(*map(plain, cells), key=key)", 0),
        ("table.add_row(Text(line))", 1),
        ("self.update_cell(key, 'line', line)", 1),
        ("self.update_cell(key, 'line', plain(line))", 0),
        ("Text.from_markup(line)", 1),
        ("app.notify(reason, markup=True)", 1),
        ("self.main.log_lines.write(line)", 1),
    ],
)
def test_a_direct_text_is_seen(source: str, count: int) -> None:
    assert len(direct_texts(ast.parse(source))) == count


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("print(name)", 1),
        ("sys.stdout.write(name)", 1),
        ("sys.__stderr__.write(name)", 1),
        ("traceback.print_exc()", 1),
        ("csv.writer(sys.stdout)", 1),
        ("write(name)", 0),
        ("sys.stdout.flush()", 0),
        ("isinstance(sys.stdout, TextIOWrapper)", 0),
    ],
)
def test_a_direct_output_is_seen(source: str, count: int) -> None:
    assert len(direct_output(ast.parse(source))) == count
