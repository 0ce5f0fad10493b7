"""Folders of images, made here with Pillow, become rows; what cannot be used is named in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from epochtop.engine.data.dataset import RawDataset, no_progress
from epochtop.engine.data.images import batch, processes
from epochtop.engine.data.images import read as reading
from epochtop.engine.data.images.read import read_images
from epochtop.engine.protocol.spec import Invalid, RunSpec


def save(path: Path, color: object = (10, 20, 30), size: tuple[int, int] = (4, 3), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)  # type: ignore[arg-type]


def read(folder: Path, **fields: object) -> RawDataset:
    return read_images(RunSpec(dataset=f"images:{folder}", model="cnn", **fields))  # type: ignore[arg-type]


def refused(folder: Path) -> str:
    with pytest.raises(Invalid) as caught:
        read(folder)
    assert caught.value.field == "dataset"
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two cats and a dog of 4×3 pixels, and what is not an image."""
    folder = tmp_path / "pets"
    save(folder / "cat" / "b.png", (1, 2, 3))
    save(folder / "cat" / "a.PNG", (4, 5, 6))
    save(folder / "dog" / "c.bmp", (7, 8, 9))
    (folder / "dog" / "notes.txt").write_text("good dog")
    (folder / ".hidden").mkdir()
    return folder


def test_one_folder_per_class(pets: Path) -> None:
    raw = read(pets)
    assert (raw.kind, raw.loss, raw.classes, raw.image) == ("image", "cross_entropy", ("cat", "dog"), (3, 3, 4))
    assert raw.x.dtype == np.uint8
    assert raw.x.shape == (3, 3, 3, 4)
    assert raw.x[:, :, 0, 0].tolist() == [[4, 5, 6], [1, 2, 3], [7, 8, 9]]
    assert raw.y.tolist() == [0, 0, 1]
    assert raw.test is None
    assert raw.notes == ()
    assert [(fact.name, fact.kind, fact.treatment) for fact in raw.column_facts] == [
        ("images", "image", "4×3 pixels, RGB, each channel standardized"),
        ("folder", "label", "2 classes"),
    ]


def test_every_pixel_keeps_its_place(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels if name == "a" else pixels[:, :, ::-1]).save(tmp_path / name / "x.png")
    raw = read(tmp_path)
    assert np.array_equal(raw.x[0].transpose(1, 2, 0), pixels)
    assert np.array_equal(raw.x[1].transpose(1, 2, 0), pixels[:, :, ::-1])


def test_train_and_test_folders(tmp_path: Path) -> None:
    for part, value in (("train", 1), ("test", 2), ("val", 3)):
        for name in ("no", "yes"):
            save(tmp_path / part / name / "x.png", value, mode="L")
    raw = read(tmp_path)
    assert raw.x.ravel().tolist() == [1] * 24
    assert raw.test is not None
    assert raw.test[0].shape == (2, 1, 3, 4)
    assert raw.test[0].ravel().tolist() == [2] * 24
    assert raw.test[1].tolist() == [0, 1]
    assert raw.validation is not None
    assert raw.validation[0].ravel().tolist() == [3] * 24
    assert raw.notes == ()


def test_a_test_folder_need_not_have_every_class(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / "train" / name / "x.png")
    save(tmp_path / "test" / "c" / "x.png")
    raw = read(tmp_path)
    assert raw.test is not None
    assert raw.test[1].tolist() == [2]
    save(tmp_path / "test" / "d" / "x.png")
    assert refused(tmp_path) == f"{tmp_path}/test has the class 'd', which train/ lacks; add it there or remove it"


@pytest.mark.parametrize("gray_first", [True, False])
@pytest.mark.parametrize(("mode", "color", "pixel"), [("L", 50, 50), ("1", 1, 255), ("LA", (60, 255), 60)])
def test_one_color_image_makes_all_of_them_rgb(
    tmp_path: Path, mode: str, color: object, pixel: int, gray_first: bool
) -> None:
    gray, colored = ("a", "b") if gray_first else ("b", "a")
    save(tmp_path / gray / "x.png", color, mode=mode)
    save(tmp_path / colored / "x.png", (1, 2, 3, 255), mode="RGBA")
    raw = read(tmp_path)
    assert sorted(raw.x[:, :, 0, 0].tolist()) == sorted([[pixel] * 3, [1, 2, 3]])
    assert raw.image == (3, 3, 4)
    assert raw.notes == ("1 of 2 images is gray; all are read as RGB",)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_gray_images_have_one_channel(tmp_path: Path, mode: str) -> None:
    for name in ("a", "b"):
        save(tmp_path / name / "x.png", (50, 255) if mode == "LA" else 1, mode=mode)
    raw = read(tmp_path)
    assert raw.image == (1, 3, 4)
    assert raw.notes == ()


