"""New images, a file or a folder of them, as input of a trained model. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from epochtop.engine.data.columns.new_rows import NewRows
from epochtop.engine.data.dataset import Preparation, no_progress
from epochtop.engine.data.images.batch import in_format
from epochtop.engine.data.images.folders import ENDINGS, images_below, relative
from epochtop.engine.data.images.formats import Format
from epochtop.engine.data.images.read import need_pillow
from epochtop.engine.protocol.spec import Invalid, RunSpec


@dataclass(frozen=True)
class ImageRows:
    """Images as the rows of a table: their paths inside the folder."""

    path: Path
    files: tuple[str, ...]
    names: tuple[str, ...] = ("file",)
    delimiter: str = ","
    has_header: bool = True
    has_decimal_comma: bool = False

    def rows(self) -> Iterator[list[str]]:
        """The cells of every row."""
        return ([file] for file in self.files)


def holds_images(preparation: Preparation, path: Path) -> bool:
    """Whether predictions for this path are predictions for images. A folder is none for a run of other rows."""
    return path.suffix.lower() in ENDINGS or (path.is_dir() and preparation.kind == "image")


def image_inputs(spec: RunSpec, preparation: Preparation, path: Path) -> tuple[ImageRows, NewRows]:
    """The images, and their pixels in the size and channels of the training images. Raises Invalid."""
    if preparation.image is None or preparation.kind != "image":
        raise Invalid("", f"{path} holds images, but the run was trained on rows of another kind ({preparation.kind})")
    if preparation.pixel_max == 1.0:
        raise Invalid("", f"the run was trained on floating-point pixels; give predict an .npy file instead of {path}")
    need_pillow("a prediction for images")
    sources = [file.path for file in images_below(path)] if path.is_dir() else [str(path)]
    if not sources:
        raise Invalid("", f"{path} contains no images ({', '.join(sorted(ENDINGS))})")
    x, formats = in_format(spec, path, sources, Format(*preparation.image), no_progress, converts_color=True)
    problems = {row: f"cannot be read: {why}" for row, why in enumerate(formats) if isinstance(why, str)}
    names = [relative(path, source) for source in sources] if path.is_dir() else sources
    return ImageRows(path, tuple(names)), NewRows(x, problems)
