"""Datasets from openml.org: downloaded by scikit-learn, then turned into images or a table of numbers.

scikit-learn downloads in another thread, so that the calling thread can report progress. Never imports torch.
"""

from __future__ import annotations

import gzip
import json
import math
import socket
import threading
import time
import warnings
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import OnProgress, RawDataset
from epochtop.engine.data.labels import Labels, labels_of
from epochtop.engine.protocol.datasets import Problem
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


def from_openml(
    name: str,
    target: str,
    folder: Path,
    report: OnProgress,
    version: int | None = None,
    problem: Problem = "auto",
) -> RawDataset:
    """Download a dataset by name or id; an empty `target` takes its default target. Raises Invalid."""
    bunch = download(name, version, target, folder, report)
    names = tuple(bunch.target_names)
    if len(names) != 1 or bunch.target is None:
        obstacle = f"has several targets ({', '.join(names)})" if names else "has no default target"
        columns = listing(list(bunch.feature_names))
        raise Invalid("target", f"openml:{name} {obstacle}; set target to one of its columns: {columns}")
    full_name, full_version = bunch.details["name"], bunch.details.get("version", "?")
    report(f"{full_name}: {bunch.data.shape[0]:,} rows of {bunch.data.shape[1]:,} columns")
    x = _numbers(name, bunch)
    labels = _labels(bunch.target, names[0], problem)
    image = IMAGES.get(full_name)
    pixels = _pixels(x, image) if image is not None and labels.classes else None
    return RawDataset(
        kind="table" if pixels is None else "image",
        x=x if pixels is None else pixels,
        y=labels.y,
        loss=labels.loss,
        classes=labels.classes,
        columns=tuple(bunch.feature_names) if pixels is None else (),
        target=names[0],
        image=None if pixels is None else image,
        notes=(f"{full_name}, version {full_version}, from {bunch.url}", *bunch.warnings, *labels.notes),
    )


def _numbers(name: str, bunch: Any) -> npt.NDArray[np.float64]:
    """The features, float64 (rows, features). Raises Invalid if a value is not a finite number."""
    categories = bunch.categories or {}
    if any(column in categories for column in bunch.feature_names):
        raise text_columns(name, [column for column in bunch.feature_names if column in categories])
    if 0 in bunch.data.shape:
        raise Invalid("dataset", f"openml:{name} has no {'feature columns' if bunch.data.shape[0] else 'rows'}")
    x = bunch.data if isinstance(bunch.data, np.ndarray) else _dense(name, bunch.data)
    is_finite = np.asarray(np.isfinite(x).all(axis=0))
    missing = [column for column, finite in zip(bunch.feature_names, is_finite.tolist(), strict=True) if not finite]
    if missing:
        raise Invalid(
            "dataset",
            f"openml:{name}: values are missing in {listing([repr(column) for column in missing])}; save the table "
            "as a CSV file with the values filled in",
        )
    return x


def _dense(name: str, sparse: Any) -> npt.NDArray[np.float64]:
    size = math.prod(sparse.shape) * 8
    if size > MOST_DENSE_BYTES:
        raise Invalid(
            "dataset", f"openml:{name} is sparse and would need {format_bytes(size)} of memory; choose another dataset"
        )
    dense: npt.NDArray[np.float64] = sparse.toarray()
    return dense


def _labels(target: npt.NDArray[Any], column: str, problem: Problem) -> Labels:
    """Labels from the target column; categories are classes, however many there are, unless numbers are asked for."""
    is_category = target.dtype.kind not in "fiu"
    return labels_of(target, column, "classification" if is_category and problem == "auto" else problem)


def _pixels(x: npt.NDArray[np.float64], image: tuple[int, int, int]) -> npt.NDArray[np.uint8] | None:
    """The rows as images, uint8 (rows, channels, height, width); None unless they are whole numbers from 0 to 255."""
    if x.shape[1] != math.prod(image):
        return None
    pixels = np.empty(x.shape, dtype=np.uint8)
    for start in range(0, len(x), 1000):
        block = x[start : start + 1000]
        if block.min() < 0 or block.max() > 255:
            return None
        pixels[start : start + 1000] = block
        if not np.array_equal(pixels[start : start + 1000], block):
            return None
    return pixels.reshape(-1, *image)


# --- the download ------------------------------------------------------------------------------------------


def download(name: str, version: int | None, target: str, folder: Path, report: OnProgress) -> Any:
    """Download a dataset by name or id, as scikit-learn's bunch of numpy arrays. Raises Invalid.

    `folder` holds the download until it is decoded; raises OSError if it cannot be written. `version` None takes the
    oldest active version.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with TemporaryDirectory(prefix=".fetching-", dir=folder, ignore_cleanup_errors=True) as download_folder:
        report(f"downloading {name} from openml.org")
        try:
            return _with_progress(
                lambda: _fetch(name, version, target, download_folder), Path(download_folder), name, report
            )
        except (*NO_ANSWER, LookupError, ValueError, TypeError, EOFError) as error:
            raise _explained(error, name, target, Path(download_folder), folder) from error


def _fetch(name: str, version: int | None, target: str, folder: str) -> Any:
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
                target_column=target or "default-target",
                data_home=folder,
                as_frame=False,
                parser="liac-arff",
            )
    finally:
        socket.setdefaulttimeout(previous_timeout)
    bunch["warnings"] = tuple(" ".join(str(warning.message).split()) for warning in caught)
    return bunch


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


def _explained(error: Exception, name: str, target: str, download_folder: Path, cache: Path) -> Invalid:
    reason = " ".join(str(error).split())
    columns = features(download_folder)
    if isinstance(error, HTTPError):
        return Invalid("dataset", f"openml.org answered {error.code} ({error.reason}) for {name}; try again later")
    if isinstance(error, NO_ANSWER):
        why = getattr(error, "reason", None) or error
        return Invalid(
            "dataset",
            f"{name} is not on this machine and openml.org cannot be reached ({why}); download it once with a "
            f"connection, then it is kept in {cache}",
        )
    if isinstance(error, KeyError) and "target_column" in reason:
        names = [feature["name"] for feature in columns]
        return Invalid("target", f"openml:{name} has no column {target!r}; its columns are {listing(names)}")
    texts = [feature["name"] for feature in columns if feature["data_type"] == "string"]
    if "STRING" in reason and texts:
        return text_columns(name, texts + [f["name"] for f in columns if _is_category(f, target)])
    if "md5 checksum" in reason:
        return Invalid(
            "dataset", f"the download of {name} from openml.org was damaged twice (wrong checksum); try again later"
        )
    if "issing values" in reason:
        return Invalid("target", f"openml:{name}: {reason}")
    if "not found" in reason or "No active dataset" in reason or "No known dataset" in reason:
        return Invalid("dataset", f"openml.org has no active dataset {name}; find names and ids at openml.org/search")
    return Invalid("dataset", f"openml:{name} cannot be read: {reason or type(error).__name__}")


def _is_category(feature: dict[str, Any], target: str) -> bool:
    is_target = feature["name"] == target if target else feature["is_target"] == "true"
    return feature["data_type"] == "nominal" and not is_target


def text_columns(name: str, names: list[str]) -> Invalid:
    """The error for a table with columns that are not numbers."""
    noun, verb = ("column", "holds") if len(names) == 1 else ("columns", "hold")
    return Invalid(
        "dataset",
        f"openml:{name}: the {noun} {', '.join(map(repr, names))} {verb} text or categories; save the table as a CSV file "
        "with them encoded as numbers",
    )


def listing(names: list[str]) -> str:
    """The first twelve names, separated by commas."""
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