def test_test_images_take_part_in_the_decision(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "train" / name / "x.png", 7, mode="L")
        save(tmp_path / "test" / name / "x.png", (7, 8, 9))
    raw = read(tmp_path)
    assert raw.test is not None
    assert raw.test[0][:, :, 0, 0].tolist() == 2 * [[7, 8, 9]]
    assert raw.x[:, :, 0, 0].tolist() == 2 * [[7, 7, 7]]
    assert raw.notes == ("2 of 4 images are gray; all are read as RGB",)


def test_a_palette_with_transparent_colors(pets: Path) -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 40, 50, 60])
    image.save(pets / "dog" / "d.png", transparency=bytes([0, 255]))
    assert read(pets).x[3, :, 0, 0].tolist() == [40, 50, 60]


@pytest.mark.parametrize("name", ["0.png", "z.png"])
@pytest.mark.parametrize("size", [(2, 2), (40, 60)])
def test_one_image_of_another_size_does_not_resize_the_others(pets: Path, name: str, size: tuple[int, int]) -> None:
    save(pets / "cat" / name, (9, 9, 9), size=size)
    raw = read(pets)
    assert raw.x.shape == (4, 3, 3, 4)
    assert raw.x[0 if name == "0.png" else 2].ravel().tolist() == [9] * 36
    assert raw.notes == ("1 of 4 images has another size and is resized to 4×3, the size of the others",)


def test_several_images_of_other_sizes_are_counted(pets: Path) -> None:
    for name, size in (("c", (4, 3)), ("d", (4, 3)), ("e", (3, 4)), ("f", (100, 3))):
        save(pets / "cat" / f"{name}.png", size=size)
    assert read(pets).notes == ("2 of 7 images have other sizes and are resized to 4×3, the size of the others",)


def test_without_a_common_size_the_median_width_and_height_decide(tmp_path: Path) -> None:
    sizes = [(2, 9), (10, 20), (500, 30), (12, 400), (11, 25)]
    for number, size in enumerate(sizes):
        save(tmp_path / "ab"[number % 2] / f"{number}.png", size=size)
    raw = read(tmp_path)
    assert raw.image == (3, int(np.median([size[1] for size in sizes])), int(np.median([size[0] for size in sizes])))
    assert raw.notes == ("the images have 5 sizes; all are resized to 11×25, their median width and height",)


def test_the_decision_decodes_no_image(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("photo.jpg", "photo.tif", "photo.webp", "photo.gif"):
        save(pets / "cat" / name)
    decoded: list[ImageFile.ImageFile] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded.append)
    paths = [path for path in pets.glob("*/*") if path.suffix != ".txt"]
    headers = batch._headers([str(path) for path in paths], no_progress)
    assert len(headers) == 7
    assert len(set(headers)) == 1
    assert not decoded


def test_a_photo_is_rotated_as_its_exif_data_says(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16), dtype=np.uint8)
    pixels[:, :8] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned clockwise by a quarter: what was left is on top
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "x.png", exif=turned)
    raw = read(tmp_path)
    assert raw.image == (1, 16, 8)
    assert raw.x[0, 0, :8].min() == 255
    assert raw.x[0, 0, 8:].max() == 0


@pytest.mark.parametrize("content", [b"", b"not an image", "cut"])
def test_a_broken_image_is_named(pets: Path, content: bytes | str) -> None:
    path = pets / "dog" / "broken.png"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(path)
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:4000])
    assert refused(pets).startswith(f"{path} cannot be read: ")


def test_16_bits_become_8(tmp_path: Path) -> None:
    for name, value in (("a", 70 * 257), ("b", 65535)):
        save(tmp_path / name / "deep.png", value, mode="I;16")
    raw = read(tmp_path)
    assert raw.x[:, 0, 0, 0].tolist() == [70, 255]
    save(tmp_path / "b" / "deeper.tif", 1.5, mode="F")
    assert "has 32 bits per channel (F), not 8 or 16" in refused(tmp_path)


def test_a_folder_as_it_is_unzipped_on_a_mac(tmp_path: Path) -> None:
    """Names of parts in any case, folders in folders, and what the Finder leaves behind."""
    root = tmp_path / "archive" / "Flowers"
    endings = {"Training": ("a.jfif", "deep/er/b.WEBP", "c.tif"), "valid": ("d.gif",), "Testing": ("e.bmp",)}
    for part, names in endings.items():
        for kind in ("rose", "tulip"):
            for name in names:
                save(root / part / kind / name)
            (root / part / kind / "._a.jfif").write_bytes(b"Mac OS X")
    save(root / "Training" / "rose" / ".thumbs" / "x.png")
    save(tmp_path / "archive" / "__MACOSX" / "Flowers" / "rose" / "y.png")
    raw = read(tmp_path / "archive")
    assert (raw.classes, raw.y.tolist()) == (("rose", "tulip"), [0, 0, 0, 1, 1, 1])
    assert raw.validation is not None
    assert raw.test is not None
    assert (raw.validation[1].tolist(), raw.test[1].tolist()) == ([0, 1], [0, 1])


