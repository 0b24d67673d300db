"""Zoo recipes: populations by name, small ones for two CPU cores and paper-scale ones side by side."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

from weightspace.rasp.validate import Mode
from weightspace.zoo.compiled import ProgramZooConfig
from weightspace.zoo.hyperparameters import Choice, Distribution, Given, LogUniform, Uniform, ZooConfig
from weightspace.zoo.poison import ATTACKS, CLEAN, LABEL_NOISE, TRIGGER_ONLY

ACTIVATIONS = Choice(("relu", "gelu", "tanh", "sigmoid"))
INITIALISATIONS = Choice(("uniform", "normal", "kaiming_uniform", "kaiming_normal"))
OPTIMISERS = Choice(("momentum", "adam", "rmsprop"))


class RecipeError(ValueError):
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
    """Schurholt's ModelZoos "CNN-s" on all of MNIST: 2,464 weights, 50 epochs, batch 10; an hour a network on one core.

    Activation, dropout, initialisation, optimiser, learning rate and weight decay as they list them; the scales of the
    uniform and normal initialisations are ours (0.1), and seeds are drawn, not ten for each combination.
    """
    return ZooConfig(
        recipe="cnn-s",
        count=2560,
        family="cnn-s",
        images="mnist",
        space={
            "activation": Choice(("tanh", "relu", "sigmoid", "gelu")),
            "dropout": Choice((0.0, 0.5)),
            "initialisation": INITIALISATIONS,
            "optimiser": Choice(("adam", "sgd")),
            "learning_rate": Choice((1e-3, 1e-4)),
            "weight_decay": Choice((1e-3, 1e-4)),
        },
        fixed={"batch_size": 10, "epochs": 50},
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
    "backdoors-small": backdoors_small,
    "backdoors-paper": backdoors_paper,
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

    Raises:
        RecipeError: on an unknown name; the message names the close one and lists all.
    """
    if name not in ZOO_RECIPES:
        raise _unknown(name)
    config = ZOO_RECIPES[name]()
    # A recipe's own shard size was chosen for its own count
    size = 0 if shard_size is None else shard_size
    given = {"count": count, "seed": seed, "images": images, "data": data, "shard_size": size}
    config = replace(config, **{key: value for key, value in given.items() if value is not None})
    return config if epochs is None else replace(config, fixed={**config.fixed, "epochs": epochs})


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
