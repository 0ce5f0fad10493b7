"""Folders of images, made here with Pillow, become rows; what cannot be used is named in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epochtop.engine.data import images as data_images
from epochtop.engine.data.images import read_images
from epochtop.engine.protocol.spec import Invalid, RunSpec


def save(path: Path, color: object = (10, 20, 30), size: tuple[int, int] = (4, 3), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)  # type: ignore[arg-type]


def read(folder: Path) -> data_images.RawDataset:
    return read_images(RunSpec(dataset=f"images:{folder}", model="cnn"))


def refused(folder: Path) -> str:
    with pytest.raises(Invalid) as caught:
        read(folder)
    assert caught.value.field == "dataset"
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two cats and a dog of 4×3 pixels, and what is no image."""
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
    assert raw.notes == ("ignored folders next to train and test: val",)


def test_a_test_folder_need_not_have_every_class(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / "train" / name / "x.png")
    save(tmp_path / "test" / "c" / "x.png")
    raw = read(tmp_path)
    assert raw.test is not None
    assert raw.test[1].tolist() == [2]
    save(tmp_path / "test" / "d" / "x.png")
    assert refused(tmp_path) == f"{tmp_path}/test has the class 'd', which train/ lacks; add it there or remove it"


@pytest.mark.parametrize(("mode", "color", "pixel"), [("L", 50, [50]), ("1", 1, [255]), ("RGB", (1, 2, 3), [1, 2, 3])])
def test_gray_or_color_as_the_first_image_is(tmp_path: Path, mode: str, color: object, pixel: list[int]) -> None:
    save(tmp_path / "a" / "first.png", color, mode=mode)
    save(tmp_path / "b" / "other.png", (80, 80, 80, 255), mode="RGBA")
    raw = read(tmp_path)
    assert raw.x[0, :, 0, 0].tolist() == pixel
    assert raw.x[1, :, 0, 0].tolist() == [80] * len(pixel)


def test_a_palette_with_transparent_colors(pets: Path) -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 40, 50, 60])
    image.save(pets / "dog" / "d.png", transparency=bytes([0, 255]))
    assert read(pets).x[3, :, 0, 0].tolist() == [40, 50, 60]


def test_other_sizes_are_resized_to_the_first_with_a_note(pets: Path) -> None:
    save(pets / "dog" / "large.png", (9, 9, 9), size=(40, 60))
    raw = read(pets)
    assert raw.x.shape == (4, 3, 3, 4)
    assert raw.x[3].ravel().tolist() == [9] * 36
    assert raw.notes == ("1 of 4 images had another size and were resized to 4×3, the size of cat/a.PNG",)


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


def test_more_than_8_bits_are_refused(pets: Path) -> None:
    save(pets / "dog" / "deep.png", 70, mode="I;16")
    assert "more than 8 bits" in refused(pets)


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
    monkeypatch.setattr(data_images, "PROGRESS_S", 0.0)
    lines: list[str] = []
    read_images(RunSpec(dataset=f"images:{pets}", model="cnn"), lines.append)
    assert lines == [f"read {row} of 3 images" for row in (1, 2, 3)]