@pytest.mark.parametrize("name", ["test", "seg_pred/test"])
def test_test_images_without_classes_are_left_out(tmp_path: Path, name: str) -> None:
    for kind in ("a", "b"):
        save(tmp_path / "seg_train" / "seg_train" / kind / "x.png")
    save(tmp_path / name / "1.png")
    raw = read(tmp_path)
    assert (raw.classes, raw.test, len(raw.notes)) == (("a", "b"), None, 1)


def test_all_broken_images_are_named_and_can_be_left_out(pets: Path) -> None:
    for name in ("cat/empty.jpg", "dog/text.png", "dog/cut.png"):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
        noise.resize((4, 3)).save(pets / "dog" / "cut.png")
        whole = (pets / "dog" / "cut.png").read_bytes()
        (pets / name).write_bytes({"empty": b"", "text": b"no image", "cut": whole[:-40]}[Path(name).stem])
    message = refused(pets)
    assert "3 of 6 images cannot be read: cat/empty.jpg (is not an image), dog/cut.png (" in message
    assert message.endswith("dog/text.png (is not an image); repair or remove them, or set skip_broken")
    raw = read(pets, skip_broken=True)
    assert raw.x[:, :, 0, 0].tolist() == [[4, 5, 6], [1, 2, 3], [7, 8, 9]]
    assert raw.notes[0].startswith("3 images that cannot be read are left out: cat/empty.jpg")


def test_image_size_resizes_all_images(pets: Path) -> None:
    raw = read(pets, image_size=8)
    assert (raw.image, raw.notes) == ((3, 8, 8), ())
    assert raw.x[:, :, 7, 7].tolist() == [[4, 5, 6], [1, 2, 3], [7, 8, 9]]


@pytest.mark.parametrize("color", [False, True])
def test_several_processes_read_what_one_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, color: bool) -> None:
    """Also if the sample does not show the only color image, nor the only broken one."""
    chance = np.random.default_rng(5)
    for number in range(90):
        place = tmp_path / "ab"[number % 2] / f"{number:03}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (5, 4), dtype=np.uint8)).save(place)
    if color:
        save(tmp_path / "a" / "003.png", size=(4, 5))
    (tmp_path / "b" / "005.png").write_bytes(b"")
    one = read(tmp_path, workers=1, skip_broken=True)
    monkeypatch.setattr(processes, "FEWEST", 0)
    several = read(tmp_path, workers=3, skip_broken=True)
    assert (one.x.shape, one.notes) == ((len(one.x), 3 if color else 1, 5, 4), several.notes)
    assert np.array_equal(one.x, several.x)
    assert len(one.x) == (91 if color else 90) - 1


def test_decoded_images_are_cached_until_one_changes(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WORTH_CACHING_S", 0.0)
    monkeypatch.setenv("EPOCHTOP_CACHE", str(pets.parent / "cache"))  # slow tests fill the common one too
    lines: list[str] = []
    spec = RunSpec(dataset=f"images:{pets}", model="cnn")
    first, again = read_images(spec, lines.append), read_images(spec, lines.append)
    assert (lines, again.x.tolist(), again.classes) == (
        ["3 images come from the cache"],
        first.x.tolist(),
        first.classes,
    )
    (stored,) = (reading.cache_file([], 0).parent).glob("*.npy")
    assert stored.stat().st_mode & 0o022 == 0
    stored.write_bytes(stored.read_bytes()[:50])
    assert read(pets).x.tolist() == first.x.tolist()
    save(pets / "dog" / "c.bmp", (9, 9, 9))
    assert read(pets).x[2, :, 0, 0].tolist() == [9, 9, 9]
    for each in stored.parent.glob("*.npy"):
        each.chmod(0o666)  # from now on, any other user could have written it
    lines.clear()
    assert read_images(spec, lines.append).x[2, 0, 0, 0] == 9
    assert lines == []


def test_folders_that_cannot_be_used(pets: Path, tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == f"there is no folder {tmp_path}/none"
    assert "is a file" in refused(pets / "dog" / "notes.txt")
    assert "contains no folders" in refused(pets / "cat")
    (pets / "fish").mkdir()
    assert refused(pets).startswith(f"{pets}/fish contains no images (.bmp, ")
    one = tmp_path / "one"
    save(one / "only" / "x.png")
    assert refused(one).startswith(f"{one} has only one class (only); it needs")


def test_images_too_large_for_the_memory_are_refused_before_they_are_read(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Free", (), {"available": 107})  # three images of 36 bytes need 108
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    assert "3 images of 4×3 need" in refused(pets)
    free.available = 108
    assert len(read(pets).x) == 3


def test_without_pillow_the_error_names_the_install_command(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert "pip install 'epochtop[images]'" in refused(pets)


def test_progress_is_reported(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "PROGRESS_S", 0.0)
    lines: list[str] = []
    read_images(RunSpec(dataset=f"images:{pets}", model="cnn"), lines.append)
    assert lines == [f"read {row} of 3 images" for row in (1, 2, 3)]
