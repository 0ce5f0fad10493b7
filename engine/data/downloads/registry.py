"""Datasets that are not the user's files: MNIST, Fashion-MNIST and CIFAR-10 by name, and everything at openml.org.

Looks for local copies of the published files first, then in the cache, then at openml.org. Never imports torch.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from epochtop.engine.data.columns.assembly import dataset_of
from epochtop.engine.data.columns.selection import ColumnSelection
from epochtop.engine.data.dataset import OnProgress, RawDataset, no_progress
from epochtop.engine.data.downloads.cache import load_cached, store
from epochtop.engine.data.downloads.cifar import FOLDER, cifar_images
from epochtop.engine.data.downloads.mnist import idx_images
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.ownership import risk_of, trusted_cache

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class _NamedDataset:
    """A dataset with a short name: where to look for its published files, and its name at openml.org."""

    classes: tuple[str, ...]
    folders: tuple[str, ...]
    read: Callable[[Path, tuple[str, ...]], RawDataset | None]
    openml: str
    rows: int
    test_rows: int
    """Number of last rows at openml.org that are the published test rows; 0 if their order is unnamed."""


NAMED = {
    "mnist": _NamedDataset(DIGITS, ("MNIST/raw", "mnist", "."), idx_images, "mnist_784", 70_000, 10_000),
    "fashion_mnist": _NamedDataset(
        CLOTHES, ("FashionMNIST/raw", "fashion_mnist", "."), idx_images, "Fashion-MNIST", 70_000, 10_000
    ),
    "cifar10": _NamedDataset(THINGS, (FOLDER, "."), cifar_images, "CIFAR_10", 60_000, 0),
}


def load_download(spec: RunSpec, report: OnProgress = no_progress) -> RawDataset:
    """Rows of `mnist`, `fashion_mnist`, `cifar10`, `openml:NAME` or `openml:ID`. Raises Invalid.

    `report` receives lines of progress, in the calling thread only.
    """
    named = NAMED.get(spec.dataset)
    if named is not None:
        return _local(named) or _cached(
            _file(spec.dataset), report, lambda: _named_from_openml(spec.dataset, named, report)
        )
    name = spec.dataset.removeprefix("openml:").strip()
    if not name or not name.isprintable():
        raise Invalid("dataset", "openml: needs a name or an id, for example openml:credit-g or openml:31")
    raw = _cached(_file(f"openml-{name}"), report, lambda: _from_openml(name, report))
    return _with_selection(raw, spec) if raw.kind == "table" else raw


def _with_selection(raw: RawDataset, spec: RunSpec) -> RawDataset:
    """A downloaded table with the target and the columns that the settings choose."""
    from epochtop.engine.data.downloads.openml import table_of

    is_default = spec.target in ("", raw.target)
    if raw.classes and is_default and spec.problem == "auto":  # openml.org says that the labels are classes
        spec = msgspec.structs.replace(spec, problem="classification")
    selection = ColumnSelection(spec, raw.target)
    table = table_of(raw, spec.dataset)
    types = dict(zip(table.names, selection(table.names), strict=True))
    columns = tuple(column for column in table.columns if types[column.name] != "skip")
    return dataset_of(dataclasses.replace(table, columns=columns), selection)


def data_folders() -> list[Path]:
    """Folders to search for local copies: $EPOCHTOP_DATA, ./data and the cache, in this order."""
    custom = os.environ.get("EPOCHTOP_DATA")
    return [*([Path(custom).expanduser()] if custom else []), Path("data"), trusted_cache().path]


def _local(named: _NamedDataset) -> RawDataset | None:
    for base in data_folders():
        for folder in named.folders:
            raw = named.read((base / folder).absolute(), named.classes)
            if raw is not None:
                return raw
    return None


def _file(name: str) -> Path:
    return trusted_cache().path / f"{quote(name, safe='')}.npz"


def _cached(path: Path, report: OnProgress, fetch: Callable[[], RawDataset]) -> RawDataset:
    """The dataset in the cache file `path`; downloads and stores it if there is none.

    Does the same if the file is damaged, or if another user could have written it.
    """
    cache, risk = trusted_cache(), risk_of(path)
    if cache.note:
        report(cache.note)
    try:
        if risk is None:
            return load_cached(path)
        report(f"{risk}; downloading it again")
    except FileNotFoundError:
        pass
    except ValueError as error:
        report(f"{error}; downloading it again")
    raw = fetch()
    try:
        store(path, raw)
    except OSError as error:
        note = f"the download could not be cached in {path}: {error.strerror}"
        return dataclasses.replace(raw, notes=(*raw.notes, note))
    return raw


def _from_openml(name: str, report: OnProgress, version: int | None = None) -> RawDataset:
    from epochtop.engine.data.downloads.openml import from_openml  # imports scikit-learn

    folder = trusted_cache().path
    try:
        return from_openml(name, folder, report, version)
    except OSError as error:
        raise Invalid(
            "dataset", f"cannot write downloads to {folder}: {error.strerror}; set EPOCHTOP_CACHE to another folder"
        ) from None


def _named_from_openml(name: str, named: _NamedDataset, report: OnProgress) -> RawDataset:
    try:
        raw = _from_openml(named.openml, report, version=1)
    except Invalid as error:
        local = f"; or put its published files into {Path('data') / named.folders[0]}"
        raise Invalid(error.field, f"{name}: {error.message}{local}") from None
    if raw.kind != "image" or len(raw.classes) != len(named.classes):
        raise Invalid(
            "dataset", f"{name}: openml.org's {named.openml} has changed and no longer holds ten classes of images"
        )
    if named.test_rows and len(raw.x) == named.rows:
        cut = named.rows - named.test_rows
        test = (raw.x[cut:], raw.y[cut:])
        return dataclasses.replace(raw, x=raw.x[:cut], y=raw.y[:cut], test=test, classes=named.classes)
    note = "openml.org does not mark the published test rows; test_fraction decides"
    return dataclasses.replace(raw, classes=named.classes, notes=(*raw.notes, note))
