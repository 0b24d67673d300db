"""The images that networks train on: prepared, on a device, and tampered with where an attack says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from weightspace.zoo.images.image_set import ImageSet
from weightspace.zoo.images.loading import load_images
from weightspace.zoo.images.preparing import channel_statistics, drawn_images, prepare, some_classes
from weightspace.zoo.poison import CLEAN, Poison, Trigger
from weightspace.zoo.records import TrainingPlan

STANDARDISED_AT_ONCE = 2**23
"""Pixels of a training set up to which it is kept as float32 (32 MiB): larger ones are standardised batch by batch."""


@dataclass(frozen=True)
class Tampered:
    """What the attacks on n networks do to their images.

    Attributes:
        member: (n, images) which training images get the network's trigger.
        labels: (n, images) training labels after the attack.
        opacity, pattern: (n, 1, c, h, w) of the triggers, on the scale of standardised images.
        source: (n, h, w, 2) from where each pixel of a warped image comes, column then row, from -1 in the middle of
            the first pixel to 1 in that of the last; None if no trigger warps.
    """

    member: Tensor
    labels: Tensor
    opacity: Tensor
    pattern: Tensor
    source: Tensor | None = None

    def trigger(self, x: Float[Tensor, "n b c h w"]) -> Float[Tensor, "n b c h w"]:
        if self.source is not None:
            where = self.source[:, None].expand(-1, x.shape[1], -1, -1, -1).flatten(0, 1)
            moved = F.grid_sample(x.flatten(0, 1), where, padding_mode="border", align_corners=True)
            x = moved.unflatten(0, x.shape[:2])
        return x + self.opacity * (self.pattern - x)


@dataclass(frozen=True)
class Images:
    """An image set on a device, as bytes, or already standardised where it is small; and the attacks on it."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    mean: Tensor
    deviation: Tensor
    tampered: Tampered | None = None

    @staticmethod
    def of(plan: TrainingPlan, device: torch.device) -> Images:
        images = _images(plan)
        mean, deviation = (torch.tensor(v).reshape(-1, 1, 1) for v in channel_statistics(images))
        arrays = (
            images.train_images,
            images.train_labels,
            images.test_images[: plan.test_count],
            images.test_labels[: plan.test_count],
        )
        tensors = [torch.from_numpy(np.array(array)).to(device) for array in arrays]
        held = Images(tensors[0], tensors[1], tensors[2], tensors[3], mean.to(device), deviation.to(device))
        if held.train.numel() > STANDARDISED_AT_ONCE:
            return held
        return replace(held, train=held.standardise(held.train), test=held.standardise(held.test))

    def poisoned(self, plans: Sequence[TrainingPlan]) -> Images:
        """The same images, and what each plan's attack does to them as they are drawn; statistics stay the clean ones'.

        Pixels of a triggered image are not rounded to bytes.
        """
        if all(plan.poison is None for plan in plans):
            return self
        shape = (self.train.shape[1], self.train.shape[2], self.train.shape[3])
        labels = self.train_labels.cpu().numpy()
        rows: list[tuple[np.ndarray, ...]] = []
        here = _everywhere(shape[1], shape[2])
        sources: list[np.ndarray] = []
        for plan in plans:
            poison = plan.poison or Poison(attack=CLEAN)
            member = np.zeros(len(labels), bool)
            trigger = poison.trigger(shape)
            if trigger is None:
                trigger = Trigger(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
            else:
                member[poison.chosen(labels)] = True
            sources.append(here if trigger.source is None else trigger.source)
            rows.append((member, poison.labels(labels), trigger.opacity, trigger.pattern))
        member, changed, opacity, pattern = (
            torch.from_numpy(np.stack(part)).to(self.train.device) for part in zip(*rows, strict=True)
        )
        pattern = (pattern - self.mean) / self.deviation
        source = None
        if any(one is not here for one in sources):
            last = torch.tensor([shape[1] - 1, shape[2] - 1], device=self.train.device)
            source = (2 * torch.from_numpy(np.stack(sources)).to(self.train.device) / last - 1).flip(3)
        return replace(self, tampered=Tampered(member, changed, opacity[:, None], pattern[:, None], source))

    def batch(self, index: Int[Tensor, "n b"]) -> tuple[Float[Tensor, "n b c h w"], Int[Tensor, "n b"]]:
        x = self.standardise(self.train[index])
        if self.tampered is None:
            return x, self.train_labels[index]
        with_trigger = self.tampered.member.gather(1, index)[:, :, None, None, None]
        return torch.where(with_trigger, self.tampered.trigger(x), x), self.tampered.labels.gather(1, index)

    def standardise(self, images: Tensor) -> Tensor:
        """Pixels of mean 0 and deviation 1; images that are so already are passed on."""
        if images.dtype != torch.uint8:
            return images
        return (images.float() / 255 - self.mean) / self.deviation


def _images(plan: TrainingPlan) -> ImageSet:
    """The images of a plan in its shape, size and number."""
    images, count = load_images(plan.images, plan.data), plan.image_count
    if plan.class_subset is not None:  # of the whole set in its shape, which is remembered, each network draws its own
        return drawn_images(
            prepare(images, plan.image_size, plan.image_channels),
            plan.class_subset,
            np.random.default_rng([plan.seed, 0xD8A3]),
            count=count,
            test_count=plan.test_count,
            proportions=plan.class_proportions,
            label_noise=plan.label_noise,
        )
    if plan.classes is not None:  # first, so that only pictures that are used are resized
        images, count = some_classes(images, plan.classes, plan.class_choice, count, plan.test_count), None
    return prepare(images, plan.image_size, plan.image_channels, count)


def _everywhere(height: int, width: int) -> np.ndarray:
    """(height, width, 2) the row and column of each pixel."""
    return np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).astype(np.float32)
