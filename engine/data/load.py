"""Loading the dataset of a run: read, split, scaled and checked, on the host.

Each reader is imported only when its kind of dataset is loaded. Never imports torch.
"""

from __future__ import annotations

from pathlib import Path

from epochtop.engine.data.columns.assembly import dataset_of
from epochtop.engine.data.columns.row_numbers import check_row_numbers
from epochtop.engine.data.columns.selection import ColumnSelection
from epochtop.engine.data.dataset import OnProgress, PreparedDataset, RawDataset, no_progress
from epochtop.engine.data.prepare import prepare_dataset
from epochtop.engine.protocol.datasets import FILES, GENERATED, IMAGES, TABLES, is_labeled_text
from epochtop.engine.protocol.spec import Invalid, RunSpec


def load(spec: RunSpec, report: OnProgress = no_progress) -> PreparedDataset:
    """Read, split and scale the dataset of `spec`. Raises Invalid with the field, the file and the row."""
    path = file_of(spec)
    try:
        raw = check_row_numbers(_read(spec, path, report))
        return prepare_dataset(raw, spec)
    except MemoryError:
        raise Invalid("dataset", f"{path or spec.dataset} does not fit into memory; use a smaller dataset") from None
    except Invalid as error:
        if path is None or str(path) in error.message:
            raise
        raise Invalid(error.field, f"{path}: {error.message}") from None


def file_of(spec: RunSpec) -> Path | None:
    """Absolute path of the user's file or folder; None for a dataset without one."""
    if spec.source not in FILES:
        return None
    return Path(spec.dataset.partition(":")[2]).expanduser().absolute()


def files_read(spec: RunSpec) -> list[Path]:
    """The user's files that the rows come from; those of a table in several files, one by one. Raises Invalid."""
    path = file_of(spec)
    if path is None:
        return []
    from epochtop.engine.data.tables.read import files_at

    return files_at(spec.source, path)


def _read(spec: RunSpec, path: Path | None, report: OnProgress) -> RawDataset:
    if path is not None:
        return _read_file(spec, path, report)
    if spec.dataset == "sums" or spec.dataset in GENERATED:
        from epochtop.engine.data.synthetic import generate

        return generate(spec)
    if spec.dataset in IMAGES or spec.source:
        from epochtop.engine.data.downloads.registry import load_download

        return load_download(spec, report)
    from epochtop.engine.data.tables.sklearn_tables import read_sklearn

    return read_sklearn(spec.dataset)


def _read_file(spec: RunSpec, path: Path, report: OnProgress) -> RawDataset:
    if spec.source in TABLES:
        from epochtop.engine.data.tables.read import read_table

        selection = ColumnSelection(spec)
        table = read_table(spec.source, path, selection, spec.encoding, spec.header, report)
        return dataset_of(table, selection)
    if spec.source in ("npz", "npy"):
        from epochtop.engine.data.arrays.files import read_npy, read_npz

        return read_npz(path, spec.problem, spec.model) if spec.source == "npz" else read_npy(path, spec.problem)
    if spec.source == "images":
        from epochtop.engine.data.images.read import read_images

        return read_images(spec, report)
    if spec.source == "hf":
        from epochtop.engine.data.hugging_face.read import read_hugging_face

        return read_hugging_face(spec, path, report)
    if is_labeled_text(spec.dataset):
        from epochtop.engine.data.text.documents import read_documents

        return read_documents(spec, path, report)
    from epochtop.engine.data.text.characters import read_text

    return read_text(spec)
