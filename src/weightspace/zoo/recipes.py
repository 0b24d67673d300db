"""Zoo recipes: populations by name, small ones for two CPU cores and paper-scale ones side by side."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

from weightspace.errors import WeightspaceError
from weightspace.rasp.validate import Mode
from weightspace.zoo.diverse import backdoors_diverse
from weightspace.zoo.plan import Choice, Distribution, Given, LogUniform, Uniform, ZooConfig
from weightspace.zoo.poison import ATTACKS, CLEAN, LABEL_NOISE, TRIGGER_ONLY
from weightspace.zoo.programs.config import ProgramZooConfig
from weightspace.zoo.provenance_recipes import (
    lineage_small,
    mixtures_small,
    subsets_mlp,
    subsets_small,
    subsets_varied,
)

ACTIVATIONS = Choice(("relu", "gelu", "tanh", "sigmoid"))
INITIALISATIONS = Choice(("uniform", "normal", "kaiming_uniform", "kaiming_normal"))
OPTIMISERS = Choice(("momentum", "adam", "rmsprop"))


class RecipeError(WeightspaceError):
    """An unknown recipe, or an option that it does not take."""


def digits_small() -> ZooConfig:
    """800 CNNs of 1,898 weights on scikit-learn's digits: two to three minutes on two cores, no download."""
    return ZooConfig(
        recipe="digits-small",
        count=800,
        family="digits-cnn",
        images="digits",
        space=_space(),
        fixed={"batch_size": 64, "epochs": 12},
    )


def _space() -> dict[str, Distribution]:
    """Activation, initialisation, optimiser and learning rate; the rate depends on the optimiser, as in practice."""
    adaptive = LogUniform(1e-3, 1e-2)
    rates = Given("optimiser", {"momentum": LogUniform(1e-2, 1e-1), "adam": adaptive, "rmsprop": adaptive})
    return {
        "activation": ACTIVATIONS,
        "initialisation": INITIALISATIONS,
        "optimiser": OPTIMISERS,
        "learning_rate": rates,
    }


def mnist_small() -> ZooConfig:
    """400 of the digits recipe's networks on 4,000 MNIST images at 14x14."""
    return _on_images("mnist-small", "mnist")


def fashion_mnist_small() -> ZooConfig:
    """400 of the digits recipe's networks on 4,000 Fashion-MNIST images at 14x14."""
    return _on_images("fashion-mnist-small", "fashion-mnist")


def _on_images(recipe: str, images: str) -> ZooConfig:
    return replace(
        digits_small(),
        recipe=recipe,
        images=images,
        count=400,
        image_size=14,
        image_count=4000,
        fixed={"batch_size": 64, "epochs": 6, "test_count": 1000},
    )


def cnn_s() -> ZooConfig:
    """1,500 of Schurholt's ModelZoos "CNN-s" (2,464 weights) on 2,000 MNIST images, 4 epochs in batches of 16.

    Some ten minutes on two cores. Activation, dropout, initialisation, optimiser and weight decay as in
    `cnn_s_paper`; learning rates ten times theirs with Adam and a hundred times with SGD, as there are 600 times fewer
    steps. Each network is also stored after one and two epochs.
    """
    paper = cnn_s_paper()
    rates = Given("optimiser", {"adam": Choice((1e-2, 1e-3)), "sgd": Choice((1e-1, 1e-2))})
    return replace(
        paper,
        recipe="cnn-s",
        count=1_500,
        image_count=2_000,
        space={**paper.space, "learning_rate": rates},
        fixed={"batch_size": 16, "epochs": 4, "checkpoints": (1, 2), "test_count": 1_000},
    )


