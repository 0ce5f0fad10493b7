"""The cache of downloaded datasets: `.npz` files, read without pickle. A damaged file is downloaded again."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from epochtop.engine.data.dataset import ColumnEncoding, Kind, LossName, RawDataset
from epochtop.engine.runs.files import remove_old
from epochtop.engine.runs.regular import open_file

_PARTIAL = re.compile(r"\.(writing|fetching)-[a-z0-9_]{8}")
"""Folders for files that are being written or downloaded."""


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a RawDataset that are not arrays."""

    kind: Kind
    loss: LossName
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    target: str
    image: tuple[int, int, int] | None
    notes: tuple[str, ...]
    encodings: tuple[ColumnEncoding, ...] = ()


def store(path: Path, raw: RawDataset) -> None:
    """Write `raw` to `path`, completely or not at all. Raises OSError."""
    header = _Header(**{name: getattr(raw, name) for name in _Header.__struct_fields__})
    arrays: dict[str, Any] = {"x": raw.x, "y": raw.y}
    if raw.test is not None:
        arrays |= {"x_test": raw.test[0], "y_test": raw.test[1]}
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    remove_left_overs(path.parent)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
        complete = Path(folder) / path.name
        np.savez(complete, header=np.frombuffer(msgspec.json.encode(header), dtype=np.uint8), **arrays)
        complete.replace(path)


def remove_left_overs(folder: Path) -> None:
    """Remove partial files that a killed process left in the cache folder."""
    remove_old(folder, _PARTIAL)


def load_cached(path: Path) -> RawDataset:
    """The dataset stored in `path`. Raises FileNotFoundError, or ValueError if the file is damaged."""
    try:
        with open_file(path) as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = msgspec.json.decode(arrays.pop("header").tobytes(), type=_Header)
        raw = RawDataset(
            x=arrays["x"],
            y=arrays["y"],
            test=(arrays["x_test"], arrays["y_test"]) if "x_test" in arrays else None,
            **msgspec.structs.asdict(header),
        )
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises anything that zipfile, zlib, numpy and msgspec raise
        raise ValueError(f"{path} is damaged: {error}") from None
    if not _is_consistent(raw):
        raise ValueError(f"{path} is damaged: the lengths or shapes of its arrays differ")
    return raw


def _is_consistent(raw: RawDataset) -> bool:
    pairs = ((raw.x, raw.y), *((raw.test,) if raw.test is not None else ()))
    ranks = {"image": 4, "table": 2}
    return len(raw.x) > 0 and all(len(x) == len(y) and x.ndim == ranks.get(raw.kind) for x, y in pairs)
