"""Which images a folder holds, and their classes: a folder per class, or parts such as `train/` with a folder per class.

Hidden folders and those that unzipping on a Mac leaves behind are ignored. Never opens an image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from epochtop.engine.protocol.spec import Invalid

Part = Literal["train", "validation", "test"]
PARTS: dict[Part, set[str]] = {
    "train": {"train", "training"},
    "validation": {"val", "valid", "validation", "dev"},
    "test": {"test", "testing"},
}
"""Names of the parts: a whole name, or one of its words, as in `seg_train`, in any case."""
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"),
)
IGNORED = {"__MACOSX", "@eaDir", "lost+found"}
LAYOUT = "it needs a folder of images per class, or train/ and test/ with a folder per class"
MOST_LISTED = 12


@dataclass(frozen=True)
class ImageFile:
    """An image in a class folder, not opened yet."""

    path: str
    size: int
    changed_ns: int
    """Size in bytes and time of the last change, which tell whether it is still the same."""


@dataclass(frozen=True)
class ImageFolder:
    """The images of a dataset."""

    classes: tuple[str, ...]
    files: dict[Part, list[ImageFile]]
    """Images of each part that the folder has, by class, then sorted by path."""
    codes: dict[Part, list[int]]
    """Class of each image."""
    notes: tuple[str, ...]


def image_folder(folder: Path) -> ImageFolder:
    """All images in `folder`. The classes are the sorted names of the training folders. Raises Invalid."""
    parts, notes = _parts(folder)
    classes = tuple(path.name for path in _classes(parts["train"]))
    files: dict[Part, list[ImageFile]] = {}
    codes: dict[Part, list[int]] = {}
    for part, place in parts.items():
        names, problem = (classes, "") if part == "train" else _held_out_classes(place, classes)
        if problem:
            notes.append(f"{place.name} {problem}; its images are not used")
            continue
        images = [(file, classes.index(name)) for name in names for file in _images(place / name)]
        files[part], codes[part] = [file for file, _ in images], [code for _, code in images]
    return ImageFolder(classes, files, codes, tuple(notes))


def folders_in(folder: Path) -> list[Path]:
    """The folders in `folder`, sorted, without hidden ones. Raises Invalid."""
    try:
        return sorted(path for path in folder.iterdir() if _is_visible(path.name) and path.is_dir())
    except FileNotFoundError:
        raise Invalid("dataset", f"there is no folder {folder}") from None
    except NotADirectoryError:
        raise Invalid("dataset", f"{folder} is a file, not a folder; name the folder that holds the images") from None
    except OSError as error:
        raise Invalid("dataset", f"{folder} cannot be read: {error.strerror}") from None


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name not in IGNORED


def _parts(folder: Path) -> tuple[dict[Part, Path], list[str]]:
    """The folder of each part, `train` first, and what the user should know."""
    inside = folders_in(folder)
    if not inside:
        raise Invalid("dataset", f"{folder} contains no folders; {LAYOUT}")
    if len(inside) == 1 and _part_of(inside[0].name) is None and folders_in(inside[0]):
        return _parts(inside[0])
    named: dict[Part, list[Path]] = {}
    for path in inside:
        part = _part_of(path.name)
        if part is not None and (part != "train" or folders_in(path)):
            named.setdefault(part, []).append(path)
    if "train" not in named:
        return {"train": folder}, []
    parts = {part: _inner(_only(folder, part, named[part])) for part in PARTS if part in named}
    others = [path.name for path in inside if _part_of(path.name) is None]
    note = f"ignored folders next to {' and '.join(path.name for path in parts.values())}: {', '.join(others)}"
    return parts, [note] if others else []


def _part_of(name: str) -> Part | None:
    words = set(re.findall("[a-z]+", name.lower()))
    return next((part for part, names in PARTS.items() if words & names), None)


def _only(folder: Path, part: Part, paths: list[Path]) -> Path:
    """The folder of a part. A whole name comes before one with other words. Raises Invalid if there are several."""
    whole = [path for path in paths if path.name.lower() in PARTS[part]] or paths
    if len(whole) > 1:
        names = " and ".join(path.name for path in whole)
        raise Invalid("dataset", f"{folder} has {names}, which may both be the {part} images; rename one of them")
    return whole[0]


def _inner(folder: Path) -> Path:
    """The folder inside, if it has the same name, as unzipping often leaves it."""
    inside = folders_in(folder)
    return inside[0] if len(inside) == 1 and inside[0].name.lower() == folder.name.lower() else folder


def _classes(folder: Path) -> list[Path]:
    folders = folders_in(folder)
    if len(folders) < 2:
        raise Invalid("dataset", f"{folder} has only one class ({folders[0].name}); {LAYOUT}")
    return folders


def _held_out_classes(folder: Path, classes: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The classes in a folder of held-out images, or why it has none."""
    names = tuple(path.name for path in folders_in(folder))
    unknown = [name for name in names if name not in classes]
    if not names:
        return (), "has no folders of classes"
    if len(unknown) == len(names):
        return (), f"has other folders ({', '.join(names[:MOST_LISTED])}) than the classes of the training images"
    if unknown:
        raise Invalid(
            "dataset", f"{folder} has the class {unknown[0]!r}, which train/ lacks; add it there or remove it"
        )
    return names, ""


def _images(folder: Path) -> list[ImageFile]:
    """The images in a class folder and in the folders inside it, sorted by path. Raises Invalid if there are none."""
    files = images_below(folder)
    if not files:
        kinds = ", ".join(sorted(ENDINGS))
        raise Invalid("dataset", f"{folder} contains no images ({kinds}); add some or remove the folder")
    return files


def images_below(folder: Path) -> list[ImageFile]:
    """The images in a folder and in the folders inside it, sorted by path."""
    return sorted(_walk(str(folder)), key=lambda file: file.path.split("/"))


def _walk(folder: str) -> Iterator[ImageFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _is_visible(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            elif entry.name.lower().endswith(ENDINGS) and entry.is_file():
                facts = entry.stat()
                yield ImageFile(entry.path, facts.st_size, facts.st_mtime_ns)


def relative(folder: Path, path: str) -> str:
    """A path as it is named inside the folder."""
    return os.path.relpath(path, folder)