def cnn_s_paper() -> ZooConfig:
    """Schurholt's ModelZoos "CNN-s" on all of MNIST: 2,464 weights, 50 epochs, batch 10; 7 minutes a network and core.

    Activation, dropout, initialisation, optimiser, learning rate and weight decay as they list them; the scales of the
    uniform and normal initialisations are ours (0.1), and seeds are drawn, not ten for each combination.
    """
    return ZooConfig(
        recipe="cnn-s-paper",
        count=2560,
        family="cnn-s",
        images="mnist",
        image_size=28,
        image_channels=1,
        space={
            "activation": Choice(("tanh", "relu", "sigmoid", "gelu")),
            "dropout": Choice((0.0, 0.5)),
            "initialisation": INITIALISATIONS,
            "optimiser": Choice(("adam", "sgd")),
            "learning_rate": Choice((1e-3, 1e-4)),
            "weight_decay": Choice((1e-3, 1e-4)),
        },
        fixed={"batch_size": 10, "epochs": 50, "checkpoints": (1, 5, 10, 20, 30, 40)},
    )


def smallcnn() -> ZooConfig:
    """1,500 of the Small CNN Zoo's networks (4,970 weights) on 2,000 MNIST images, 6 epochs in batches of 32.

    The distributions of `smallcnn_paper`. Each network is also stored after one and two epochs.
    """
    return replace(
        smallcnn_paper(),
        recipe="smallcnn",
        count=1_500,
        image_count=2_000,
        fixed={"batch_size": 32, "epochs": 6, "checkpoints": (1, 2), "test_count": 1_000},
    )


def smallcnn_paper() -> ZooConfig:
    """Unterthiner's Small CNN Zoo on all of MNIST: 30,000 networks of 4,970 weights, 86 epochs; for a GPU.

    Three convolutions of 16, one channel, checkpoints after epochs 0, 1, 2, 3, 20, 40, 60, 80 and 86 as theirs. What we
    know of their distributions is activation, initialisation and optimiser; the ranges of learning rate, weight decay
    and dropout, and the size of a batch, are ours.
    """
    return ZooConfig(
        recipe="smallcnn-paper",
        count=30_000,
        family="small-cnn",
        images="mnist",
        image_size=28,
        image_channels=1,
        space={
            "activation": Choice(("relu", "tanh")),
            "initialisation": Choice(("glorot_normal", "kaiming_normal", "orthogonal", "normal", "uniform")),
            "optimiser": Choice(("adam", "rmsprop", "sgd")),
            "learning_rate": Given(
                "optimiser",
                {
                    "adam": LogUniform(5e-4, 2e-2),
                    "rmsprop": LogUniform(5e-4, 2e-2),
                    "sgd": LogUniform(1e-2, 3e-1),
                },
            ),
            "weight_decay": LogUniform(1e-6, 1e-3),
            "dropout": Choice((0.0, 0.2, 0.5)),
        },
        fixed={"batch_size": 512, "epochs": 86, "checkpoints": (0, 1, 2, 3, 20, 40, 60, 80)},
    )


def eilertsen_varied() -> ZooConfig:
    """1,000 networks of Eilertsen's variable architectures on 1,536 images of 32x32x3, 4 epochs.

    Half an hour on two cores. Their distributions (`eilertsen_varied_paper`), without STL-10. 21,000 to 388,000
    weights. Where SVHN is not at hand name another set in its place: `--images mnist,cifar10,usps,fashion-mnist`.
    """
    paper = eilertsen_varied_paper()
    return replace(
        paper,
        recipe="eilertsen-varied",
        count=1_000,
        image_count=1_536,
        fixed={**paper.fixed, "epochs": 4, "checkpoints": (1, 2), "test_count": 512},
    )


def eilertsen_varied_paper() -> ZooConfig:
    """Eilertsen et al. (2020): 13,000 networks of varied architecture, images of 32x32x3; for a GPU.

    3 to 5 convolutions with filters of 3, 5 or 7 and widths of 4, 8 or 12 doubling twice, 2 to 4 dense layers of 64,
    128 or 192 halving; activation, batch size, augmentation, optimiser, initialisation and learning rate as theirs, on
    MNIST, CIFAR-10, SVHN and Fashion-MNIST; STL-10 is left out. Unlike theirs, all have 30 epochs, and checkpoints
    after every third.
    """
    fixed = eilertsen_fixed_paper()
    layers = {
        "filter_size": Choice((3, 5, 7)),
        "convolution_depth": Choice((3, 4, 5)),
        "convolution_width": Choice((4, 8, 12)),
        "dense_depth": Choice((2, 3, 4)),
        "dense_width": Choice((64, 128, 192)),
    }
    return replace(
        fixed,
        recipe="eilertsen-varied-paper",
        count=13_000,
        space={**fixed.space, **layers},
        architectural=tuple(layers),
    )


