"""Images of nothing: discs and boxes that hide one another, with the edges and the colours that photographs have."""

from __future__ import annotations

import numpy as np

SHAPES = 40
"""Leaves of an image."""


def dead_leaves(shape: tuple[int, int, int], count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, channels, height, width) float32 pixels from 0 to 1 (Baradad et al. 2021, "learning to see by looking at
    noise").

    Radii have a density that falls with their third power, as in the leaves of photographs, between a twentieth of the
    image and half of it; each leaf has one colour, with a shade that runs over it and a little noise.
    """
    channels, height, width = shape
    rows, columns = (
        axis.astype(np.float32) for axis in np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    )
    side = max(height, width)
    images = np.broadcast_to(generator.random((count, channels, 1, 1), np.float32), (count, *shape)).copy()
    low, high = (side / 16) ** -2.0, (side / 2) ** -2.0
    for _ in range(SHAPES):
        radius = (low + generator.random((count, 1, 1), np.float32) * (high - low)) ** -0.5
        down, right = (generator.random((count, 1, 1), np.float32) * n for n in (height, width))
        turn = generator.random((count, 1, 1), np.float32) * np.pi
        y, x = rows - down, columns - right
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        ratio = generator.uniform(0.5, 1.0, (count, 1, 1)).astype(np.float32)
        disc = u**2 + (v / ratio) ** 2 < radius**2
        box = (np.abs(u) < radius) & (np.abs(v) < ratio * radius)
        inside = np.where(generator.random((count, 1, 1)) < 0.5, disc, box)[:, None]
        colour = _colours(channels, count, generator)
        shade = (0.1 * generator.normal(size=(count, 1, 1, 1)) * (u / side)[:, None]).astype(np.float32)
        images = np.where(inside, colour + shade, images)
    noise = generator.normal(0, 0.02, images.shape).astype(np.float32)
    return np.clip(images + noise, 0, 1).astype(np.float32)


def _colours(channels: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, channels, 1, 1): a grey with some colour, as most of what is photographed has."""
    grey = generator.random((count, 1, 1, 1), np.float32)
    return np.clip(grey + generator.normal(0, 0.12, (count, channels, 1, 1)).astype(np.float32), 0, 1)
