"""Texts with labels, from a table with a column of texts and a column of labels, as rows of codes of words.

Never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epochtop.engine.data.dataset import OnProgress, RawDataset, no_progress
from epochtop.engine.data.facts import label_fact
from epochtop.engine.data.labels import labels_of
from epochtop.engine.data.number_text import is_number
from epochtop.engine.data.text.tables import read_columns_of_texts
from epochtop.engine.data.text.words import codes_of, row_length, split_words
from epochtop.engine.protocol.datasets import ColumnFact
from epochtop.engine.protocol.spec import Invalid, RunSpec

LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "y")
TEXT_NAMES = ("text", "sentence", "review", "content", "message", "comment", "document", "body", "tweet", "title")
"""Usual names of the columns, in the order of preference."""
LOOKED_AT = 1000
"""Texts that are looked at to tell texts from other columns."""
MOST_LISTED = 12

Part = tuple[Sequence[str], Sequence[str]]
"""Texts and their labels."""


@dataclass(frozen=True)
class TextColumns:
    """Names of the columns of a table of texts."""

    text: str
    label: str


def read_documents(spec: RunSpec, path: Path, report: OnProgress = no_progress) -> RawDataset:
    """Rows of `text:PATH` for a table. Raises Invalid, naming the file."""
    columns = read_columns_of_texts(path, [spec.target] if spec.target else LABEL_NAMES, spec.encoding, report)
    names = choose_columns(str(path), columns, spec.target)
    others = [name for name in columns if name not in (names.text, names.label)]
    notes = [f"column {name!r} is not used" for name in others[:MOST_LISTED]]
    return documents(spec, names, {"train": (columns[names.text], columns[names.label])}, notes)


def documents(
    spec: RunSpec,
    names: TextColumns,
    parts: Mapping[str, Part],
    notes: Sequence[str] = (),
    classes: tuple[str, ...] = (),
) -> RawDataset:
    """A raw dataset from the texts and labels of `train`, and of `validation` and `test` where there are some.

    An mlp reads words and pairs of neighboring words; a transformer reads words. Rows without a label are left out. `classes`
    are the names of labels that are their numbers. Raises Invalid.
    """
    ngrams = 1 if spec.model == "transformer" else 2
    labeled = {part: _labeled(texts, labels) for part, (texts, labels) in parts.items()}
    dropped = sum(len(parts[part][0]) - len(texts) for part, (texts, _) in labeled.items())
    words = {part: split_words(texts) for part, (texts, _) in labeled.items()}
    if len(labeled["train"][0]) < 2:
        raise Invalid("dataset", f"there are {len(labeled['train'][0])} texts with a label; two or more are needed")
    longest = int(max(each.counts.max(initial=1) for each in words.values()))
    length = row_length(min(spec.context, max(2, longest)), ngrams)
    x = {part: codes_of(each, length, ngrams) for part, each in words.items()}
    labels = labels_of([label for _, rows in labeled.values() for label in rows], names.label, spec.problem)
    ends = np.cumsum([len(rows) for _, rows in labeled.values()])[:-1]
    rows = {part: (x[part], y) for part, y in zip(labeled, np.split(labels.y, ends), strict=True)}
    cut = sum(int((each.counts > spec.context).sum()) for each in words.values())
    return RawDataset(
        kind="document",
        x=rows["train"][0],
        y=rows["train"][1],
        loss=labels.loss,
        classes=_named(labels.classes, classes),
        columns=(names.text,),
        target=names.label,
        test=rows.get("test"),
        validation=rows.get("validation"),
        ngrams=ngrams,
        notes=(*_notes(names, ngrams, cut, dropped, spec), *notes, *labels.notes),
        column_facts=(
            ColumnFact(name=names.text, kind="text", treatment=f"{_read_as(ngrams)}, hashed, at most {length} per row"),
            label_fact(names.label, labels.loss, labels.classes, dropped, len(labels.classes) or None),
        ),
    )


def choose_columns(where: str, columns: Mapping[str, Sequence[str]], target: str) -> TextColumns:
    """The columns of texts and of labels: by their usual names, else the only one that can be it. Raises Invalid."""
    listed = ", ".join(map(repr, list(columns)[:MOST_LISTED]))
    label = target or _usual(columns, LABEL_NAMES)
    if not label or label not in columns:
        what = f"has no column {target!r}" if target else "has no column called label"
        raise Invalid("target", f"{where} {what}; name the column of labels: its columns are {listed}")
    others = {name: texts for name, texts in columns.items() if name != label}
    text = _usual(others, TEXT_NAMES) or only_texts(others)
    if not text:
        raise Invalid("dataset", f"{where} needs one column of texts; call it text: its columns are {listed}")
    return TextColumns(text, label)


def _usual(columns: Mapping[str, Sequence[str]], names: Sequence[str]) -> str:
    lower = {name.strip().lower(): name for name in reversed(list(columns))}
    return next((lower[name] for name in names if name in lower), "")


def only_texts(columns: Mapping[str, Sequence[str]]) -> str:
    """The only column, or the only one whose values have several words; empty if there are more."""
    if len(columns) == 1:
        return next(iter(columns))
    several = [name for name, texts in columns.items() if _have_words(texts[:LOOKED_AT])]
    return several[0] if len(several) == 1 else ""


def _have_words(texts: Sequence[str]) -> bool:
    count = sum(" " in text.strip() and not is_number(text) for text in texts)
    return 2 * count > len(texts)


def _labeled(texts: Sequence[str], labels: Sequence[str]) -> Part:
    labeled = [row for row, label in enumerate(labels) if label.strip()]
    return [texts[row] for row in labeled], [labels[row].strip() for row in labeled]


def _named(codes: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """The classes with their names, if they are numbers into `names`."""
    return tuple(names[int(code)] for code in codes) if names else codes


def _read_as(ngrams: int) -> str:
    return "words" if ngrams == 1 else "words and pairs of neighboring words"


def _notes(names: TextColumns, ngrams: int, cut: int, dropped: int, spec: RunSpec) -> list[str]:
    notes = [f"{names.text!r} is read as {_read_as(ngrams)}, {names.label!r} is the label"]
    if cut:
        verb = "text has" if cut == 1 else "texts have"
        notes.append(f"{cut:,} {verb} more than {spec.context} words; the end is left out (context)")
    if dropped:
        notes.append(f"{dropped:,} {'row without a label is' if dropped == 1 else 'rows without a label are'} left out")
    return notes