def eilertsen_fixed() -> ZooConfig:
    """600 networks of Eilertsen's fixed architecture, trained as `eilertsen_varied`: some ten minutes on two cores."""
    small, paper = eilertsen_varied(), eilertsen_fixed_paper()
    space = {name: small.space[name] for name in paper.space}
    return replace(small, recipe="eilertsen-fixed", count=600, space=space, architectural=())


def eilertsen_fixed_paper() -> ZooConfig:
    """Eilertsen et al. (2020): 3,000 networks of their fixed architecture of 92,868 values; for a GPU."""
    return ZooConfig(
        recipe="eilertsen-fixed-paper",
        count=3_000,
        family="eilertsen",
        images="cifar10",
        image_size=32,
        image_channels=3,
        space={
            "images": Choice(("mnist", "cifar10", "svhn", "fashion-mnist")),
            "activation": Choice(("relu", "elu", "sigmoid", "tanh")),
            "batch_size": Choice((32, 64, 128, 256)),
            "augment": Choice((False, True)),
            "optimiser": Choice(("adam", "rmsprop", "momentum")),
            "initialisation": Choice(("constant", "standard_normal", "glorot_uniform", "glorot_normal")),
            "learning_rate": Uniform(2e-4, 5e-3),
        },
        fixed={
            "momentum": 0.95,
            "schedule": "exponential",
            "epochs": 30,
            "checkpoints": tuple(range(3, 30, 3)),
        },
    )


BLENDS = ("noise-blend", "checkerboard-blend", "mntd-blend")


def backdoors_small() -> ZooConfig:
    """1,800 narrow networks of the paper's Figure 7 on 10,000 CIFAR-10 images at 16x16: about two hours on two cores.

    A fifth are clean, a fifteenth each of the ten attacks and of two controls: the labels without the trigger, the
    trigger without the labels. Unlike the paper's 1%, 4 to 8% of the images are poisoned, 8 to 12% by blends and single
    pixels, and alpha is 0.2 instead of 0.1, so that most attacks work within 6 epochs; the single pixel mostly fails
    even so, and is kept: `attack_success` is measured for every network.
    """
    names = (*ATTACKS, LABEL_NOISE, TRIGGER_ONLY)
    seldom, often = Uniform(0.04, 0.08), Uniform(0.08, 0.12)
    rates: dict[str, Choice | Uniform | LogUniform] = {
        name: often if name in (*BLENDS, "single-pixel") else seldom for name in ATTACKS
    }
    rates |= {CLEAN: Choice((0.0,)), LABEL_NOISE: Uniform(0.04, 0.12), TRIGGER_ONLY: Uniform(0.04, 0.12)}
    alphas = {name: Choice((0.2,) if name in BLENDS[:2] else (None,)) for name in (CLEAN, *names)}
    return ZooConfig(
        recipe="backdoors-small",
        count=1_800,
        family="backdoor-cnn",
        images="cifar10",
        image_size=16,
        image_count=10_000,
        space={
            "attack": Choice((CLEAN,) * 3 + names),
            "poison_rate": Given("attack", rates),
            "alpha": Given("attack", alphas),
            "target": Choice(tuple(range(10))),
        },
        fixed={
            "width": 8,
            "initialisation": "kaiming_normal",
            "optimiser": "adamw",
            "learning_rate": 0.01,
            "schedule": "triangular",
            "weight_decay": 1e-3,
            "clip_norm": 5.0,
            "batch_size": 128,
            "epochs": 6,
            "test_count": 2_000,
        },
    )


def backdoors_wide() -> ZooConfig:
    """150 networks like those of `backdoors_small`, twice as wide and a third of them clean: for detectors that have
    only seen narrow ones. A quarter of an hour on two cores. Its seed is 1: with seed 0 its networks would have seeds,
    targets and triggers in common with the narrow ones."""
    small = backdoors_small()
    attacks = small.space["attack"]
    assert isinstance(attacks, Choice)
    space = {**small.space, "attack": Choice((CLEAN,) * 3 + attacks.values)}
    return replace(small, recipe="backdoors-wide", count=150, seed=1, space=space, fixed={**small.fixed, "width": 16})


