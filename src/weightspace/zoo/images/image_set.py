"""An image set: labelled pictures, divided into training and test, as uint8 arrays that are read-only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightspace.errors import WeightspaceError


class ImageError(WeightspaceError):
    """An image set that is unknown, missing or damaged, or that cannot be prepared as asked."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled pictures, divided into training and test. The arrays are read-only.

    Attributes:
        name: one of `IMAGE_SETS`, or a name of the caller's own.
        train_images: (n, channels, height, width) uint8, 0 to 255.
        train_labels: (n,) int64, 0 to classes - 1.
        test_images: (m, channels, height, width) uint8.
        test_labels: (m,) int64.
        classes: number of classes, at least 1.
        note: where the pictures come from and what was done to them, for people.

    Raises:
        ImageError: if an array has another type or shape, a label is out of range, or a part is empty.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int
    note: str

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
                raise ImageError(
                    f"{part}_images are {images.dtype} of shape {images.shape}; "
                    "pictures are uint8 of shape (n, channels, height, width), at least one"
                )
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                raise ImageError(
                    f"{part}_labels are {labels.dtype} of shape {labels.shape}; "
                    f"{len(images)} pictures need int64 of shape ({len(images)},)"
                )
            if labels.min() < 0 or labels.max() >= self.classes:
                raise ImageError(
                    f"{part}_labels run from {labels.min()} to {labels.max()}; "
                    f"{self.classes} classes are numbered 0 to {self.classes - 1}"
                )
            object.__setattr__(self, f"{part}_images", read_only(images))
            object.__setattr__(self, f"{part}_labels", read_only(labels))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ImageError(
                f"training pictures have shape {self.train_images.shape[1:]}, "
                f"test pictures {self.test_images.shape[1:]}: they must agree"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one picture."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width


def read_only(array: np.ndarray) -> np.ndarray:
    """`array` itself if it is read-only, else a read-only view, so that the caller's own stays writable."""
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
