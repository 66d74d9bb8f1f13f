"""The gate as one of MONAI's image readers, for pipelines written in MONAI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader

from ..errors import ConfigError, DataError
from .image import Image
from .policy import STRICT, ReadPolicy
from .readers import read_image

_Read = list[tuple[str, Image | DataError]]


class MedxferReader(ImageReader):
    """`LoadImaged(keys, reader=MedxferReader)` reads what `medxfer.load_image` reads, with the same numbers.

    The array comes with the channel first: a picture (C, rows, columns), a volume (C, X, Y, Z) in the closest RAS axes.
    A file that is refused is refused here as well: MONAI would otherwise try its own readers in silence.

    Args:
        policy: What may be done with what is not plain; the default refuses it.
    """

    def __init__(self, policy: ReadPolicy = STRICT) -> None:
        super().__init__()
        self.policy = policy

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Every file is looked at, whatever its name."""
        return True

    def read(self, data: Sequence[Any] | Any, **kwargs: Any) -> _Read:
        """Read one file or series folder, or several that are channels of one image.

        Raises:
            ConfigError: An option, as MONAI's readers take them: the policy is all there is.
        """
        if kwargs:
            raise ConfigError(
                "MedxferReader", ", ".join(sorted(kwargs)), "policy=ReadPolicy(...)", "remove it"
            )
        paths = [data] if isinstance(data, str | Path) else list(data)
        return [(str(path), self._one(Path(path))) for path in paths]

    def _one(self, path: Path) -> Image | DataError:
        """A refusal is a value until `get_data`: LoadImage catches what `read` raises and goes to other readers."""
        try:
            return read_image(path, policy=self.policy)
        except DataError as error:
            return error

    def get_data(self, img: _Read) -> tuple[np.ndarray, dict[str, Any]]:
        """Array and metadata of what was read.

        Returns:
            float32 with the channel first, and what `Image.metadata` says of the first file, with the warnings of all.

        Raises:
            DataError: The file was refused, or several files have other grids.
        """
        images: list[Image] = []
        for name, image in img:
            if isinstance(image, DataError):
                raise image
            if images and not _same_grid(images[0], image):
                seen = f"{image.array.shape[1:]} beside {images[0].array.shape[1:]} voxels, or another place"
                raise DataError(name, seen, "channels on one grid", "resample them first")
            images.append(image)
        meta = images[0].metadata() | {
            "filename_or_obj": img[0][0],
            "warnings": "; ".join(text for image in images for text in image.warnings),
        }
        return np.concatenate([image.array for image in images]), meta


def _same_grid(one: Image, other: Image) -> bool:
    return one.array.shape[1:] == other.array.shape[1:] and np.allclose(
        one.full_affine, other.full_affine, atol=1e-3
    )
