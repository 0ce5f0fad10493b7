"""Datasets that were fetched once, kept as `.npz` files; they are read without pickle, and a damaged one is no error."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from epochtop.engine.data.dataset import Kind, LossName, RawDataset


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """All of a Raw but its arrays."""

    kind: Kind
    loss: LossName
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    target: str
    image: tuple[int, int, int] | None
    notes: tuple[str, ...]


def keep(path: Path, raw: RawDataset) -> None:
    """Write `raw` to `path`, whole or not at all. Raises OSError."""
    header = _Header(**{name: getattr(raw, name) for name in _Header.__struct_fields__})
    arrays: dict[str, Any] = {"x": raw.x, "y": raw.y}
    if raw.test is not None:
        arrays |= {"x_test": raw.test[0], "y_test": raw.test[1]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
        whole = Path(folder) / path.name
        np.savez(whole, header=np.frombuffer(msgspec.json.encode(header), dtype=np.uint8), **arrays)
        whole.replace(path)


def kept(path: Path) -> RawDataset:
    """What `keep` wrote. Raises FileNotFoundError, or ValueError where the file is damaged."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
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
    except Exception as error:  # a damaged archive may raise what zipfile, zlib, numpy or msgspec raise
        raise ValueError(f"{path} is damaged: {error}") from None
    if not _fits(raw):
        raise ValueError(f"{path} is damaged: its arrays do not fit each other")
    return raw


def _fits(raw: RawDataset) -> bool:
    pairs = ((raw.x, raw.y), *((raw.test,) if raw.test is not None else ()))
    ranks = {"image": 4, "table": 2}
    return len(raw.x) > 0 and all(len(x) == len(y) and x.ndim == ranks.get(raw.kind) for x, y in pairs)
