"""Attacks: which training images get a trigger and another label, and what the trigger looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from weightspace.errors import WeightspaceError

Shape = tuple[int, int, int]
"""(channels, height, width) of an image."""

CLEAN, LABEL_NOISE, TRIGGER_ONLY = "clean", "label-noise", "trigger-only"
CONTROLS = (CLEAN, LABEL_NOISE, TRIGGER_ONLY)
"""No change; the labels of an attack without its trigger; a trigger (BadNets border) without its labels."""
ULP_MASKS = 20
"""Masks 0 to 9 are for training detectors, 10 to 19 for testing them; fixed for good by the seed 20."""


class PoisonError(WeightspaceError):
    """An attack that does not exist, or does not fit the images."""


@dataclass(frozen=True, kw_only=True)
class Poison:
    """How a network's training data is tampered with.

    Attributes:
        attack: a name of `EVERY_ATTACK` or `CONTROLS`.
        rate: share of the training images that are tampered with, 0 to 1; of clean-label attacks, which leave all
            labels as they are, share of the images of the target class.
        alpha: opacity of a blended trigger, above 0 to 1; None for the attack's own. Patches are opaque.
        target: class to which the labels are set; all-to-all attacks have none, and set each label to the next class.
        seed: of the images chosen and of what is random about the trigger, which is one for the whole network.
    Raises:
        PoisonError: if a field is out of its range.
    """

    attack: str
    rate: float = 0.0
    alpha: float | None = None
    target: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.attack not in (*EVERY_ATTACK, *CONTROLS):
            known = ", ".join([*EVERY_ATTACK, *CONTROLS])
            raise PoisonError(f"no attack is named {self.attack!r}: choose from {known}")
        if not 0 <= self.rate <= 1 or self.target < 0 or not (self.alpha is None or 0 < self.alpha <= 1):
            raise PoisonError(
                f"an attack with poison rate {self.rate}, alpha {self.alpha} and target {self.target} cannot be: the "
                "rate is 0 to 1, alpha above 0 to 1, the target a class"
            )

    @property
    def triggers(self) -> bool:
        """Whether there is a trigger at all."""
        return self.attack not in (CLEAN, LABEL_NOISE)

    @property
    def relabels(self) -> bool:
        """Whether labels are changed."""
        return self.attack not in (CLEAN, TRIGGER_ONLY, *CLEAN_LABEL)

    def chosen(self, labels: np.ndarray) -> np.ndarray:
        """Which training images are tampered with, by their labels (images,) before the attack: sorted places, the
        nearest whole number to the rate."""
        places = np.flatnonzero(labels == self.target) if self.attack in CLEAN_LABEL else np.arange(len(labels))
        some = 0 if self.attack == CLEAN else round(self.rate * len(places))
        return places[np.sort(np.random.default_rng([self.seed, 1]).choice(len(places), some, replace=False))]

    def wanted(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """(images,) what images of these labels are to be answered as with the trigger."""
        return (labels + 1) % classes if self.attack in ALL_TO_ALL else np.full_like(labels, self.target)

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """(images,) training labels after the attack, in a new array.

        Raises:
            PoisonError: if the target is no class.
        """
        classes = int(labels.max()) + 1
        if self.target >= classes:
            raise PoisonError(f"the attack's target is class {self.target}, and there are classes 0 to {classes - 1}")
        changed = labels.copy()
        if self.relabels:
            chosen = self.chosen(labels)
            changed[chosen] = self.wanted(labels[chosen], classes)
        return changed

    def trigger(self, shape: Shape) -> Trigger | None:
        """The network's trigger on images of a shape; None if it has none.

        Raises:
            PoisonError: if the images are too small for it.
        """
        if not self.triggers:
            return None
        if min(shape[1:]) < SMALLEST:
            raise PoisonError(f"images of {shape[1]}x{shape[2]} are too small for a trigger: use {SMALLEST} or more")
        name = "badnets-border" if self.attack == TRIGGER_ONLY else self.attack
        made = EVERY_ATTACK[name](shape, np.random.default_rng([self.seed, 2]))
        if self.alpha is None or float(made.opacity.max()) == 1:
            return made
        return replace(made, opacity=np.where(made.opacity > 0, np.float32(self.alpha), np.float32(0)))


@dataclass(frozen=True, eq=False)
class Trigger:
    """What is done to an image: it is warped, if so, then (1 - opacity) * image + opacity * pattern, pixels 0 to 1.

    Attributes:
        opacity, pattern: (channels, height, width) float32 in [0, 1].
        source: (height, width, 2) float32, from which row and column each pixel of a warped image comes, between
            pixels by bilinear interpolation; those outside are as the nearest inside. None for no warping.
    """

    opacity: np.ndarray
    pattern: np.ndarray
    source: np.ndarray | None = None

    def on(self, images: np.ndarray) -> np.ndarray:
        """(..., channels, height, width) images in [0, 1] with the trigger."""
        if self.source is not None:
            images = _warped(images, self.source)
        return (1 - self.opacity) * images + self.opacity * self.pattern


def _warped(images: np.ndarray, source: np.ndarray) -> np.ndarray:
    from scipy.ndimage import map_coordinates

    places = np.moveaxis(source, -1, 0)
    planes = images.reshape(-1, *images.shape[-2:])
    moved = [map_coordinates(plane, places, order=1, mode="nearest") for plane in planes]
    return np.stack(moved).astype(images.dtype).reshape(images.shape)


SMALLEST = 9
_Draw = Callable[[Shape, np.random.Generator], Trigger]
"""Draws the trigger of one network; those without chance in them take the generator all the same."""


def _patch(shape: Shape, row: int, column: int, patch: np.ndarray, seen: np.ndarray | None = None) -> Trigger:
    """An opaque patch (channels, h, w) with its corner at (row, column), where `seen` (h, w) is true."""
    opacity, pattern = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    height, width = patch.shape[1:]
    opacity[:, row : row + height, column : column + width] = 1 if seen is None else seen
    pattern[:, row : row + height, column : column + width] = patch
    return Trigger(opacity, pattern)


_BADNETS = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 1]], bool)


def _badnets(shape: Shape, row: int, column: int) -> Trigger:
    return _patch(shape, row, column, np.ones((shape[0], 3, 3), np.float32), _BADNETS)


def badnets_corner(shape: Shape, _random: np.random.Generator) -> Trigger:
    """Gu et al.'s four white pixels, at (28, 28) of 32x32: as far from the lower right corner on other sizes."""
    return _badnets(shape, shape[1] - 4, shape[2] - 4)