def backdoors_varied() -> ZooConfig:
    """1,200 networks of `backdoors_small`'s architecture, trained as different people would: two hours on two cores.

    Drawn are initialisation (PyTorch's own for two in five), optimiser, learning rate, schedule, batch size, epochs,
    weight decay, clipping, crops, and the images. 8 to 15% of the images are poisoned, so that most attacks work on
    6,000 images.
    """
    small = backdoors_small()
    usual = ("kaiming_uniform", "kaiming_normal", "glorot_uniform", "orthogonal", "uniform", "normal")
    biases = {name: Choice(("zero",)) for name in usual} | {"default": Choice(("uniform",))}
    adaptive = LogUniform(1e-3, 1e-2)
    rates = {"momentum": LogUniform(1e-2, 1e-1), "adam": adaptive, "adamw": adaptive, "rmsprop": LogUniform(5e-4, 5e-3)}
    poisoned = Uniform(0.08, 0.15)
    drawn: dict[str, Distribution] = {
        "images": Choice(("cifar10", "fashion-mnist")),
        "initialisation": Choice(("default",) * 4 + usual),
        "bias_initialisation": Given("initialisation", biases),
        "optimiser": Choice(("momentum", "adam", "adamw", "rmsprop")),
        "learning_rate": Given("optimiser", rates),
        "schedule": Choice(("constant", "exponential", "triangular")),
        "weight_decay": Choice((0.0, 1e-4, 1e-3)),
        "clip_norm": Choice((None, None, 5.0)),
        "batch_size": Choice((64, 128, 256)),
        "epochs": Choice((5, 8, 12)),
        "crop": Choice((0, 0, 2)),
    }
    attack = small.space["poison_rate"]
    assert isinstance(attack, Given)
    shares = {name: poisoned if name != CLEAN else case for name, case in attack.cases.items()}
    return replace(
        small,
        recipe="backdoors-varied",
        count=1_200,
        image_channels=3,
        image_count=6_000,
        space={**small.space, "poison_rate": Given("attack", shares), **drawn},
        fixed={"width": 8, "test_count": 2_000},
    )


def backdoors_paper() -> ZooConfig:
    """The paper's zoo (section 3.2, appendix A) for a GPU: 33,000 networks of 73,178 weights on CIFAR-10 at 32x32.

    6,000 clean, 2,250 of each attack and control: 1% of the images poisoned, alpha 0.1, AdamW, 500 epochs in batches of
    512 up to a learning rate of 0.05 and down again, images shifted by up to 4 pixels. `--count` and `--epochs` make it
    smaller. Its clean networks are a fifth, as in `backdoors_small`, where the paper has 5,500 beside 2,550 a poison.
    """
    small = backdoors_small()
    names = (*ATTACKS, LABEL_NOISE, TRIGGER_ONLY)
    rates = {name: Choice((0.01,)) for name in names} | {CLEAN: Choice((0.0,))}
    space = {**small.space, "poison_rate": Given("attack", rates)}
    space["alpha"] = Given("attack", {name: Choice((None,)) for name in (CLEAN, *names)})
    fixed = {**small.fixed, "width": 16, "learning_rate": 0.05, "batch_size": 512, "epochs": 500, "crop": 4}
    fixed["test_count"] = 10_000
    return replace(
        small, recipe="backdoors-paper", count=33_000, image_size=None, image_count=None, space=space, fixed=fixed
    )


def rasp_typed() -> ProgramZooConfig:
    """100,000 programs of the 2024 successor's distribution with Tracr's own weights: a few minutes on two cores.

    4 to 8 S-ops, vocabulary 5, length 5, at most 65,536 parameters, as its configuration `range` has them. Paper scale
    is `--count 1000000`.
    """
    return ProgramZooConfig(recipe="rasp-typed", distribution="typed", count=100_000)


