"""Datasets of openml.org, asked through scikit-learn; only the network is replaced by answers in the same format."""

from __future__ import annotations

import re
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.downloads import openml
from epochtop.engine.data.downloads.registry import CLOTHES, NAMED, THINGS, load_download
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.paths import cache_folder
from tests.support.engines import HANGING_S
from tests.support.fakes.openml import Dataset, Server
from tests.support.fakes.published import write_idx

FLOWERS = Dataset(
    "flowers",
    (("length", "real"), ("width", "integer"), ("class", "{rose,tulip}"), ("id", "integer")),
    ("1.5,2,tulip,1", "2.5,3,rose,2", "3.5,4,tulip,3", "-4.5,5,rose,4"),
    ignored=("id",),
)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No local copy, an empty cache."""
    monkeypatch.setenv("EPOCHTOP_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("EPOCHTOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


Serve = Callable[..., Server]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Creates a `Server` that replaces the network, without waiting between attempts."""

    def put(*datasets: Dataset, **options: bool) -> Server:
        server = Server(datasets, **options)
        monkeypatch.setattr("sklearn.datasets._openml.urlopen", server)
        monkeypatch.setattr(openml, "urlopen", server)
        monkeypatch.setattr("sklearn.datasets._openml.time", SimpleNamespace(sleep=lambda _: None))
        return server

    return put


def read(dataset: str, target: str = "") -> RawDataset:
    return load_download(RunSpec(dataset=dataset, target=target))


def refused(dataset: str, target: str = "") -> Invalid:
    with pytest.raises(Invalid) as caught:
        read(dataset, target)
    assert "\n" not in caught.value.message
    return caught.value


def images_of(name: str, shape: tuple[int, int, int], rows: int = 20) -> tuple[Dataset, np.ndarray]:
    """A dataset of images as openml.org has them, a column a pixel, and its pixels (rows, columns)."""
    pixels = np.random.default_rng(1).integers(0, 256, (rows, int(np.prod(shape))))
    columns = (*((f"pixel{place}", "real") for place in range(pixels.shape[1])), ("class", "{0,1,2,3,4,5,6,7,8,9}"))
    lines = tuple(",".join(map(str, (*row, place % 10))) for place, row in enumerate(pixels))
    return Dataset(name, columns, lines), pixels


# --- tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["openml:flowers", "openml:Flowers", "openml:61"])
def test_a_table_by_name_or_number(serve: Serve, dataset: str) -> None:
    serve(FLOWERS)
    raw = read(dataset)
    assert raw.x.tolist() == [[1.5, 2.0], [2.5, 3.0], [3.5, 4.0], [-4.5, 5.0]]
    assert raw.y.tolist() == [1, 0, 1, 0]
    assert raw.y.dtype == np.int64
    assert (raw.kind, raw.loss, raw.classes) == ("table", "cross_entropy", ("rose", "tulip"))
    assert (raw.columns, raw.target, raw.test) == (("length", "width"), "class", None)
    assert raw.notes == ("flowers, version 1, from https://www.openml.org/d/61",)


def test_a_cached_dataset_needs_no_network(serve: Serve) -> None:
    server = serve(FLOWERS)
    first, asked = read("openml:flowers"), len(server.asked)
    server.online = False
    again = read("openml:flowers")
    assert len(server.asked) == asked
    for name in ("kind", "loss", "classes", "columns", "target", "image", "test", "notes"):
        assert getattr(again, name) == getattr(first, name)
    assert np.array_equal(again.x, first.x)
    assert np.array_equal(again.y, first.y)
    assert [path.name for path in cache_folder().iterdir()] == ["openml-flowers.npz"]


def test_another_label_column(serve: Serve) -> None:
    numbers = Dataset("sizes", (("a", "real"), ("b", "real")), ("1,0.5", "2,1.5", "3,2.25"), targets=("a",))
    serve(numbers)
    raw = read("openml:sizes", "b")
    assert (raw.loss, raw.classes, raw.target, raw.y.tolist()) == ("mean_squared_error", (), "b", [0.5, 1.5, 2.25])
    assert read("openml:sizes").y.tolist() == [1, 2, 3]
    error = refused("openml:sizes", "c")
    assert error.field == "target"
    assert "no column 'c'" in error.message


@pytest.mark.parametrize(("distinct", "loss"), [(100, "cross_entropy"), (101, "mean_squared_error")])
def test_whole_numbers_are_classes_up_to_100_of_them(serve: Serve, distinct: int, loss: str) -> None:
    rows = tuple(f"{place},{place % distinct}" for place in range(202))
    serve(Dataset("counts", (("x", "real"), ("class", "integer")), rows))
    assert read("openml:counts").loss == loss


