"""`python -O` leaves assertions out, so none may check input; an exception from a rule about security has a reason."""

from __future__ import annotations

import ast
import re

from tests.architecture.test_tree import ROOT, modules, parse

PROGRAM = ("engine", "tui", "epochtop")

EXCEPTION = re.compile(r"# noqa: [A-Z0-9, ]*\bS\d{3}(?P<reason>.*)")


def narrows_a_type(test: ast.expr) -> bool:
    """Whether the expression is `x is not None` or `isinstance(x, …)`."""
    match test:
        case ast.Compare(ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]):
            return True
        case ast.Call(func=ast.Name(id="isinstance")):
            return True
    return False


def test_assertions_only_narrow_types() -> None:
    others = [
        f"{module}:{node.lineno}"
        for module in modules(*PROGRAM)
        for node in ast.walk(parse(ROOT / module))
        if isinstance(node, ast.Assert) and not narrows_a_type(node.test)
    ]
    assert not others


def test_every_exception_from_a_security_rule_has_a_reason() -> None:
    texts = [(ROOT / module).read_text(encoding="utf-8") for module in modules(*PROGRAM)]
    exceptions = [match for text in texts for match in EXCEPTION.finditer(text)]
    assert len(exceptions) > 20
    assert [match[0] for match in exceptions if not match["reason"].startswith(" - ")] == []