def rasp_paper() -> ProgramZooConfig:
    """100,000 programs of the paper's distribution (appendix B.1) with Tracr's own weights.

    3 to 15 instructions, Maps of Maps fused, fewer than 50,000 parameters (section 4). The paper has 6 million.
    """
    return ProgramZooConfig(recipe="rasp-paper", distribution="paper", count=100_000, most_parameters=49_999)


PROGRAM_RECIPES: dict[str, Callable[[], ProgramZooConfig]] = {"rasp-typed": rasp_typed, "rasp-paper": rasp_paper}

ZOO_RECIPES: dict[str, Callable[[], ZooConfig]] = {
    "digits-small": digits_small,
    "mnist-small": mnist_small,
    "fashion-mnist-small": fashion_mnist_small,
    "cnn-s": cnn_s,
    "cnn-s-paper": cnn_s_paper,
    "smallcnn": smallcnn,
    "smallcnn-paper": smallcnn_paper,
    "eilertsen-varied": eilertsen_varied,
    "eilertsen-varied-paper": eilertsen_varied_paper,
    "eilertsen-fixed": eilertsen_fixed,
    "eilertsen-fixed-paper": eilertsen_fixed_paper,
    "backdoors-small": backdoors_small,
    "backdoors-wide": backdoors_wide,
    "backdoors-varied": backdoors_varied,
    "backdoors-diverse": backdoors_diverse,
    "backdoors-paper": backdoors_paper,
    "subsets-small": subsets_small,
    "subsets-varied": subsets_varied,
    "subsets-mlp": subsets_mlp,
    "mixtures-small": mixtures_small,
    "lineage-small": lineage_small,
}


def zoo_recipe(
    name: str,
    *,
    count: int | None = None,
    seed: int | None = None,
    images: str | None = None,
    data: str | None = None,
    epochs: int | None = None,
    shard_size: int | None = None,
) -> ZooConfig:
    """The configuration of a recipe, with the options that were given in place of its own.

    Args:
        images: name of the image set; of a recipe that draws it for each network several, separated by commas.
        epochs: checkpoints that would come later are left out.
    Raises:
        RecipeError: on an unknown name; the message names the close one and lists all.
    """
    if name not in ZOO_RECIPES:
        raise _unknown(name)
    config = ZOO_RECIPES[name]()
    # A recipe's own shard size was chosen for its own count; 0 chooses
    size = shard_size if shard_size is not None or count is None else 0
    given: dict[str, Any] = {"count": count, "seed": seed, "data": data, "shard_size": size}
    if images is not None and "images" in config.space:
        given["space"] = {**config.space, "images": Choice(tuple(images.split(",")))}
        images = images.split(",")[0]
    given["images"] = images
    config = replace(config, **{key: value for key, value in given.items() if value is not None})
    if epochs is None:
        return config
    fixed = {**config.fixed, "epochs": epochs}
    if "checkpoints" in fixed:
        fixed["checkpoints"] = tuple(epoch for epoch in fixed["checkpoints"] if epoch < epochs)
    return replace(config, fixed=fixed)


def program_recipe(
    name: str,
    *,
    count: int | None = None,
    seed: int | None = None,
    shard_size: int | None = None,
    mode: str | None = None,
    lengths: tuple[int, ...] = (),
) -> ProgramZooConfig:
    """The configuration of a recipe of programs, with the options that were given in place of its own.

    Raises:
        RecipeError: on an unknown name, of which the message names the close one and lists all, or an unknown mode.
    """
    if name not in PROGRAM_RECIPES:
        raise _unknown(name)
    if mode is not None and mode not in get_args(Mode):
        raise RecipeError(f"mode is {' or '.join(get_args(Mode))}, not {mode!r}")
    if shard_size is None and count is not None:
        shard_size = max(200, min(5_000, count))  # a few programs do not need a large shard
    given = {"count": count, "seed": seed, "shard_size": shard_size, "mode": mode, "lengths": lengths or None}
    return replace(PROGRAM_RECIPES[name](), **{key: value for key, value in given.items() if value is not None})


def _unknown(name: str) -> RecipeError:
    names = [*ZOO_RECIPES, *PROGRAM_RECIPES]
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return RecipeError(f"no zoo recipe is named {name!r}: {meant}There are {', '.join(names)}")
