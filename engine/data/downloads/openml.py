"""Datasets from openml.org: downloaded by scikit-learn, then turned into images or a table of numbers.

scikit-learn downloads in another thread, so that the calling thread can report progress. Never imports torch.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import shutil
import socket
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import ColumnEncoding, OnProgress, RawDataset
from epochtop.engine.data.labels import labels_of
from epochtop.engine.data.tables.arff import read_arff
from epochtop.engine.data.tables.column import Column, NumberColumn, Table, TextColumn, values_of
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.spec import Invalid

IMAGES = {"mnist_784": (1, 28, 28), "Fashion-MNIST": (1, 28, 28), "CIFAR_10": (3, 32, 32)}
"""Datasets whose columns are pixels, by name at openml.org: channels, height, width."""
MOST_DENSE_BYTES = 4 * 2**30
"""Largest size of a sparse table once it is dense; a larger one is refused."""
PROGRESS_S = 2.0
"""Seconds between two lines of progress."""
TIMEOUT_S = 30.0
"""Longest silence of the server in seconds; scikit-learn sets no limit."""

NO_ANSWER = (URLError, HTTPException, TimeoutError, ConnectionError)
"""Errors that mean the server cannot be reached or does not answer."""


# --- from a download to rows ---------------------------------------------------------------------------------


def from_openml(name: str, folder: Path, report: OnProgress, version: int | None = None) -> RawDataset:
    """Download a dataset by name or id. Raises Invalid.

    A table is returned as it was downloaded: `x` holds numbers and indices of categories (rows, columns), NaN for missing
    values, and `y` its default target; :func:`table_of` makes columns of it. Without exactly one default target, that is
    empty and `x` holds all columns.
    """
    bunch = download(name, version, folder, report)
    if 0 in bunch.data.shape:
        raise Invalid("dataset", f"openml:{name} has no {'feature columns' if bunch.data.shape[0] else 'rows'}")
    names, target = list(bunch.feature_names), bunch.default_target
    rows, full_name = bunch.data.shape[0], bunch.details["name"]
    report(f"{full_name}: {rows:,} rows of {len(names) - bool(target):,} columns")
    x = bunch.data if isinstance(bunch.data, np.ndarray) else _dense(name, bunch.data)
    categories = {column: tuple(map(str, texts)) for column, texts in (bunch.categories or {}).items()}
    y = x[:, names.index(target)] if target else np.zeros(rows)
    features = [column for column in names if column != target]
    raw = RawDataset(
        kind="table",
        x=x[:, [names.index(column) for column in features]],
        y=np.where(np.isnan(y), -1, y).astype(np.int64) if target in categories else y,
        loss="cross_entropy" if target in categories else "mean_squared_error",
        classes=categories.get(target, ()),
        columns=tuple(features),
        target=target,
        encodings=tuple(_encoding(categories.get(column)) for column in features),
        notes=(f"{full_name}, version {bunch.details.get('version', '?')}, from {bunch.url}", *bunch.warnings),
    )
    return _as_images(raw, IMAGES.get(full_name))


def _encoding(categories: tuple[str, ...] | None) -> ColumnEncoding:
    return ColumnEncoding() if categories is None else ColumnEncoding(kind="category", categories=categories)


def table_of(raw: RawDataset, source: str) -> Table:
    """The columns of a downloaded table, the default target last."""
    columns: list[Column] = []
    encodings = raw.encodings or tuple(ColumnEncoding() for _ in raw.columns)
    for name, values, encoding in zip(raw.columns, raw.x.T, encodings, strict=True):
        columns.append(_column(name, values, encoding.categories if encoding.kind == "category" else None))
    if raw.target:
        columns.append(_column(raw.target, raw.y, raw.classes or None))
    is_plain = all(isinstance(column, NumberColumn) for column in columns[: len(raw.columns)])
    return Table(
        source=source,
        columns=tuple(columns),
        lines=range(1, len(raw.x) + 1),
        unit="row",
        numbers=raw.x if is_plain else None,
        number_names=raw.columns if is_plain else (),
        notes=raw.notes,
    )


def _column(name: str, values: npt.NDArray[Any], categories: tuple[str, ...] | None) -> Column:
    if categories is None:
        return NumberColumn(name, values)
    codes = np.where(np.isnan(values), -1, values) if values.dtype.kind == "f" else values
    return TextColumn(name, codes.astype(np.int32), categories)


def _as_images(raw: RawDataset, image: tuple[int, int, int] | None) -> RawDataset:
    """The same rows as images, if the columns are pixels."""
    if (
        image is None
        or not raw.classes
        or any(one.kind != "number" for one in raw.encodings)
        or bool((raw.y < 0).any())
    ):
        return raw
    pixels = _pixels(raw.x, image)
    if pixels is None:
        return raw
    labels = labels_of([raw.classes[code] for code in raw.y.tolist()], raw.target, "classification")
    return replace(
        raw, kind="image", x=pixels, y=labels.y, classes=labels.classes, columns=(), encodings=(), image=image
    )


def _dense(name: str, sparse: Any) -> npt.NDArray[np.float64]:
    size = math.prod(sparse.shape) * 8
    if size > MOST_DENSE_BYTES:
        raise Invalid(
            "dataset", f"openml:{name} is sparse and would need {format_bytes(size)} of memory; choose another dataset"
        )
    dense: npt.NDArray[np.float64] = sparse.toarray()
    return dense


def _pixels(x: npt.NDArray[np.float64], image: tuple[int, int, int]) -> npt.NDArray[np.uint8] | None:
    """The rows as images, uint8 (rows, channels, height, width); None unless they are whole numbers from 0 to 255."""
    if x.shape[1] != math.prod(image):
        return None
    pixels = np.empty(x.shape, dtype=np.uint8)
    for start in range(0, len(x), 1000):
        block = x[start : start + 1000]
        if not (block.min() >= 0 and block.max() <= 255):
            return None
        pixels[start : start + 1000] = block
        if not np.array_equal(pixels[start : start + 1000], block):
            return None
    return pixels.reshape(-1, *image)


# --- the download ------------------------------------------------------------------------------------------


def download(name: str, version: int | None, folder: Path, report: OnProgress) -> Any:
    """Download all columns of a dataset by name or id, as scikit-learn's bunch of numpy arrays. Raises Invalid.

    `folder` holds the download until it is decoded; raises OSError if it cannot be written. `version` None takes the
    oldest active version.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with TemporaryDirectory(prefix=".fetching-", dir=folder, ignore_cleanup_errors=True) as download_folder:
        report(f"downloading {name} from openml.org")
        try:
            return _with_progress(lambda: _fetched(name, version, download_folder), Path(download_folder), name, report)
        except (*NO_ANSWER, LookupError, ValueError, TypeError, EOFError) as error:
            if isinstance(error, Invalid):
                raise
            raise _explained(error, name, folder) from error


