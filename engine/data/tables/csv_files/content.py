"""What a file is by its first bytes, whatever its name says: compressed text, or a file of another kind.

Must never read more than the bytes it is given.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid

HEAD_BYTES = 4096
"""First bytes of a file that tell its kind."""

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_EXCEL = "an Excel workbook; convert it: libreoffice --headless --convert-to csv {name}"
_ZIP = "a zip file; extract it: unzip {name}"
_OTHERS: dict[bytes, str] = {
    b"\xd0\xcf\x11\xe0": _EXCEL,
    b"PAR1": "a Parquet file; use --dataset parquet:{name}",
    b"ARROW1": "a Feather file; use --dataset feather:{name}",
    b"FEA1": "an old Feather file; write it again with pyarrow.feather.write_feather",
    b"SQLite format 3": "an SQLite database; use --dataset 'sqlite:{name}?table=TABLE'",
    b"\x93NUMPY": "a NumPy file; use --dataset npy:{name}",
    b"\x89HDF": "an HDF5 file; convert it: python -c \"import pandas; pandas.read_hdf('{name}').to_csv('table.csv')\"",
    b"%PDF": "a PDF document; export the table as CSV",
    b"\x89PNG": "a PNG image, not a CSV file; use images:FOLDER for images",
    b"\xff\xd8\xff": "a JPEG image, not a CSV file; use images:FOLDER for images",
    b"7z\xbc\xaf": "a 7z archive; extract it: 7z x {name}",
    b"Rar!": "a rar archive; extract it: unrar x {name}",
}
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")


def compression(head: bytes) -> str:
    """The compression of a file that begins with `head`: gzip, bzip2, xz or zstd; empty for none."""
    return next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), "")


def check_is_text(path: Path, head: bytes, is_delimited: bool = True) -> None:
    """Raise Invalid, with the command that converts it, if a file that begins with `head` is not text.

    JSON is not text either if `is_delimited`.
    """
    kind = _other_kind(head) or (_json(head) if is_delimited else "")
    if kind:
        raise Invalid("dataset", f"{path} is {kind.format(name=path.name)}")


def _other_kind(head: bytes) -> str:
    if head.startswith(b"PK\x03\x04"):
        if any(part in head for part in (b"[Content_Types].xml", b"xl/", b"_rels/")):
            return _EXCEL
        return "a NumPy archive; use --dataset npz:{name}" if b".npy" in head[:300] else _ZIP
    for magic, kind in _OTHERS.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive; extract it: tar xf {name}"
    if head.removeprefix(codecs.BOM_UTF8).lstrip().lower().startswith(_MARKUP):
        return "an HTML or XML page, perhaps the error page of a server; download the file again: curl -fLO URL"
    return ""


def _json(head: bytes) -> str:
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith(b'{"') or (text.startswith(b"{") and text[1:].lstrip().startswith(b'"')):
        return "JSON; use --dataset jsonl:{name} if each line is an object"
    if text.startswith(b"[") and text[1:].lstrip().startswith(b"{"):
        return "a JSON array; convert it: jq -c '.[]' {name} > table.jsonl, then use --dataset jsonl:table.jsonl"
    return ""
