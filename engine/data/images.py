"""Images in folders: one folder per class, or train/ and test/ with a folder per class in each; Pillow reads them."""

from __future__ import annotations

import math
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import OnProgress, RawDataset, no_progress
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.spec import Invalid, RunSpec

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"}
GRAY = ("1", "L", "LA", "La")
"""Pillow's modes of images without color."""
TELL_S = 2.0
"""Between two lines of progress."""
LAYOUT = "it needs one folder of images per class, or train/ and test/ with those"


@dataclass(frozen=True)
class _Form:
    """What every image is brought to: that of the first."""

    channels: int
    height: int
    width: int

    @property
    def mode(self) -> str:
        """Pillow's name of it."""
        return "L" if self.channels == 1 else "RGB"


def images(spec: RunSpec, say: OnProgress = no_progress) -> RawDataset:
    """Rows of `images:FOLDER`; classes are the folders' names in order. Raises Invalid, with the file where it is one.

    Gray or color, and the size, are those of the first image; images of another size are scaled to it.
    """
    _need_pillow()
    folder = Path(spec.dataset.removeprefix("images:")).expanduser().absolute()
    train, test, notes = _parts(folder)
    classes = tuple(path.name for path in _classes(train))
    files = _files(train, classes)
    tests = _files(test, _known(test, classes)) if test is not None else []
    form = _form(files[0][0])
    _need_memory(folder, len(files) + len(tests), form)
    x, scaled = _read(files, form, say)
    x_test, scaled_test = _read(tests, form, say)
    if scaled + scaled_test:
        notes.append(
            f"{scaled + scaled_test:,} of {len(files) + len(tests):,} images were of another size and scaled to "
            f"{form.width}×{form.height}, that of {files[0][0].relative_to(folder)}"
        )
    place = {name: code for code, name in enumerate(classes)}
    y, y_test = (np.array([place[name] for _, name in part], dtype=np.int64) for part in (files, tests))
    return RawDataset(
        kind="image",
        x=x,
        y=y,
        loss="cross_entropy",
        classes=classes,
        image=(form.channels, form.height, form.width),
        test=(x_test, y_test) if test is not None else None,
        notes=tuple(notes),
    )


def _need_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise Invalid(
            "dataset", "images:FOLDER needs Pillow, which is not installed: pip install 'epochtop[images]'"
        ) from None


# --- which files -------------------------------------------------------------------------------------------


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        raise Invalid("dataset", f"there is no folder {folder}") from None
    except NotADirectoryError:
        raise Invalid("dataset", f"{folder} is a file; {LAYOUT.removeprefix('it needs ')} are needed") from None
    except OSError as error:
        raise Invalid("dataset", f"{folder} cannot be read: {error.strerror}") from None


def _parts(folder: Path) -> tuple[Path, Path | None, list[str]]:
    """The folder with the classes to train on, that with the test images, and what the user should know."""
    inside = _folders(folder)
    if not inside:
        raise Invalid("dataset", f"{folder} has no folders in it; {LAYOUT}")
    names = {path.name: path for path in inside}
    if "train" not in names or not _folders(names["train"]):
        return folder, None, []
    others = sorted(set(names) - {"train", "test"})
    notes = [f"not read: {', '.join(others)} (only train and test are)"] if others else []
    return names["train"], names.get("test"), notes


def _classes(folder: Path) -> list[Path]:
    found = _folders(folder)
    if len(found) < 2:
        raise Invalid("dataset", f"{folder} has one class only ({found[0].name}); two are needed: {LAYOUT}")
    return found


def _known(test: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(path.name for path in _folders(test))
    new = [name for name in found if name not in classes]
    if new or not found:
        what = f"has the class {new[0]!r}, which train/ lacks" if new else f"has no folders in it; {LAYOUT}"
        raise Invalid("dataset", f"{test} {what}")
    return found


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, str]]:
    """Every image with its class, in the order of their names."""
    files: list[tuple[Path, str]] = []
    for name in classes:
        inside = [path for path in (folder / name).iterdir() if _is_image(path)]
        if not inside:
            kinds = ", ".join(sorted(ENDINGS))
            raise Invalid("dataset", f"{folder / name} has no images in it ({kinds}); every class needs some")
        files += [(path, name) for path in sorted(inside)]
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


# --- reading them ------------------------------------------------------------------------------------------


def _opened(path: Path) -> Image:
    """The image, decoded, turned the way the camera was held. Raises Invalid with the file's name."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise Invalid("dataset", f"{path} has more than 8 bits a channel ({image.mode}); save it with 8")
            return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        reason = "it is not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise Invalid("dataset", f"{path} cannot be read: {reason}; repair or remove it") from None
    except Invalid:
        raise
    except ValueError as error:
        raise Invalid("dataset", f"{path} cannot be read: {error}; repair or remove it") from None


def _form(path: Path) -> _Form:
    image = _opened(path)
    return _Form(1 if image.mode in GRAY else 3, image.height, image.width)


def _need_memory(folder: Path, count: int, form: _Form) -> None:
    import psutil

    size, free = count * form.channels * form.height * form.width, psutil.virtual_memory().available
    if size > free:
        raise Invalid(
            "dataset",
            f"{folder}: {count:,} images of {form.width}×{form.height} need {format_bytes(size)}, "
            f"{format_bytes(free)} are free; make the images smaller, such as 224×224",
        )


def _read(files: list[tuple[Path, str]], form: _Form, say: OnProgress) -> tuple[npt.NDArray[np.uint8], int]:
    """The images as uint8 (rows, channels, height, width), and how many had to be scaled."""
    x = np.empty((len(files), form.channels, form.height, form.width), dtype=np.uint8)
    scaled, told = 0, time.monotonic()
    for row, (path, _) in enumerate(files):
        image = _opened(path)
        if image.size != (form.width, form.height):
            scaled += 1
        x[row] = _pixels(image, form)
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            say(f"{row + 1:,} of {len(files):,} images are read")
    return x, scaled


def _pixels(image: Image, form: _Form) -> npt.NDArray[Any]:
    from PIL import Image

    clear = "transparency" in image.info  # of a palette; it goes by way of an image with an alpha channel
    plain = (image.convert("RGBA") if clear else image).convert(form.mode)
    if plain.size != (form.width, form.height):
        plain = plain.resize((form.width, form.height), Image.Resampling.BILINEAR)
    rows = np.asarray(plain)
    return rows[None] if math.prod(rows.shape) == form.height * form.width else rows.transpose(2, 0, 1)
