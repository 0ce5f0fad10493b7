"""A dataset of Hugging Face's `datasets` package in a local folder: its parts, and what its columns hold.

Never downloads anything, never copies to a cache, and never imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from epochtop.engine.data.text.documents import LABEL_NAMES
from epochtop.engine.protocol.spec import Invalid

Part = Literal["train", "validation", "test"]
_PARTS: dict[Part, set[str]] = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing"},
}
MOST_LISTED = 12


@dataclass(frozen=True)
class SavedDataset:
    """A dataset in parts, with the features of its columns."""

    where: Path
    parts: Mapping[Part, Any]
    """The rows of each part, as `datasets.Dataset`: `train` first."""
    notes: tuple[str, ...] = ()

    @property
    def features(self) -> Mapping[str, Any]:
        """What each column holds, by its name."""
        features: Mapping[str, Any] = self.parts["train"].features
        return features

    @property
    def usual_label(self) -> str:
        """The column of labels by its name, or the only one with class names; empty if there is none."""
        lower = {name.lower(): name for name in self.features}
        named = next((lower[name] for name in LABEL_NAMES if name in lower), "")
        classes = self.of_type("ClassLabel")
        return named or (classes[0] if len(classes) == 1 else "")

    def of_type(self, *names: str) -> list[str]:
        """Columns whose feature has one of these types."""
        return [name for name, feature in self.features.items() if type(feature).__name__ in names]

    def of_values(self, *kinds: str) -> list[str]:
        """Columns of plain values whose type begins with one of `kinds`."""
        return [name for name in self.of_type("Value") if str(self.features[name].dtype).startswith(kinds)]

    def class_names(self, column: str) -> tuple[str, ...]:
        """Names of the classes, if the values of the column are their numbers."""
        feature = self.features.get(column)
        return tuple(getattr(feature, "names", None) or ())


def open_saved(folder: Path) -> SavedDataset:
    """The dataset in a folder that `save_to_disk` wrote, or in its Parquet files. Raises Invalid."""
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


def _saved(folder: Path, splits: Mapping[str, Any]) -> SavedDataset:
    parts: dict[Part, Any] = {}
    for part, names in _PARTS.items():
        split = next((split for name, split in splits.items() if name.lower() in names), None)
        if split is not None:
            parts[part] = split
    if "train" not in parts:
        raise Invalid("dataset", f"{folder} has the parts {', '.join(splits) or 'none'}; it needs one called train")
    unused = [name for name in splits if not any(name.lower() in names for names in _PARTS.values())]
    return SavedDataset(folder, parts, (f"the parts {', '.join(unused)} are not used",) if unused else ())