def test_categories_keep_their_text_and_the_problem_can_be_chosen(serve: Serve) -> None:
    texts = [("01", "1", "1e1", "10")[row % 4] for row in range(40)]
    serve(
        Dataset("codes", (("x", "real"), ("class", "{01,1,1e1,10}")), tuple(f"0.5,{text}" for text in texts)),
        Dataset(
            "counts", (("x", "real"), ("class", "integer")), tuple(f"0.5,{row % 5}" for row in range(40)), number=62
        ),
    )
    raw = read("openml:codes")
    assert [raw.classes[code] for code in raw.y] == texts
    for problem, loss in (("regression", "mean_squared_error"), ("auto", "cross_entropy")):
        spec = RunSpec(dataset="openml:counts", problem=problem)  # type: ignore[arg-type]
        assert {load_download(spec, lambda _: None).loss for _ in ("downloaded", "cached")} == {loss}


def test_categories_are_classes_however_many_they_are(serve: Serve) -> None:
    names = tuple(str(place) for place in range(150))
    rows = tuple(f"{place},{place}" for place in range(150))
    serve(Dataset("many", (("x", "real"), ("class", f"{{{','.join(names)}}}")), rows))
    raw = read("openml:many")
    assert raw.loss == "cross_entropy"
    assert [raw.classes[code] for code in raw.y] == list(names)


@pytest.mark.parametrize("note", ["real", "string"])
def test_categories_texts_and_missing_values_are_columns(serve: Serve, note: str) -> None:
    columns = (("age", "real"), ("job", "{clerk,cook}"), ("note", note), ("town", "{york,bath}"), ("class", "{a,b}"))
    serve(Dataset("people", columns, ("1,cook,5,york,a", "2,clerk,6,?,b", "?,cook,7,bath,a")))
    for raw in (read("openml:people"), read("openml:people")):  # fetched, and from the cache
        texts = {
            name: [None if np.isnan(code) else encoding.categories[int(code)] for code in values]
            for name, values, encoding in zip(raw.columns, raw.x.T, raw.encodings, strict=True)
            if encoding.kind == "category"
        }
        assert texts["job"] == ["cook", "clerk", "cook"]
        assert texts["town"] == ["york", None, "bath"]
        assert raw.columns == ("age", "job", "note", "town")
        np.testing.assert_equal(raw.x[:, [0, 2]], [[1, 5], [2, 6], [np.nan, 7]])
        assert [raw.classes[code] for code in raw.y] == ["a", "b", "a"]


def test_rows_without_a_label_are_left_out_and_one_class_is_refused(serve: Serve) -> None:
    columns = (("a", "real"), ("class", "{x,y}"))
    serve(Dataset("labels", columns, ("1,x", "2,?", "3,y")), Dataset("one", columns, ("1,x", "2,x"), 7))
    raw = read("openml:labels")
    assert (raw.x.tolist(), raw.y.tolist()) == ([[1], [3]], [0, 1])
    assert any("without a label" in note for note in raw.notes)
    assert "only one class ('x')" in refused("openml:one").message


@pytest.mark.parametrize("targets", [(), ("a", "b")])
def test_a_dataset_without_one_default_target(serve: Serve, targets: tuple[str, ...]) -> None:
    serve(Dataset("free", (("a", "real"), ("b", "real"), ("c", "real")), ("1,2,3", "4,5,6"), targets=targets))
    error = refused("openml:free")
    assert error.field == "target"
    assert "the columns are a, b, c" in error.message
    assert read("openml:free", "c").columns == ("a", "b")


def test_a_name_that_openml_does_not_have(serve: Serve) -> None:
    serve(FLOWERS)
    for dataset in ("openml:trees", "openml:123456", "openml:../secret", "openml:two words"):
        error = refused(dataset)
        assert (error.field, error.message.partition(";")[0]) == (
            "dataset",
            f"openml.org has no active dataset {dataset.removeprefix('openml:')}",
        )
    assert not list(cache_folder().iterdir())
    assert "needs a name or an id" in refused("openml: ").message


def test_several_versions_of_a_name_are_noted(serve: Serve) -> None:
    serve(FLOWERS, twice=True)
    assert "Multiple active versions" in read("openml:flowers").notes[1]


# --- images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"), [("mnist_784", (1, 28, 28)), ("Fashion-MNIST", (1, 28, 28)), ("CIFAR_10", (3, 32, 32))]
)
def test_columns_of_pixels_are_images(serve: Serve, name: str, shape: tuple[int, int, int]) -> None:
    dataset, pixels = images_of(name, shape)
    serve(dataset)
    raw = read(f"openml:{name}")
    assert (raw.kind, raw.image, raw.x.dtype) == ("image", shape, np.uint8)
    assert np.array_equal(raw.x, pixels.reshape(-1, *shape))
    assert raw.y.tolist() == [place % 10 for place in range(20)]
    assert raw.test is None


def test_pixels_that_are_not_bytes_stay_a_table(serve: Serve) -> None:
    dataset, _ = images_of("mnist_784", (1, 28, 28))
    rows = tuple("256" + row[row.index(",") :] for row in dataset.rows)
    serve(Dataset(dataset.name, dataset.columns, rows))
    assert read("openml:mnist_784").kind == "table"


