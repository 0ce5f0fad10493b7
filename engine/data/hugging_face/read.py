"""Rows of `hf:FOLDER`: a dataset of Hugging Face's `datasets` package, saved to a local folder, or Parquet files.

Images, texts with labels, and tables. Never downloads anything, and never imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import OnProgress, RawDataset, no_progress
from epochtop.engine.data.facts import label_fact, rows_fact
from epochtop.engine.data.hugging_face.saved import MOST_LISTED, Part, SavedDataset, open_saved
from epochtop.engine.data.hugging_face.tables import read_columns
from epochtop.engine.data.images.batch import check_broken, decode_images
from epochtop.engine.data.images.read import need_pillow
from epochtop.engine.data.labels import Labels, labels_of
from epochtop.engine.data.text.documents import LOOKED_AT, TEXT_NAMES, choose_columns, documents, only_texts
from epochtop.engine.data.text.tables import as_text
from epochtop.engine.protocol.spec import Invalid, RunSpec


def read_hugging_face(spec: RunSpec, folder: Path, report: OnProgress = no_progress) -> RawDataset:
    """Rows of a saved dataset. A column of images makes an image dataset, one of texts a text dataset. Raises Invalid."""
    saved = open_saved(folder)
    if saved.of_type("Image"):
        _check_no_table(spec, saved, "images")
        return _images(spec, saved, saved.of_type("Image")[0], _label_of(saved, spec.target), report)
    texts = _texts(spec, saved)
    if texts:
        _check_no_table(spec, saved, "texts")
        return _documents(spec, saved, texts, _label_of(saved, spec.target))
    return read_columns(spec, saved)


def _texts(spec: RunSpec, saved: SavedDataset) -> list[str]:
    """The columns of which one is the text to classify; none if the dataset is a table.

    A column with a usual name of texts is one; without columns of numbers, so is the only one with several words per cell.
    """
    targets = {part.strip() for part in (spec.target or saved.usual_label).split(",")}
    texts = [name for name in saved.of_values("string", "large_string") if name not in targets]
    if any(name.lower() in TEXT_NAMES for name in texts):
        return texts
    numbers = [name for name in saved.of_values("int", "uint", "float", "double", "bool") if name not in targets]
    first = saved.parts["train"][:LOOKED_AT]
    cells = {name: [as_text(text) for text in first[name]] for name in texts}
    return texts if texts and not numbers and only_texts(cells) else []


def _check_no_table(spec: RunSpec, saved: SavedDataset, rows: str) -> None:
    """Raise Invalid if a setting is about the columns of a table."""
    for name in ("columns", "kinds"):
        if getattr(spec, name):
            raise Invalid(name, f"applies to tables only; leave it empty, because {saved.where} holds {rows}")


def _label_of(saved: SavedDataset, target: str) -> str:
    """The column of labels: `target`, a column with class names, or one with a usual name. Raises Invalid."""
    listed = ", ".join(map(repr, list(saved.features)[:MOST_LISTED]))
    if target and target not in saved.features:
        raise Invalid("target", f"{saved.where} has no column {target!r}; its columns are {listed}")
    label = target or saved.usual_label
    if not label:
        raise Invalid("target", f"{saved.where} has no column called label; name the column of labels: {listed}")
    return label


# --- texts -------------------------------------------------------------------------------------------------


def _documents(spec: RunSpec, saved: SavedDataset, texts: Sequence[str], target: str) -> RawDataset:
    columns = {name: saved.parts["train"][name] for name in texts}
    names = choose_columns(str(saved.where), {**columns, target: [""]}, target)
    parts = {
        part: ([as_text(text) for text in split[names.text]], [as_text(label) for label in split[names.label]])
        for part, split in saved.parts.items()
    }
    return documents(spec, names, _with_labels(parts), saved.notes, saved.class_names(names.label))


def _with_labels(parts: dict[Part, tuple[list[str], list[str]]]) -> dict[str, tuple[list[str], list[str]]]:
    """The parts whose rows have labels; published test rows often have -1 instead."""
    return {part: rows for part, rows in parts.items() if part == "train" or set(rows[1]) - {"", "-1"}}


# --- images ------------------------------------------------------------------------------------------------


def _images(spec: RunSpec, saved: SavedDataset, column: str, label: str, report: OnProgress) -> RawDataset:
    import datasets

    need_pillow("a column of images")
    labels, labeled = _labels(spec, saved, label)
    undecoded = datasets.Image(decode=False)
    cells = [cell for split in saved.parts.values() for cell in split.cast_column(column, undecoded)[column]]
    images = decode_images(spec, saved.where, [cell["bytes"] or cell["path"] for cell in cells], report)
    places = [(part, row) for part, split in saved.parts.items() for row in range(len(split))]
    broken = check_broken(spec, saved.where, lambda place: "{} row {}".format(*places[place]), images)
    rows, start = {}, 0
    for part, split in saved.parts.items():
        chosen = slice(start, start + len(split))
        used = images.readable[chosen] & labeled[chosen]
        if used.any() or part == "train":
            rows[part] = (images.x[chosen][used], labels.y[chosen][used])
        start += len(split)
    return RawDataset(
        kind="image",
        x=rows["train"][0],
        y=rows["train"][1],
        loss=labels.loss,
        classes=labels.classes,
        target=label,
        test=rows.get("test"),
        validation=rows.get("validation"),
        notes=(*saved.notes, *images.notes, *broken, *labels.notes),
        column_facts=(
            rows_fact(column, "image", images.x.shape[1:], int((~images.readable).sum())),
            label_fact(label, labels.loss, labels.classes, int((~labeled).sum()), distinct=len(labels.classes) or None),
        ),
    )


def _labels(spec: RunSpec, saved: SavedDataset, label: str) -> tuple[Labels, npt.NDArray[np.bool_]]:
    """The labels of all parts, so that a class has one code in all of them, and which rows have one. Raises Invalid.

    Published test rows often have none, or -1 where classes have numbers.
    """
    names = saved.class_names(label)
    cells = [cell for split in saved.parts.values() for cell in split[label]]
    labeled = np.array([cell is not None and not (names and cell == -1) for cell in cells], dtype=bool)
    present = np.array([cell for cell, has_label in zip(cells, labeled, strict=True) if has_label])
    problem = "classification" if names and spec.problem == "auto" else spec.problem
    coded = labels_of(present, label, problem)
    y = np.zeros(len(cells), dtype=coded.y.dtype)
    y[labeled] = coded.y
    gaps = int((~labeled).sum())
    note = (f"{gaps:,} {'image without a label is' if gaps == 1 else 'images without a label are'} left out",)
    classes = tuple(names[int(code)] for code in coded.classes) if names else coded.classes
    return Labels(y, classes, (*(note if gaps else ()), *coded.notes)), labeled
