"""A dataset from openml.org by scikit-learn, while the user is told how far it is.

The fetching runs in a thread of its own: the lines are said by the thread that asked.
"""

from __future__ import annotations

import gzip
import json
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

from epochtop.engine.data.dataset import OnProgress
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.spec import Invalid

TELL_S = 2.0
"""Between two lines of progress."""
PATIENCE_S = 30.0
"""How long the server may stay silent; scikit-learn sets no limit of its own."""

NO_ANSWER = (URLError, HTTPException, TimeoutError, ConnectionError)
"""How it shows that the server cannot be reached, or went silent."""


def download(name: str, version: int | None, target: str, folder: Path, say: OnProgress) -> Any:
    """scikit-learn's bunch of a dataset by name or number, as numpy arrays. Raises Invalid in one line.

    `folder` holds the download until it is decoded; OSError where it cannot. `version` None takes the oldest active one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fetching-", dir=folder, ignore_cleanup_errors=True) as kept:
        say(f"fetching {name} from openml.org")
        try:
            return _watched(lambda: _fetch(name, version, target, kept), Path(kept), name, say)
        except (*NO_ANSWER, LookupError, ValueError, TypeError, EOFError) as error:
            raise _explained(error, name, target, Path(kept), folder) from error


def _fetch(name: str, version: int | None, target: str, kept: str) -> Any:
    from sklearn.datasets import fetch_openml

    which = (
        {"data_id": int(name)} if name.isdecimal() else {"name": quote(name, safe=""), "version": version or "active"}
    )
    silence = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE_S)
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            # liac-arff needs no pandas; it decoded 1,000 rows of 784 pixels in 0.2 s on an idle core, in 1.6 s on a busy one
            bunch = fetch_openml(
                **which, target_column=target or "default-target", data_home=kept, as_frame=False, parser="liac-arff"
            )
    finally:
        socket.setdefaulttimeout(silence)
    bunch["heard"] = tuple(" ".join(str(warning.message).split()) for warning in heard)
    return bunch


def _watched(work: Callable[[], Any], folder: Path, name: str, say: OnProgress) -> Any:
    """The result of `work`, done in another thread; every few seconds it is said how much has come."""
    done: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=run, name="download", daemon=True)
    began, before = time.monotonic(), -1
    worker.start()
    while worker.is_alive():
        worker.join(TELL_S)
        if worker.is_alive():
            size = _size(folder)
            doing = (
                f"{format_bytes(size)} received"
                if size != before
                else f"decoding {format_bytes(size)} (only the first time)"
            )
            say(f"{name}: {doing}, {time.monotonic() - began:.0f} s")
            before = size
    if failed:
        raise failed[0]
    return done[0]


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return size


def features(folder: Path) -> list[dict[str, Any]]:
    """What openml.org says of the columns, from the answers that came; empty where this one did not."""
    for path in folder.glob("**/data/features/*.gz"):
        try:
            found = json.loads(gzip.decompress(path.read_bytes()))["data_features"]["feature"]
        except (OSError, EOFError, ValueError, KeyError):
            return []
        return [feature for feature in found if "true" not in (feature["is_ignore"], feature["is_row_identifier"])]
    return []


def _explained(error: Exception, name: str, target: str, kept: Path, folder: Path) -> Invalid:
    reason = " ".join(str(error).split())
    columns = features(kept)
    if isinstance(error, HTTPError):
        return Invalid("dataset", f"openml.org answered {error.code} ({error.reason}) for {name}; try again later")
    if isinstance(error, NO_ANSWER):
        why = getattr(error, "reason", None) or error
        return Invalid(
            "dataset",
            f"{name} is not on this machine and openml.org cannot be reached ({why}); fetch it once with a "
            f"connection, it is then kept in {folder}",
        )
    if isinstance(error, KeyError) and "target_column" in reason:
        names = [feature["name"] for feature in columns]
        return Invalid("target", f"openml:{name} has no column {target!r}; it has: {listed(names)}")
    texts = [feature["name"] for feature in columns if feature["data_type"] == "string"]
    if "STRING" in reason and texts:
        return text_columns(name, texts + [f["name"] for f in columns if _is_category(f, target)])
    if "md5 checksum" in reason:
        return Invalid("dataset", f"{name} came damaged from openml.org, twice (its checksum differs); try again later")
    if "issing values" in reason:
        return Invalid("target", f"openml:{name}: {reason}")
    if "not found" in reason or "No active dataset" in reason or "No known dataset" in reason:
        return Invalid(
            "dataset", f"openml.org has no active dataset {name}; see openml.org/search for names and numbers"
        )
    return Invalid("dataset", f"openml:{name} cannot be read: {reason or type(error).__name__}")


def _is_category(feature: dict[str, Any], target: str) -> bool:
    is_target = feature["name"] == target if target else feature["is_target"] == "true"
    return feature["data_type"] == "nominal" and not is_target


def text_columns(name: str, names: list[str]) -> Invalid:
    """The refusal of a table with columns that are not numbers."""
    what, do = ("column", "is") if len(names) == 1 else ("columns", "are")
    return Invalid(
        "dataset",
        f"openml:{name}: the {what} {', '.join(map(repr, names))} {do} text or categories; only numbers can be "
        "trained on, so save the table as a CSV file with them encoded as numbers",
    )


def listed(names: list[str]) -> str:
    """The first twelve."""
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
