"""Datasets that are not the user's own files: MNIST and its like by a short name, and whatever openml.org has.

A local copy of the published files is taken first, then what was fetched before, and openml.org last.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from epochtop.engine.data.dataset import OnProgress, RawDataset, no_progress
from epochtop.engine.data.downloads.cache import keep, kept
from epochtop.engine.data.downloads.cifar import FOLDER, cifar_images
from epochtop.engine.data.downloads.mnist import idx_images
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.paths import cache_folder

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class _Known:
    """A dataset with a short name: where its published files lie, and what openml.org calls it."""

    classes: tuple[str, ...]
    folders: tuple[str, ...]
    read: Callable[[Path, tuple[str, ...]], RawDataset | None]
    openml: str
    rows: int
    test_rows: int
    """The last rows at openml.org that are the published test; 0 where their order is not known."""


KNOWN = {
    "mnist": _Known(DIGITS, ("MNIST/raw", "mnist", "."), idx_images, "mnist_784", 70_000, 10_000),
    "fashion_mnist": _Known(
        CLOTHES, ("FashionMNIST/raw", "fashion_mnist", "."), idx_images, "Fashion-MNIST", 70_000, 10_000
    ),
    "cifar10": _Known(THINGS, (FOLDER, "."), cifar_images, "CIFAR_10", 60_000, 0),
}


def fetched(spec: RunSpec, say: OnProgress = no_progress) -> RawDataset:
    """Rows of `mnist`, `fashion_mnist`, `cifar10`, `openml:NAME` or `openml:ID`. Raises Invalid.

    `say` takes a line on how far a download is; it is called by the calling thread only.
    """
    known = KNOWN.get(spec.dataset)
    if known is not None:
        return _local(known) or _remembered(
            _file(spec.dataset), say, lambda: _known_from_openml(spec.dataset, known, say)
        )
    name = spec.dataset.removeprefix("openml:").strip()
    if not name or not name.isprintable():
        raise Invalid("dataset", "openml: needs a name or a number after it, such as openml:credit-g or openml:31")
    return _remembered(
        _file(f"openml-{name}" + (f"--{spec.target}" if spec.target else "")),
        say,
        lambda: _from_openml(name, spec.target, say),
    )


def data_folders() -> list[Path]:
    """Where a local copy is looked for: $EPOCHTOP_DATA, ./data and the cache, in this order."""
    own = os.environ.get("EPOCHTOP_DATA")
    return [*([Path(own).expanduser()] if own else []), Path("data"), cache_folder()]


def _local(known: _Known) -> RawDataset | None:
    for base in data_folders():
        for folder in known.folders:
            raw = known.read((base / folder).absolute(), known.classes)
            if raw is not None:
                return raw
    return None


def _file(name: str) -> Path:
    return cache_folder() / f"{quote(name, safe='')}.npz"


def _remembered(path: Path, say: OnProgress, fetch: Callable[[], RawDataset]) -> RawDataset:
    """What the file holds, or what is fetched now and kept there."""
    try:
        return kept(path)
    except FileNotFoundError:
        pass
    except ValueError as error:
        say(f"{error}; it is fetched again")
    raw = fetch()
    try:
        keep(path, raw)
    except OSError as error:
        note = f"it could not be kept for the next time: {path}: {error.strerror}"
        return dataclasses.replace(raw, notes=(*raw.notes, note))
    return raw


def _from_openml(name: str, target: str, say: OnProgress, version: int | None = None) -> RawDataset:
    from epochtop.engine.data.downloads.openml import from_openml  # scikit-learn, only where something is fetched

    folder = cache_folder()
    try:
        return from_openml(name, target, folder, say, version)
    except OSError as error:
        raise Invalid("dataset", f"nothing can be fetched: {folder}: {error.strerror}; set EPOCHTOP_CACHE") from None


def _known_from_openml(name: str, known: _Known, say: OnProgress) -> RawDataset:
    try:
        raw = _from_openml(known.openml, "", say, version=1)
    except Invalid as error:
        local = f"; or put its published files into {Path('data') / known.folders[0]}"
        raise Invalid(error.field, f"{name}: {error.message}{local}") from None
    if raw.kind != "image" or len(raw.classes) != len(known.classes):
        raise Invalid(
            "dataset", f"{name}: openml.org's {known.openml} has changed; it is no longer ten kinds of images"
        )
    if known.test_rows and len(raw.x) == known.rows:
        cut = known.rows - known.test_rows
        test = (raw.x[cut:], raw.y[cut:])
        return dataclasses.replace(raw, x=raw.x[:cut], y=raw.y[:cut], test=test, classes=known.classes)
    note = "openml.org does not say which rows are the published test; test_fraction decides"
    return dataclasses.replace(raw, classes=known.classes, notes=(*raw.notes, note))
