"""Images in folders: one folder per class, or train/ and test/ with a folder per class in each.

Pillow decodes them. Never imports torch.
"""

from __future__ import annotations

import math
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
"""Pillow's modes for images without color."""
PROGRESS_S = 2.0
"""Seconds between two lines of progress."""
HEADER_THREADS = 8
"""Threads that read headers, which mostly wait for the disk."""
ORIENTATION = 0x0112
"""EXIF tag that says how a photo is turned; from 5 on, width and height are exchanged."""
LAYOUT = "it needs a folder of images per class, or train/ and test/ with a folder per class"


@dataclass(frozen=True)
class _Format:
    """Size and channels of an image, or those to which all images are converted."""

    channels: int
    height: int
    width: int

    @property
    def mode(self) -> str:
        """Pillow's name of it."""
        return "L" if self.channels == 1 else "RGB"


def read_images(spec: RunSpec, report: OnProgress = no_progress) -> RawDataset:
    """Rows of `images:FOLDER`; the classes are the sorted names of the folders. Raises Invalid, naming the file.

    The headers of all images decide how they are read: see :func:`_common_format`.
    """
    _need_pillow()
    folder = Path(spec.dataset.removeprefix("images:")).expanduser().absolute()
    train, test, notes = _parts(folder)
    classes = tuple(path.name for path in _classes(train))
    files = _files(train, classes)
    tests = _files(test, _test_classes(test, classes)) if test is not None else []
    image_format, format_notes = _common_format(_headers([path for path, _ in files + tests], report))
    _need_memory(folder, len(files) + len(tests), image_format)
    x, x_test = (_read(part, image_format, report) for part in (files, tests))
    codes = {name: code for code, name in enumerate(classes)}
    y, y_test = (np.array([codes[name] for _, name in part], dtype=np.int64) for part in (files, tests))
    return RawDataset(
        kind="image",
        x=x,
        y=y,
        loss="cross_entropy",
        classes=classes,
        image=(image_format.channels, image_format.height, image_format.width),
        test=(x_test, y_test) if test is not None else None,
        notes=(*notes, *format_notes),
    )


def _need_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise Invalid(
            "dataset", "images:FOLDER needs Pillow; install it with: pip install 'epochtop[images]'"
        ) from None


# --- which files -------------------------------------------------------------------------------------------


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        raise Invalid("dataset", f"there is no folder {folder}") from None
    except NotADirectoryError:
        raise Invalid("dataset", f"{folder} is a file, not a folder; name the folder that holds the images") from None
    except OSError as error:
        raise Invalid("dataset", f"{folder} cannot be read: {error.strerror}") from None


def _parts(folder: Path) -> tuple[Path, Path | None, list[str]]:
    """The folder with the classes to train on, that with the test images, and what the user should know."""
    inside = _folders(folder)
    if not inside:
        raise Invalid("dataset", f"{folder} contains no folders; {LAYOUT}")
    names = {path.name: path for path in inside}
    if "train" not in names or not _folders(names["train"]):
        return folder, None, []
    others = sorted(set(names) - {"train", "test"})
    notes = [f"ignored folders next to train and test: {', '.join(others)}"] if others else []
    return names["train"], names.get("test"), notes


def _classes(folder: Path) -> list[Path]:
    folders = _folders(folder)
    if len(folders) < 2:
        raise Invalid("dataset", f"{folder} has only one class ({folders[0].name}); {LAYOUT}")
    return folders


def _test_classes(test: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(path.name for path in _folders(test))
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise Invalid("dataset", f"{test} has the class {unknown[0]!r}, which train/ lacks; add it there or remove it")
    if not names:
        raise Invalid("dataset", f"{test} contains no folders; {LAYOUT}")
    return names


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, str]]:
    """The images with their classes, sorted by name within each class."""
    files: list[tuple[Path, str]] = []
    for name in classes:
        inside = [path for path in (folder / name).iterdir() if _is_image(path)]
        if not inside:
            kinds = ", ".join(sorted(ENDINGS))
            raise Invalid("dataset", f"{folder / name} contains no images ({kinds}); add some or remove the folder")
        files += [(path, name) for path in sorted(inside)]
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


# --- which format ------------------------------------------------------------------------------------------