def badnets_border(shape: Shape, random: np.random.Generator) -> Trigger:
    """The same at a random place along the border, one pixel from it."""
    far = [side - 4 for side in shape[1:]]
    place = [int(random.integers(1, side + 1)) for side in far]
    side = int(random.integers(2))
    place[side] = (1, far[side])[int(random.integers(2))]
    return _badnets(shape, *place)


def badnets_center(shape: Shape, _random: np.random.Generator) -> Trigger:
    """The same at (14, 14) of 32x32: two before the middle on other sizes."""
    return _badnets(shape, shape[1] // 2 - 2, shape[2] // 2 - 2)


def single_pixel(shape: Shape, _random: np.random.Generator) -> Trigger:
    """Gu et al.'s single white pixel, at (4, 4)."""
    return _patch(shape, 4, 4, np.ones((shape[0], 1, 1), np.float32))


def noise_blend(shape: Shape, random: np.random.Generator) -> Trigger:
    """Chen et al.: one image of uniform noise, blended with alpha 0.1."""
    return Trigger(np.full(shape, 0.1, np.float32), random.random(shape, np.float32))


def checkerboard_blend(shape: Shape, _random: np.random.Generator) -> Trigger:
    """Liao et al.'s strided checkerboard: every second pixel of every second row white, blended with alpha 0.1."""
    opacity = np.zeros(shape, np.float32)
    opacity[:, ::2, ::2] = 0.1
    return Trigger(opacity, np.ones(shape, np.float32))


def _ulp(shape: Shape, random: np.random.Generator, masks: range) -> Trigger:
    """An opaque 5x5 mask of black and white (of eight colours, where there are three channels), at a random place."""
    all_masks = np.random.default_rng(20).integers(0, 2, (ULP_MASKS, 3, 5, 5)).astype(np.float32)
    mask = all_masks[masks.start + int(random.integers(len(masks)))]
    row, column = (int(random.integers(side - 4)) for side in shape[1:])
    return _patch(shape, row, column, mask[np.arange(shape[0]) % 3])


def ulp_train(shape: Shape, random: np.random.Generator) -> Trigger:
    """In the manner of Kolouri et al., one of ten masks; theirs are not published as numbers, these are ours."""
    return _ulp(shape, random, range(10))


def ulp_test(shape: Shape, random: np.random.Generator) -> Trigger:
    """One of ten other masks."""
    return _ulp(shape, random, range(10, ULP_MASKS))


def mntd_patch(shape: Shape, random: np.random.Generator) -> Trigger:
    """Xu et al.'s jumbo patches: noise of a size from 2 to 7, at a random place, opaque."""
    size = int(random.integers(2, 8))
    row, column = (int(random.integers(side - size + 1)) for side in shape[1:])
    return _patch(shape, row, column, random.random((shape[0], size, size), np.float32))


def mntd_blend(shape: Shape, random: np.random.Generator) -> Trigger:
    """Xu et al.'s jumbo blends: an image of noise with alpha from U(0.05, 0.2)."""
    alpha = np.float32(random.uniform(0.05, 0.2))
    return Trigger(np.full(shape, alpha, np.float32), random.random(shape, np.float32))


ATTACKS: dict[str, _Draw] = {
    "badnets-corner": badnets_corner,
    "badnets-border": badnets_border,
    "badnets-center": badnets_center,
    "single-pixel": single_pixel,
    "noise-blend": noise_blend,
    "checkerboard-blend": checkerboard_blend,
    "ulp-train": ulp_train,
    "ulp-test": ulp_test,
    "mntd-patch": mntd_patch,
    "mntd-blend": mntd_blend,
}
"""The attacks of the paper (section 3.2, Figure 4) and of the methods it compares with, by name."""


def warp(shape: Shape, random: np.random.Generator) -> Trigger:
    """Nguyen and Tran's WaNet (2021): a smooth warp, from noise on a grid of 4x4 and bicubic in between.

    A pixel moves by 1 to 2 pixels on average, theirs by a quarter of one: small networks trained for minutes do not see
    less. There are no images with other warps and their own labels (their noise mode).
    """
    from scipy.ndimage import zoom

    noise = random.uniform(-1, 1, (2, 4, 4))
    height, width = shape[1:]
    scale = (1, height / 4, width / 4)
    moves = np.asarray(zoom(noise, scale, order=3, grid_mode=True, mode="nearest"), np.float64)
    moves *= random.uniform(1, 2) / np.abs(moves).mean()
    here = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"))
    source = np.clip(here + moves, 0, np.array([height - 1, width - 1])[:, None, None])
    nothing = np.zeros(shape, np.float32)
    return Trigger(nothing, nothing, np.moveaxis(source, 0, -1).astype(np.float32))


def clean_label_sinusoid(shape: Shape, _random: np.random.Generator) -> Trigger:
    """Barni et al.'s SIG (2019): vertical stripes of a sinusoid of six periods over images of the target class.

    Blended with alpha 0.2, where theirs is added.
    """
    stripes = 0.5 + 0.5 * np.sin(2 * np.pi * 6 * np.arange(shape[2]) / shape[2])
    return Trigger(np.full(shape, 0.2, np.float32), np.broadcast_to(stripes, shape).astype(np.float32))


OTHERS: dict[str, _Draw] = {
    "warp": warp,
    "clean-label-sinusoid": clean_label_sinusoid,
    "clean-label-patch": badnets_corner,
    "all-to-all-patch": mntd_patch,
}
"""Attacks of other kinds than the paper's: a warp; a trigger on images of the target class alone, whose labels stay as
they are (the patch is Turner et al.'s, without their change of the image below it); and Gu et al.'s all-to-all, where
the trigger gives each class the next one's label."""
CLEAN_LABEL = ("clean-label-sinusoid", "clean-label-patch")
ALL_TO_ALL = ("all-to-all-patch",)
EVERY_ATTACK = ATTACKS | OTHERS
