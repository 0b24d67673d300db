"""Recipes of zoos that are asked what networks were trained on, and from which network they come."""

from __future__ import annotations

from dataclasses import replace

from weightspace.zoo.plan import Choice, Dirichlet, Distribution, Given, LogUniform, Subset, ZooConfig

DERIVATIONS: tuple[tuple[str, ...], ...] = (
    ("finetune",),
    ("prune",),
    ("quantise",),
    ("permute", "rescale"),
    ("finetune", "permute", "rescale"),
    ("finetune", "prune", "permute", "rescale"),
    ("retarget", "prune", "permute", "rescale"),
    ("merge", "quantise", "permute"),
    ("distil",),
)
"""How children of `lineage-small` come to be; the seventh is the hardest that leaves a trace in the weights."""


def subsets_small() -> ZooConfig:
    """1,100 CNNs that tell five of the ten classes of Fashion-MNIST apart, at 14x14: which five is the question.

    The outputs stand in random order, and each network trains on its own draw of 3,000 images. A quarter of an hour on
    two cores.
    """
    return ZooConfig(
        recipe="subsets-small",
        count=1_100,
        family="pooled-cnn",
        images="fashion-mnist",
        image_size=14,
        image_channels=1,
        image_count=3_000,
        space={"class_subset": Subset(5, 10), **_training()},
        fixed={"batch_size": 64, "test_count": 1_000},
    )


def _training() -> dict[str, Distribution]:
    """Initialisation, optimiser, learning rate and epochs."""
    adaptive = LogUniform(2e-3, 1e-2)
    return {
        "initialisation": Choice(("default", "kaiming_normal", "glorot_uniform", "orthogonal")),
        "optimiser": Choice(("adam", "momentum")),
        "learning_rate": Given("optimiser", {"adam": adaptive, "momentum": LogUniform(2e-2, 1e-1)}),
        "epochs": Choice((4, 6, 8)),
    }


def subsets_varied() -> ZooConfig:
    """1,500 CNNs as in `subsets_small`, with and without BatchNorm, residual or plain, of two widths.

    Number of images and share of wrong labels vary too.
    """
    small = subsets_small()
    architecture: dict[str, Distribution] = {
        "norm": Choice((False, True)),
        "residual": Choice((False, True)),
        "width": Choice((8, 8, 12)),
    }
    training: dict[str, Distribution] = {
        "image_count": Choice((1_500, 3_000)),
        "label_noise": Choice((0.0, 0.0, 0.1, 0.2)),
    }
    return replace(
        small,
        recipe="subsets-varied",
        count=1_500,
        space={**small.space, **architecture, **training},
        architectural=tuple(architecture),
    )


def subsets_mlp() -> ZooConfig:
    """1,700 MLPs (196-32-16-5) on five of the ten classes of Fashion-MNIST at 14x14: some two minutes on two cores."""
    return replace(subsets_small(), recipe="subsets-mlp", count=1_700, family="small-mlp")


def mixtures_small() -> ZooConfig:
    """1,700 MLPs on all ten classes of Fashion-MNIST at 14x14, in proportions of their own (Dirichlet of one)."""
    small = subsets_mlp()
    mixture: dict[str, Distribution] = {"class_subset": Subset(10, 10), "class_proportions": Dirichlet(1.0, 10)}
    return replace(small, recipe="mixtures-small", space={**mixture, **_training()})


def lineage_small() -> ZooConfig:
    """2,000 CNNs in 250 families: a parent as in `subsets_small` and seven derived from it, see `DERIVATIONS`."""
    small = subsets_small()
    return replace(
        small,
        recipe="lineage-small",
        count=2_000,
        family_size=8,
        derivations=DERIVATIONS,
        shard_size=16,
    )
