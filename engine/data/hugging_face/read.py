"""Rows of `hf:FOLDER`: a dataset of Hugging Face's `datasets` package, saved to a local folder, or Parquet files.

Images, texts with labels, and tables of numbers. Never downloads anything, and never imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from epochtop.engine.data.arrays.targets import joined
from epochtop.engine.data.dataset import Kind, OnProgress, RawDataset, no_progress
from epochtop.engine.data.images.batch import check_broken, decode_images
from epochtop.engine.data.images.read import need_pillow
from epochtop.engine.data.labels import Labels, labels_of
from epochtop.engine.data.text.documents import LABEL_NAMES, TEXT_NAMES, choose_columns, documents
from epochtop.engine.data.text.tables import as_text
from epochtop.engine.protocol.spec import Invalid, RunSpec

Part = Literal["train", "validation", "test"]
_PARTS: dict[Part, set[str]] = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing"},
}
_NUMBERS = ("int", "uint", "float", "double", "bool")
MOST_LISTED = 12


@dataclass(frozen=True)
class _Saved:
    """A dataset in parts, with the features of its columns."""

    where: Path
    parts: Mapping[Part, Any]
    notes: tuple[str, ...] = ()

    @property
    def features(self) -> Mapping[str, Any]:
        """What each column holds, by its name."""
        features: Mapping[str, Any] = self.parts["train"].features
        return features

    def of_type(self, *names: str) -> list[str]:
        """Columns whose feature has one of these types."""
        return [name for name, feature in self.features.items() if type(feature).__name__ in names]

    def of_values(self, kinds: tuple[str, ...]) -> list[str]:
        """Columns of plain values whose type begins with one of `kinds`."""
        return [name for name in self.of_type("Value") if str(self.features[name].dtype).startswith(kinds)]


def read_hugging_face(spec: RunSpec, folder: Path, report: OnProgress = no_progress) -> RawDataset:
    """Rows of a saved dataset. A column of images makes an image dataset, one of texts a text dataset. Raises Invalid."""
    saved = _open(folder)
    if saved.of_type("Image"):
        return _images(spec, saved, saved.of_type("Image")[0], label_of(saved, spec.target), report)
    target = label_of(saved, spec.target)
    texts = [name for name in saved.of_values(("string", "large_string")) if name != target]
    numbers = [name for name in saved.of_values(_NUMBERS) if name != target]
    if texts and (not numbers or any(name.lower() in TEXT_NAMES for name in texts)):
        return _documents(spec, saved, texts, target)
    return _table(spec, saved, numbers, target)


def _open(folder: Path) -> _Saved:
    try:
        import datasets
    except ImportError:
        raise Invalid(
            "dataset", "hf:FOLDER needs the package datasets; install it with: pip install datasets"
        ) from None
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise Invalid("dataset", f"{folder} {what}; name a folder that save_to_disk wrote, or one with Parquet files")
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            loaded = datasets.load_from_disk(str(folder))
            return _saved(folder, dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded})
        return _saved(folder, {part: _of_parquet(files) for part, files in _parquet_files(folder).items()})
    except Invalid:
        raise
    except Exception as error:  # a damaged dataset raises whatever datasets, pyarrow and json raise
        raise Invalid("dataset", f"{folder} cannot be read as a dataset: {' '.join(str(error).split())}") from None


def _of_parquet(files: Sequence[Path]) -> Any:
    import datasets

    return datasets.concatenate_datasets([_one_parquet(file) for file in files])


def _one_parquet(file: Path) -> Any:
    """A Parquet file in memory, with the features that its metadata names. `from_parquet` would copy it to a cache."""
    import datasets
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file)
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def _parquet_files(folder: Path) -> dict[str, list[Path]]:
    """Parquet files by the part that their name, or that of their folder, begins with."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        words = re.findall("[a-z]+", file.relative_to(folder).as_posix().lower())
        part = next((part for part, names in _PARTS.items() if names & set(words)), "train")
        files.setdefault(part, []).append(file)
    if not files:
        raise Invalid(
            "dataset",
            f"{folder} holds neither a dataset that save_to_disk wrote nor Parquet files; name another folder",
        )
    return files


def _saved(folder: Path, splits: Mapping[str, Any]) -> _Saved:
    parts: dict[Part, Any] = {}
    for name, split in splits.items():
        part = next((part for part, names in _PARTS.items() if name.lower() in names), None)
        if part is not None:
            parts[part] = split
    if "train" not in parts:
        raise Invalid("dataset", f"{folder} has the parts {', '.join(splits) or 'none'}; it needs one called train")
    unused = [name for name in splits if not any(name.lower() in names for names in _PARTS.values())]
    return _Saved(folder, parts, (f"the parts {', '.join(unused)} are not used",) if unused else ())


def label_of(saved: _Saved, target: str) -> str:
    """The column of labels: `target`, a column with class names, or one with a usual name. Raises Invalid."""
    listed = ", ".join(map(repr, list(saved.features)[:MOST_LISTED]))
    if target and target not in saved.features:
        raise Invalid("target", f"{saved.where} has no column {target!r}; its columns are {listed}")
    label = target or _usual_label(saved)
    if not label:
        raise Invalid("target", f"{saved.where} has no column called label; name the column of labels: {listed}")
    return label