@pytest.mark.parametrize(
    ("short", "classes"), [("mnist", tuple("0123456789")), ("fashion_mnist", CLOTHES), ("cifar10", THINGS)]
)
def test_a_dataset_with_a_short_name_is_downloaded_without_a_local_copy(
    serve: Serve, short: str, classes: tuple[str, ...]
) -> None:
    named_dataset = NAMED[short]
    dataset, pixels = images_of(named_dataset.openml, (3, 32, 32) if short == "cifar10" else (1, 28, 28))
    server = serve(dataset)
    raw = read(short)
    assert raw.classes == classes
    assert np.array_equal(raw.x.reshape(20, -1), pixels)
    assert raw.test is None
    assert raw.notes[-1].endswith("test_fraction decides")
    server.online = False
    assert np.array_equal(read(short).x, raw.x)


def test_the_last_rows_are_the_published_test(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 70,000 rows are 60,000 to train on and 10,000 to test on; here 14 and 6."""
    import dataclasses

    monkeypatch.setitem(NAMED, "mnist", dataclasses.replace(NAMED["mnist"], rows=20, test_rows=6))
    dataset, pixels = images_of("mnist_784", (1, 28, 28))
    serve(dataset)
    for raw in (read("mnist"), read("mnist")):  # fetched, and from the cache
        assert raw.test is not None
        assert np.array_equal(raw.x.reshape(14, -1), pixels[:14])
        assert np.array_equal(raw.test[0].reshape(6, -1), pixels[14:])
        assert raw.test[1].tolist() == [place % 10 for place in range(14, 20)]


def test_a_local_copy_comes_before_the_cache(serve: Serve, tmp_path: Path) -> None:
    dataset, _ = images_of("mnist_784", (1, 28, 28))
    serve(dataset)
    assert len(read("mnist").x) == 20
    write_idx(tmp_path / "data" / "mnist")
    assert len(read("mnist").x) == 12


# --- what goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["mnist", "openml:flowers", "openml:61"])
def test_offline_and_not_cached(serve: Serve, dataset: str) -> None:
    serve(FLOWERS, online=False)
    error = refused(dataset)
    assert error.field == "dataset"
    assert "cannot be reached ([Errno -3] Temporary failure in name resolution)" in error.message
    assert f"kept in {cache_folder()}" in error.message
    assert ("put its published files into data/MNIST/raw" in error.message) == (dataset == "mnist")
    assert not list(cache_folder().iterdir())


def damage(path: Path, how: str) -> None:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    elif how == "flipped":
        content = bytearray(path.read_bytes())
        place = content.index(np.float64(3.5).tobytes())
        content[place] ^= 1
        path.write_bytes(content)
    elif how == "pickled":
        np.savez(path, x=np.array([{}], dtype=object), y=np.zeros(1), header=np.zeros(1))
    elif how == "without rows":
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist() if name != "x.npy"}
        with zipfile.ZipFile(path, "w") as file:
            for name, content in parts.items():
                file.writestr(name, content)
    else:
        path.write_bytes(b"" if how == "empty" else b"something else")


@pytest.mark.parametrize("how", ["cut", "flipped", "pickled", "without rows", "empty", "other"])
def test_a_damaged_cache_file_is_fetched_again(serve: Serve, how: str) -> None:
    server = serve(FLOWERS)
    first, asked = read("openml:flowers"), len(server.asked)
    path = cache_folder() / "openml-flowers.npz"
    damage(path, how)
    lines: list[str] = []
    again = load_download(RunSpec(dataset="openml:flowers"), lines.append)
    assert len(server.asked) > asked
    assert np.array_equal(again.x, first.x)
    assert lines[0].startswith(f"{path} is damaged: ")
    assert np.array_equal(read("openml:flowers").x, first.x)


def test_a_damaged_download_is_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(FLOWERS)
    answer = server._answer
    monkeypatch.setattr(
        server, "_answer", lambda dataset, path: b"cut" if path.endswith(".arff") else answer(dataset, path)
    )
    assert "from openml.org was damaged twice" in refused("openml:flowers").message
    assert not list(cache_folder().iterdir())


def test_a_cache_that_cannot_be_written(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(FLOWERS)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EPOCHTOP_CACHE", str(tmp_path / "file" / "cache"))
    message = refused("openml:flowers").message
    assert f"cannot write downloads to {tmp_path}/file/cache" in message
    assert "EPOCHTOP_CACHE" in message


def test_progress_is_reported_in_the_calling_thread(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openml, "PROGRESS_S", 0.01)
    reported = threading.Event()
    server = serve(FLOWERS)
    answer = server._answer

    def slowly(dataset: Dataset, path: str) -> bytes | None:
        if path.endswith(".arff"):
            assert reported.wait(HANGING_S)
        return answer(dataset, path)

    monkeypatch.setattr(server, "_answer", slowly)
    lines: list[tuple[str, int]] = []

    def say(line: str) -> None:
        lines.append((line, threading.get_ident()))
        if "received" in line:
            reported.set()

    load_download(RunSpec(dataset="openml:flowers"), say)
    assert {thread for _, thread in lines} == {threading.get_ident()}
    assert lines[0][0] == "downloading flowers from openml.org"
    assert re.match(r"flowers: [\d.]+ (B|KiB) received, \d+ s", lines[1][0])
    assert lines[-1][0] == "flowers: 4 rows of 2 columns"