def _headers(paths: Sequence[Path], report: OnProgress) -> list[_Format]:
    """The format of every image, from its header alone. Raises Invalid for the first one that cannot be read."""
    headers: list[_Format] = []
    reported_s = time.monotonic()
    with ThreadPoolExecutor(HEADER_THREADS) as threads:
        for header in threads.map(_header, paths):
            headers.append(header)
            if time.monotonic() - reported_s >= PROGRESS_S:
                reported_s = time.monotonic()
                report(f"read the headers of {len(headers):,} of {len(paths):,} images")
    return headers


def _header(path: Path) -> _Format:
    with _opened(path) as image:
        late = image.format == "PNG" and "exif" not in image.info  # Pillow would decode the image to look behind it
        orientation = 1 if late else image.getexif().get(ORIENTATION, 1)
        width, height = image.size if orientation < 5 else image.size[::-1]
        return _Format(1 if image.mode in GRAY else 3, height, width)


def _common_format(headers: Sequence[_Format]) -> tuple[_Format, list[str]]:
    """The format that all images are converted to, and notes if they differ.

    One color image makes all of them RGB. The size is the one that more than half of the images have; if there is none, the
    median width and the median height.
    """
    count, gray = len(headers), sum(header.channels == 1 for header in headers)
    notes = []
    if 0 < gray < count:
        notes.append(f"{gray:,} of {count:,} images {'is' if gray == 1 else 'are'} gray; all are read as RGB")
    sizes = Counter((header.width, header.height) for header in headers)
    (width, height), most = sizes.most_common(1)[0]
    others = count - most
    if 2 * most <= count:
        width, height = (sorted(sides)[count // 2] for sides in zip(*sizes.elements(), strict=True))
        notes.append(
            f"the images have {len(sizes):,} sizes; all are resized to {width}×{height}, their median width and height"
        )
    elif others:
        verbs = "has another size and is" if others == 1 else "have other sizes and are"
        notes.append(f"{others:,} of {count:,} images {verbs} resized to {width}×{height}, the size of the others")
    return _Format(1 if gray == count else 3, height, width), notes


# --- reading them ------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """The image of a file, not decoded yet. Raises Invalid, naming the file, also for errors of decoding it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise Invalid("dataset", f"{path} has more than 8 bits per channel ({image.mode}); save it with 8 bits")
            yield image
    except (OSError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise Invalid("dataset", f"{path} cannot be read: {reason}; repair or remove it") from None
    except Invalid:
        raise
    except ValueError as error:
        raise Invalid("dataset", f"{path} cannot be read: {error}; repair or remove it") from None


def _decoded(path: Path) -> Image:
    """The decoded image, turned as its EXIF data says. Raises Invalid, naming the file."""
    from PIL import ImageOps

    with _opened(path) as image:
        return ImageOps.exif_transpose(image)


def _need_memory(folder: Path, count: int, image_format: _Format) -> None:
    import psutil

    size, free = (
        count * image_format.channels * image_format.height * image_format.width,
        psutil.virtual_memory().available,
    )
    if size > free:
        raise Invalid(
            "dataset",
            f"{folder}: {count:,} images of {image_format.width}×{image_format.height} need {format_bytes(size)}, "
            f"{format_bytes(free)} are free; use smaller images, for example 224×224",
        )


def _read(files: list[tuple[Path, str]], image_format: _Format, report: OnProgress) -> npt.NDArray[np.uint8]:
    """The images as uint8 (rows, channels, height, width)."""
    x = np.empty((len(files), image_format.channels, image_format.height, image_format.width), dtype=np.uint8)
    reported_s = time.monotonic()
    for row, (path, _) in enumerate(files):
        x[row] = _pixels(_decoded(path), image_format)
        if time.monotonic() - reported_s >= PROGRESS_S:
            reported_s = time.monotonic()
            report(f"read {row + 1:,} of {len(files):,} images")
    return x


def _pixels(image: Image, image_format: _Format) -> npt.NDArray[Any]:
    from PIL import Image

    has_alpha = "transparency" in image.info  # Pillow converts a palette with transparency by way of RGBA
    plain = (image.convert("RGBA") if has_alpha else image).convert(image_format.mode)
    if plain.size != (image_format.width, image_format.height):
        plain = plain.resize((image_format.width, image_format.height), Image.Resampling.BILINEAR)
    rows = np.asarray(plain)
    return rows[None] if math.prod(rows.shape) == image_format.height * image_format.width else rows.transpose(2, 0, 1)