def _fetched(name: str, version: int | None, folder: str) -> Any:
    try:
        return _fetch(name, version, folder)
    except ValueError:
        bunch = _from_file(Path(folder))
        if bunch is None:
            raise
        return bunch


def _fetch(name: str, version: int | None, folder: str) -> Any:
    from sklearn.datasets import fetch_openml

    selection = (
        {"data_id": int(name)} if name.isdecimal() else {"name": quote(name, safe=""), "version": version or "active"}
    )
    previous_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # liac-arff needs no pandas; it decoded 1,000 rows of 784 pixels in 0.2 s on an idle core, in 1.6 s on a busy one
            bunch = fetch_openml(
                **selection,
                target_column=None,
                data_home=folder,
                as_frame=False,
                parser="liac-arff",
            )
    finally:
        socket.setdefaulttimeout(previous_timeout)
    bunch["warnings"] = tuple(" ".join(str(warning.message).split()) for warning in caught)
    bunch["default_target"] = _default_target(features(Path(folder)))
    return bunch


def _default_target(columns: list[dict[str, Any]]) -> str:
    """The name of the only default target; empty if there are several or none."""
    targets = [feature["name"] for feature in columns if feature["is_target"] == "true"]
    return str(targets[0]) if len(targets) == 1 else ""


def _from_file(folder: Path) -> Any:
    """A bunch of the dataset's file itself, for a dataset with columns of text; None for any other.

    scikit-learn reads no text into arrays and refuses such a dataset before it downloads the file.
    """
    columns, descriptions = features(folder), list(folder.glob("**/json/data/*.gz"))
    if not descriptions or not any(feature["data_type"] == "string" for feature in columns):
        return None
    details = json.loads(gzip.decompress(descriptions[0].read_bytes()))["data_set_description"]
    if not str(details["url"]).startswith("https://"):
        return None
    path, names = folder / "file.arff", {feature["name"] for feature in columns}
    request = Request(details["url"])  # noqa: S310 - https, see above
    with urlopen(request, timeout=TIMEOUT_S) as answer, open(path, "wb") as file:  # noqa: S310 - https, see above
        shutil.copyfileobj(answer, file)
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "md5").hexdigest() != details.get("md5_checksum"):
            raise ValueError("md5 checksum of the file differs")
    table = read_arff(path, lambda attributes: ["any" if name in names else "skip" for name in attributes])
    return SimpleNamespace(
        data=np.column_stack([_values(column) for column in table.columns]),
        feature_names=list(table.names),
        categories={column.name: list(column.texts) for column in table.columns if isinstance(column, TextColumn)},
        default_target=_default_target(columns),
        details=details,
        url=f"https://www.openml.org/d/{details['id']}",
        warnings=(),
    )


