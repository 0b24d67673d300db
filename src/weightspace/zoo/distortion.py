"""Images shifted, turned and recoloured anew each time a network in training sees them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from weightspace.zoo.networks import hash31
from weightspace.zoo.records import TrainingPlan

SHIFT, ZOOM, SHEAR = 3.0, 0.1, 0.1
"""Pixels to each side, share of the size, and shear, each at most."""
ROTATION = 15.0
"""Degrees to each side, at most."""
GAIN, OFFSET, NOISE = 0.2, 0.2, 0.1
"""Factor and offset of each channel and noise of each pixel, in standard deviations of a channel, at most."""


def distorted(
    x: Float[Tensor, "n b c h w"], plan: TrainingPlan, seeds: Int[Tensor, " n"], step: int
) -> Float[Tensor, "n b c h w"]:
    """The images of one step as their plans distort them: `augment` first, then `flip`, then `crop`.

    All is drawn where the images are, so that a GPU never waits for it.

    Args:
        x: standardised images of n networks, on any device; what is drawn depends on seed and step alone.
        plan: one of theirs, which agree in both.
        seeds: of the networks, int64, on the same device.
        step: number of the step, from 0.
    """
    if plan.augment:
        x = augmented(x, seeds, step)
    if plan.flip:
        x = torch.where(flips(seeds, step, x.shape[1])[..., None, None, None], x.flip(4), x)
    if plan.crop:
        x = shifted(x, shifts(seeds, step, x.shape[1], plan.crop), plan.crop)
    return x


def augmented(x: Float[Tensor, "n b c h w"], seeds: Int[Tensor, " n"], step: int) -> Float[Tensor, "n b c h w"]:
    """Images shifted, turned, zoomed, sheared, recoloured and made noisy, as Eilertsen et al. (2020) augment theirs.

    They name shift (3 pixels), rotation (15 degrees), zoom, shear, colour and noise; the amounts of the last four are
    ours. All are uniform, an image's own, by bilinear sampling; what comes in from outside has the mean colour. From a
    hash of seed, step and place, so that every engine and device draws the same.

    Args:
        x: standardised images (0 is the mean colour).
        seeds: of the networks, int64.
    """
    n, b, channels, height, width = x.shape
    key = hash31(seeds + 1000033 * step)  # (n,)
    drawn = _uniform(key, b * (5 + 2 * channels), 1).view(n, b, -1)  # in [-1, 1)
    right, down, turn, zoom, shear = drawn[..., :5].unbind(2)
    angle = turn * (ROTATION * torch.pi / 180)
    size = 1 + zoom * ZOOM
    cosine, sine = angle.cos() / size, angle.sin() / size
    slant = shear * SHEAR
    rows = [
        torch.stack([cosine, slant * cosine - sine, 2 * SHIFT / width * right], 2),
        torch.stack([sine, slant * sine + cosine, 2 * SHIFT / height * down], 2),
    ]
    where = F.affine_grid(torch.stack(rows, 2).flatten(0, 1), [n * b, channels, height, width], align_corners=False)
    moved = F.grid_sample(x.flatten(0, 1), where, align_corners=False).view_as(x)
    gain, offset = drawn[..., 5:, None, None].chunk(2, 2)
    noise = _uniform(key, b * channels * height * width, 2).view_as(x)
    return moved * (1 + GAIN * gain) + OFFSET * offset + NOISE * noise


def _uniform(key: Int[Tensor, " n"], count: int, stream: int) -> Float[Tensor, "n k"]:
    """(n, count) numbers uniform in [-1, 1)."""
    return _drawn(key, count, stream).float() / 2**30 - 1


def _drawn(key: Int[Tensor, " n"], count: int, stream: int) -> Int[Tensor, "n k"]:
    """(n, count) numbers from 0 to below 2**31, int32."""
    return hash31(torch.arange(count, dtype=torch.int32, device=key.device) + hash31(key + stream).int()[:, None])


def shifted(x: Float[Tensor, "n b c h w"], by: Int[Tensor, "n b 2"], most: int) -> Float[Tensor, "n b c h w"]:
    """Images shifted down and right by 0 to 2 `most` pixels less `most`; what comes in is 0."""
    height, width = x.shape[3:]
    padded = F.pad(x, (most, most, most, most))
    rows = by[..., :1] + torch.arange(height, device=x.device)  # (n, b, h)
    columns = by[..., 1:] + torch.arange(width, device=x.device)
    places = (rows[..., None] * padded.shape[4] + columns[..., None, :]).flatten(2)  # (n, b, h w)
    taken = padded.flatten(3).gather(3, places[:, :, None].expand(-1, -1, x.shape[2], -1))
    return taken.unflatten(3, (height, width))


def shifts(seeds: Int[Tensor, " n"], step: int, count: int, most: int) -> Int[Tensor, "n b 2"]:
    """How far `count` images of a step are shifted down and right, 0 to 2 `most`, int32.

    From a hash of seed, step and place, so that every engine and device draws the same.

    Args:
        seeds: of the networks, int64.
    """
    return _drawn(hash31(seeds + 1000033 * step), 2 * count, 3).view(len(seeds), count, 2) % (2 * most + 1)


def flips(seeds: Int[Tensor, " n"], step: int, count: int) -> Bool[Tensor, "n b"]:
    """Which of `count` images of a step are mirrored: half of them, drawn as `shifts` draws.

    Args:
        seeds: of the networks, int64.
    """
    return _drawn(hash31(seeds + 1000033 * step), count, 4) % 2 == 1
