"""openml.org as far as scikit-learn asks it: small datasets, answered in the server's own format."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request

API = "/api/v1/json/data"


@dataclass(frozen=True)
class Dataset:
    """A dataset at openml.org: columns as (name, ARFF type), rows as lines of ARFF."""

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[str, ...]
    number: int = 61
    targets: tuple[str, ...] = ("class",)
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def arff(self) -> bytes:
        """The file itself."""
        head = [f"@RELATION {self.name}", *(f"@ATTRIBUTE {name} {kind}" for name, kind in self.columns), "@DATA"]
        return "\n".join([*head, *self.rows, ""]).encode()


@dataclass
class Server:
    """Answers in place of `urlopen`; offline it raises what urllib raises without a connection."""

    datasets: tuple[Dataset, ...]
    online: bool = True
    asked: list[str] = field(default_factory=list)
    twice: bool = False
    """Whether each name has two active versions."""

    def __call__(self, request: Request, *_: Any, **__: Any) -> io.BytesIO:
        path = urlsplit(request.full_url).path
        self.asked.append(path)
        if not self.online:
            raise URLError(OSError(-3, "Temporary failure in name resolution"))
        for dataset in self.datasets:
            content = self._answer(dataset, path)
            if content is not None:
                return Answer(content)
        raise HTTPError(request.full_url, 412, "Precondition Failed", Message(), None)

    def _answer(self, dataset: Dataset, path: str) -> bytes | None:
        number = dataset.number
        if path.startswith(f"{API}/list/data_name/{dataset.name.lower()}/"):
            listed = [{"did": number, "name": dataset.name, "version": 1, "status": "active"}]
            listed += [{"did": 9999, "name": dataset.name, "version": 2, "status": "active"}] if self.twice else []
            return _json({"data": {"dataset": listed}})
        return {
            f"{API}/{number}": lambda: _json({"data_set_description": _description(dataset)}),
            f"{API}/features/{number}": lambda: _json({"data_features": {"feature": _features(dataset)}}),
            f"{API}/qualities/{number}": lambda: _json(
                {"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": str(len(dataset.rows))}]}}
            ),
            f"/data/v1/download/{number}/{dataset.name}.arff": lambda: dataset.arff,
        }.get(path, lambda: None)()


class Answer(io.BytesIO):
    """A response of the server, not compressed."""

    def info(self) -> Message:
        """Its headers."""
        return Message()


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def _description(dataset: Dataset) -> dict[str, str]:
    return {
        "id": str(dataset.number),
        "name": dataset.name,
        "version": "1",
        "description": "A small dataset.",
        "format": "ARFF",
        "status": "active",
        "url": f"https://www.openml.org/data/v1/download/{dataset.number}/{dataset.name}.arff",
        "md5_checksum": hashlib.md5(dataset.arff).hexdigest(),
    }


def _features(dataset: Dataset) -> list[dict[str, str]]:
    types = {"real": "numeric", "integer": "numeric", "string": "string"}
    return [
        {
            "index": str(index),
            "name": name,
            "data_type": types.get(kind, "nominal"),
            "is_target": str(name in dataset.targets).lower(),
            "is_ignore": str(name in dataset.ignored).lower(),
            "is_row_identifier": "false",
            "number_of_missing_values": str(int(name in dataset.missing)),
        }
        for index, (name, kind) in enumerate(dataset.columns)
    ]