def _values(column: Column) -> npt.NDArray[np.float64]:
    """The values of a column, indices for texts; NaN is missing."""
    values = values_of(column).astype(np.float64)
    return np.where(values < 0, np.nan, values) if isinstance(column, TextColumn) else values


def _with_progress(work: Callable[[], Any], folder: Path, name: str, report: OnProgress) -> Any:
    """The result of `work`, which runs in another thread; reports every few seconds how much has arrived."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    worker = threading.Thread(target=run, name="download", daemon=True)
    start_s, previous_size = time.monotonic(), -1
    worker.start()
    while worker.is_alive():
        worker.join(PROGRESS_S)
        if worker.is_alive():
            size = _size(folder)
            activity = (
                f"{format_bytes(size)} received"
                if size != previous_size
                else f"decoding {format_bytes(size)} (only the first time)"
            )
            report(f"{name}: {activity}, {time.monotonic() - start_s:.0f} s")
            previous_size = size
    if errors:
        raise errors[0]
    return results[0]


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return size


def features(folder: Path) -> list[dict[str, Any]]:
    """openml.org's description of the columns, from the files downloaded so far; empty if it is not among them."""
    for path in folder.glob("**/data/features/*.gz"):
        try:
            columns = json.loads(gzip.decompress(path.read_bytes()))["data_features"]["feature"]
        except (OSError, EOFError, ValueError, KeyError):
            return []
        return [feature for feature in columns if "true" not in (feature["is_ignore"], feature["is_row_identifier"])]
    return []


def _explained(error: Exception, name: str, cache: Path) -> Invalid:
    reason = " ".join(str(error).split())
    if isinstance(error, HTTPError):
        return Invalid("dataset", f"openml.org answered {error.code} ({error.reason}) for {name}; try again later")
    if isinstance(error, NO_ANSWER):
        why = getattr(error, "reason", None) or error
        return Invalid(
            "dataset",
            f"{name} is not on this machine and openml.org cannot be reached ({why}); download it once with a "
            f"connection, then it is kept in {cache}",
        )
    if "md5 checksum" in reason:
        return Invalid(
            "dataset", f"the download of {name} from openml.org was damaged twice (wrong checksum); try again later"
        )
    if "not found" in reason or "No active dataset" in reason or "No known dataset" in reason:
        return Invalid("dataset", f"openml.org has no active dataset {name}; find names and ids at openml.org/search")
    return Invalid("dataset", f"openml:{name} cannot be read: {reason or type(error).__name__}")
