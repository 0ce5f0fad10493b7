"""Local copies of MNIST, Fashion-MNIST and CIFAR-10 are read as published, and nothing in them is ever run."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from epochtop.engine.data.downloads.mnist import read_idx
from epochtop.engine.data.downloads.registry import load_download
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.support.fakes.published import idx, python2_pickle, write_batches, write_idx


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three places for local copies, all empty; nothing can be downloaded."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a local copy needs no network")

    monkeypatch.setattr("sklearn.datasets._openml.urlopen", refuse)
    monkeypatch.setenv("EPOCHTOP_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("EPOCHTOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def spec_of(dataset: str) -> RunSpec:
    return RunSpec(dataset=dataset, model="cnn")


def refused(dataset: str) -> str:
    with pytest.raises(Invalid) as caught:
        load_download(spec_of(dataset))
    assert caught.value.field == "dataset"
    assert "\n" not in caught.value.message
    return caught.value.message


# --- idx files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("mnist", "own/MNIST/raw"),
        ("mnist", "own/mnist"),
        ("mnist", "own"),
        ("mnist", "data/MNIST/raw"),
        ("mnist", "cache/mnist"),
        ("fashion_mnist", "own/FashionMNIST/raw"),
        ("fashion_mnist", "data/fashion_mnist"),
    ],
)
def test_idx_files_are_found_and_read(tmp_path: Path, dataset: str, folder: str, ending: str) -> None:
    images, labels, test_images, test_labels = write_idx(tmp_path / folder, ending)
    raw = load_download(spec_of(dataset))
    assert (raw.kind, raw.loss, raw.image, raw.x.dtype, raw.y.dtype) == (
        "image",
        "cross_entropy",
        (1, 28, 28),
        np.uint8,
        np.int64,
    )
    assert raw.x.shape == (12, 1, 28, 28)
    assert np.array_equal(raw.x[:, 0], images)
    assert np.array_equal(raw.y, labels)
    assert raw.test is not None
    assert np.array_equal(raw.test[0][:, 0], test_images)
    assert np.array_equal(raw.test[1], test_labels)
    assert raw.classes[9] == {"mnist": "9", "fashion_mnist": "Ankle boot"}[dataset]
    assert raw.notes == (f"read from {tmp_path / folder}",)
    assert raw.x.flags.writeable  # torch warns of arrays that are not


def test_the_folder_that_was_named_comes_first(tmp_path: Path) -> None:
    for seed, folder in enumerate(("own/mnist", "data/mnist", "cache/mnist")):
        write_idx(tmp_path / folder, seed=seed)
    for folder in ("own", "data", "cache"):
        assert load_download(spec_of("mnist")).notes == (f"read from {tmp_path / folder}/mnist",)
        (tmp_path / folder / "mnist").rename(tmp_path / folder / "aside")


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path / "data" / "mnist")
    (tmp_path / "data" / "mnist" / "t10k-labels-idx1-ubyte").unlink()
    assert "lacks t10k-labels-idx1-ubyte" in refused("mnist")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x00\x08",
        idx(np.zeros((3, 2, 2)))[:-1],
        idx(np.zeros((3, 2, 2))) + b"\x00",
        idx(np.zeros((3, 2))),
        b"\x00\x00\x0d\x03" + bytes(12),
        b"\x00\x00\x08\x03" + b"\xff" * 12,
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(Invalid, match=f"^dataset: {path} is "):
        read_idx(path, 3)


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    compressed = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (9, 9, 9))))
    for content in (b"plain", compressed[:-200], compressed[:100] + bytes(50) + compressed[150:]):
        path = tmp_path / "images.gz"
        path.write_bytes(content)
        with pytest.raises(Invalid, match=f"^dataset: {path} cannot be read"):
            read_idx(path, 3)


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mnist"
    write_idx(folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(11) % 10))
    assert "have 12 images and 11 labels" in refused("mnist")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(12)))
    assert "the train files have label 11, but there are only 10 classes" in refused("mnist")


# --- CIFAR-10 ----------------------------------------------------------------------------------------------


def test_the_pickle_of_these_tests_is_one_that_numpy_reads() -> None:
    """Else the tests below would prove nothing."""
    pixels = np.arange(2 * 3072, dtype=np.uint64).astype(np.uint8).reshape(2, 3072)
    batch = pickle.loads(python2_pickle(pixels, [3, 4]), encoding="bytes")
    assert batch[b"labels"] == [3, 4]
    assert batch[b"data"].dtype == np.uint8
    assert np.array_equal(batch[b"data"], pixels)


@pytest.mark.parametrize("folder", ["own/cifar-10-batches-py", "data/cifar-10-batches-py", "own"])
def test_batches_are_read(tmp_path: Path, folder: str) -> None:
    pixels, labels = write_batches(tmp_path / folder)
    raw = load_download(spec_of("cifar10"))
    assert raw.x.shape == (20, 3, 32, 32)
    assert (raw.kind, raw.image, raw.x.dtype, raw.classes[1]) == ("image", (3, 32, 32), np.uint8, "automobile")
    assert raw.test is not None
    assert np.array_equal(np.concatenate([raw.x, raw.test[0]]).reshape(24, 3072), pixels)
    assert [*raw.y, *raw.test[1]] == labels
    assert raw.x[7, 2, 5, 6] == pixels[7, 2 * 1024 + 5 * 32 + 6]
    assert raw.x.flags.writeable


def test_batches_pickled_by_python_3_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    pixels, labels = write_batches(folder)
    for protocol in (3, 4):
        (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": pixels[:4], b"labels": labels[:4]}, protocol))
        assert np.array_equal(load_download(spec_of("cifar10")).x.reshape(20, 3072), pixels[:20])


class Malicious:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    write_batches(folder)
    content = pickle.dumps({"data": Malicious(), "labels": [1]}, protocol)
    pickle.loads(content)
    assert Path("harm").is_dir(), "it would do harm where it runs"
    Path("harm").rmdir()
    (folder / "data_batch_3").write_bytes(content)
    message = refused("cifar10")
    assert message.startswith(f"{folder}/data_batch_3 is not a CIFAR-10 batch: it asks for posix.mkdir")
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": np.zeros((1, 3072)), b"labels": [1]},
        {b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [1, 2]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": ["cat"]},
        {b"data": np.array([["cat"] * 3072], object), b"labels": [1]},
        {b"labels": [1]},
        [],
    ],
)
def test_a_batch_of_something_else_is_refused(tmp_path: Path, batch: object) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    write_batches(folder)
    (folder / "data_batch_2").write_bytes(pickle.dumps(batch, 4))
    assert refused("cifar10").startswith(f"{folder}/data_batch_2 is ")


def test_a_missing_or_cut_batch_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    write_batches(folder)
    content = (folder / "test_batch").read_bytes()
    for cut in (0, 1, 30, len(content) // 2, len(content) - 1):
        (folder / "test_batch").write_bytes(content[:cut])
        assert refused("cifar10").startswith(f"{folder}/test_batch is not a CIFAR-10 batch")
    (folder / "test_batch").unlink()
    assert "lacks test_batch" in refused("cifar10")
