"""Our reader of TOML for Python 3.9 and 3.10, compared with the standard library's of Python 3.11."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.configuration.toml import parse_plainly

DOCUMENT = r'''
a = 1
b = "x\ty\u00e9\\" # comment
'q.r' = 'lit\n'
c.d.e = [1, 2.5, [true, "x",], # comment
 ]
n = """
line\
   more ""quoted"" """
l = """"two quotes at both ends"""""
f = {x = 1, y.z = "q"}
i = -1_000
h = 0xff
o = 0o17
fl = 6.5e-3
inf = -inf
[t]
k = false
[t.u."v w"]
s=1
[[arr]]
x=1
[arr.sub]
y=2
[[arr]]
x=3
'''

INVALID = [
    "a", "a=", "a = 1 b", "a=1\na=2", "[t]\n[t]", "a = {x=1}\n[a]", "a={x=1}\na.y=2", "a = 01", "a=1__0", "a='x",
    'a="\\q"', "a = 1.", "a=.5", "a=+0x1", "[a\n", "a=[1", "x=yes", "a=1\n[a.b]", "[[a]]\n[a]", "a=[{}]\n[[a]]", "a=0x_1",
    "a=1_", "a=1e", 'a="\\ud800"', "a={b=1,}", "=1", "[]", "a..b=1", "a=1e1.5", "[a.b]\n[a]\nb.c=1", 'a="\x01"', "a=1e_1",
    "a=TRUE", 'a="x\ny"', "[a]b=1",
]  # fmt: skip

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
values = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(texts, values | st.dictionaries(texts, values, max_size=3), max_size=4)


def written(value: Any) -> str:
    if isinstance(value, str):
        return '"' + "".join(f"\\{each}" if each in '"\\' else each for each in value) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(written, value))}]" if isinstance(value, list) else repr(value)


def test_a_document_with_every_notation() -> None:
    assert parse_plainly(DOCUMENT) == tomllib.loads(DOCUMENT)


@given(documents)
def test_what_was_written_is_read(document: dict[str, Any]) -> None:
    lines = [f"{written(name)} = {written(value)}" for name, value in document.items() if not isinstance(value, dict)]
    for name, table in document.items():
        if isinstance(table, dict):
            lines += [f"[{written(name)}]", *(f"{written(key)} = {written(value)}" for key, value in table.items())]
    text = "\n".join(lines)
    assert parse_plainly(text) == document == tomllib.loads(text)


@pytest.mark.parametrize("text", INVALID)
def test_text_that_is_not_toml_is_refused(text: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(text)
    with pytest.raises(ValueError, match=r"at line \d+"):
        parse_plainly(text)


@given(st.text(st.sampled_from("ab.=[]{}\"'\\#\n 1,_x"), max_size=30))
def test_any_text_is_read_as_tomllib_does_or_refused(text: str) -> None:
    try:
        tables = parse_plainly(text)
    except ValueError:
        return
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # ours is less strict about tables that appear twice
    assert tables == expected