def _usual_label(saved: _Saved) -> str:
    lower = {name.lower(): name for name in saved.features}
    named = next((lower[name] for name in LABEL_NAMES if name in lower), "")
    classes = saved.of_type("ClassLabel")
    return named or (classes[0] if len(classes) == 1 else "")


def class_names(parts: Mapping[Part, Any], label: str) -> tuple[str, ...]:
    """Names of the classes, if the column of labels has some."""
    return tuple(getattr(parts["train"].features[label], "names", None) or ())


def _documents(spec: RunSpec, saved: _Saved, texts: list[str], target: str) -> RawDataset:
    columns = {name: saved.parts["train"][name] for name in texts}
    names = choose_columns(str(saved.where), {**columns, target: [""]}, target)
    parts = {
        part: ([as_text(text) for text in split[names.text]], [as_text(label) for label in split[names.label]])
        for part, split in saved.parts.items()
    }
    return documents(spec, names, _with_labels(parts), saved.notes, class_names(saved.parts, names.label))


def _with_labels(parts: dict[Part, tuple[list[str], list[str]]]) -> dict[str, tuple[list[str], list[str]]]:
    """The parts whose rows have labels; published test rows often have -1 instead."""
    return {part: rows for part, rows in parts.items() if part == "train" or set(rows[1]) - {"", "-1"}}


def _images(spec: RunSpec, saved: _Saved, column: str, label: str, report: OnProgress) -> RawDataset:
    import datasets

    need_pillow("a column of images")
    undecoded = datasets.Image(decode=False)
    cells = [cell for split in saved.parts.values() for cell in split.cast_column(column, undecoded)[column]]
    images = decode_images(spec, saved.where, [cell["bytes"] or cell["path"] for cell in cells], report)
    names = [f"{part} row {row}" for part, split in saved.parts.items() for row in range(len(split))]
    broken = check_broken(spec, saved.where, names, images)
    coded, y = _labels(spec, saved, label)
    x = dict(zip(saved.parts, np.split(images.x, _ends(saved)), strict=True))
    readable = dict(zip(saved.parts, np.split(images.readable, _ends(saved)), strict=True))
    rows = {part: (x[part][readable[part]], y[part][readable[part]]) for part in saved.parts}
    return _dataset("image", rows, coded, label, (*saved.notes, *images.notes, *broken, *coded.notes))


def _dataset(
    kind: Kind,
    rows: Mapping[Part, tuple[Any, Any]],
    coded: Labels,
    label: str,
    notes: tuple[str, ...],
    columns: tuple[str, ...] = (),
) -> RawDataset:
    """The dataset of the rows and labels of each part."""
    return RawDataset(
        kind=kind,
        x=rows["train"][0],
        y=rows["train"][1],
        loss=coded.loss,
        classes=coded.classes,
        columns=columns,
        target=label,
        test=rows.get("test"),
        validation=rows.get("validation"),
        notes=notes,
    )


def _labels(spec: RunSpec, saved: _Saved, label: str) -> tuple[Labels, dict[Part, Any]]:
    """The labels of all parts, so that a class has one code in all of them, and those of each part."""
    labels = [np.asarray(split[label]) for split in saved.parts.values()]
    coded = labels_of(joined(saved.where, [label] * len(labels), labels), label, spec.problem)
    names = class_names(saved.parts, label)
    if names and coded.classes:
        coded = replace(coded, classes=tuple(names[int(code)] for code in coded.classes))
    return coded, dict(zip(saved.parts, np.split(coded.y, _ends(saved)), strict=True))


def _ends(saved: _Saved) -> Any:
    """Where each part but the last one ends in rows of all parts."""
    return np.cumsum([len(split) for split in saved.parts.values()])[:-1]


def _table(spec: RunSpec, saved: _Saved, numbers: Sequence[str], label: str) -> RawDataset:
    columns = tuple(numbers)
    if not columns:
        listed = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in saved.features.items())
        raise Invalid("dataset", f"{saved.where} has no columns of images, texts or numbers; it has {listed}")
    unused = [name for name in saved.features if name not in (*columns, label)]
    coded, y = _labels(spec, saved, label)
    rows = {part: (_matrix(saved, split, columns), y[part]) for part, split in saved.parts.items()}
    left_out = (f"columns without numbers are not used: {', '.join(unused)}",) if unused else ()
    return _dataset("table", rows, coded, label, (*saved.notes, *left_out, *coded.notes), columns)


def _matrix(saved: _Saved, split: Any, columns: tuple[str, ...]) -> Any:
    x = np.column_stack([np.asarray(split[name], dtype=np.float64) for name in columns])
    if not np.isfinite(x).all():
        row, column = (int(number) for number in np.argwhere(~np.isfinite(x))[0])
        raise Invalid("dataset", f"{saved.where}, row {row}, column {columns[column]!r}: the value is missing")
    return x
