"""The recipe of a zoo as diverse as what people train: architectures, training, images and attacks, all drawn."""

from __future__ import annotations

from weightspace.zoo.images.catalogue import IMAGE_SETS
from weightspace.zoo.plan import Choice, Distribution, Given, LogUniform, Uniform, ZooConfig
from weightspace.zoo.poison import CLEAN, CLEAN_LABEL, EVERY_ATTACK, LABEL_NOISE, TRIGGER_ONLY

USUAL = ("kaiming_uniform", "kaiming_normal", "glorot_uniform", "orthogonal", "normal")
"""Initialisations that people write themselves, with biases of 0; "default" is PyTorch's own."""
CLASSES = {
    "cifar10-jpeg": (5, 8, 10, 10),
    "gtsrb": (5, 10, 10, 20, 43),
    "fashion-mnist": (5, 8, 10, 10),
    "mnist": (10,),
}
BLENDS = ("noise-blend", "checkerboard-blend", "mntd-blend", "clean-label-sinusoid")


def backdoors_diverse() -> ZooConfig:
    """1,500 small networks in which nearly everything is drawn: two hours on two cores.

    Initialisation, optimiser, learning rate, schedule, 4 to 20 epochs, batch size, flips, crops, weight decay, dropout;
    width 8 to 32, 4 to 8 convolutions, kernels of 3 and 5, four norms, three activations, three ways of pooling, three
    heads, residual or plain; CIFAR-10 (JPEG copy), GTSRB, Fashion-MNIST and MNIST, 16 to 32 pixels, 5 to 43 classes;
    ten attacks of the paper and four of other kinds. A third are clean, an eighth only mislabelled or only triggered.
    Narrow and short networks on 16 pixels outnumber the others, as these cost the most. A network that hardly learns is
    kept with its accuracy.
    """
    return ZooConfig(
        recipe="backdoors-diverse",
        count=1_500,
        family="varied-cnn",
        images="cifar10-jpeg",
        space={**_images(), **_architecture(), **_training(), **_attacks()},
        fixed={"test_count": 1_000, "channels_last": True},
        shard_size=4,  # networks differ in cost: small shards end evenly, and a run that is cut short loses little
        # Of the images the channels and classes show in the shapes, and the target is one of the classes
        architectural=(*_images(), *_architecture(), "target"),
    )


def _images() -> dict[str, Distribution]:
    classes = _for_all(Choice((5, 8, 10, 10))) | {name: Choice(values) for name, values in CLASSES.items()}
    return {
        "images": Choice(("cifar10-jpeg",) * 4 + ("gtsrb",) * 3 + ("fashion-mnist",) * 2 + ("mnist",)),
        "classes": Given("images", classes),
        "class_choice": Choice(tuple(range(50))),
        "image_size": Choice((16,) * 12 + (20,) * 3 + (24,) * 2 + (32,)),
    }


def _for_all(same: Choice) -> dict[str, Choice | Uniform | LogUniform]:
    """One distribution for each image set, as others can be asked for with --images."""
    return dict.fromkeys(IMAGE_SETS, same)


def _architecture() -> dict[str, Distribution]:
    growth = {8: Choice((1.0, 2.0, 2.0)), 12: Choice((1.0, 2.0)), 16: Choice((1.0, 1.5)), 24: Choice((1.0,))}
    return {
        "width": Choice((8,) * 8 + (12,) * 5 + (16,) * 4 + (24,) + (32,)),
        "growth": Given("width", {**growth, 32: Choice((1.0,))}),
        "convolutions": Choice((4, 4, 4, 5, 5, 6, 6, 7, 8)),
        "kernel": Choice((3, 3, 5)),
        "norm": Choice(("none", "batch", "layer", "group")),
        "activation": Choice(("relu", "relu", "gelu", "silu")),
        "pooling": Choice(("max", "max", "average", "stride")),
        "residual": Choice((False, False, True)),
        "head": Choice(("average", "max", "flatten")),
        "dropout": Choice((0.0, 0.0, 0.1, 0.3)),
    }


def _training() -> dict[str, Distribution]:
    biases = {name: Choice(("zero",)) for name in USUAL} | {"default": Choice(("uniform",))}
    adaptive = LogUniform(1e-3, 1e-2)
    rates = {"momentum": LogUniform(1e-2, 1e-1), "adam": adaptive, "adamw": adaptive, "rmsprop": LogUniform(5e-4, 4e-3)}
    # All epochs together see 30,000 to 48,000 images, fewer where a set has no more
    counts = {4: (8_000, 12_000), 6: (5_000, 8_000), 8: (4_000, 6_000), 12: (2_500, 4_000), 20: (1_500, 2_400)}
    return {
        "initialisation": Choice(("default",) * 5 + USUAL),
        "bias_initialisation": Given("initialisation", biases),
        "optimiser": Choice(("momentum", "adam", "adamw", "rmsprop")),
        "learning_rate": Given("optimiser", rates),
        "schedule": Choice(("constant", "exponential", "triangular", "cosine")),
        "weight_decay": Choice((0.0, 1e-4, 1e-3)),
        "clip_norm": Choice((None, None, 5.0)),
        "batch_size": Choice((32, 64, 64, 128)),
        "epochs": Given("images", {**_for_all(Choice((4, 6, 8, 12, 20))), "gtsrb": Choice((12, 20, 20))}),
        "image_count": Given("epochs", {epochs: Choice(values) for epochs, values in counts.items()}),
        "crop": Choice((0, 0, 2)),
        "flip": Choice((False, True)),
    }


def _attacks() -> dict[str, Distribution]:
    """More of the images are poisoned than the paper's 1%, so that most attacks work on some thousand images."""
    rates: dict[str, Choice | Uniform | LogUniform] = {name: Uniform(0.05, 0.12) for name in EVERY_ATTACK}
    rates |= {name: Uniform(0.08, 0.15) for name in (*BLENDS, "single-pixel", "warp", "all-to-all-patch")}
    rates |= {name: Uniform(0.4, 0.9) for name in CLEAN_LABEL}
    rates |= {CLEAN: Choice((0.0,)), LABEL_NOISE: Uniform(0.05, 0.15), TRIGGER_ONLY: Uniform(0.05, 0.12)}
    alphas = {name: Uniform(0.15, 0.3) if name in BLENDS else Choice((None,)) for name in rates}
    kinds = {count for values in CLASSES.values() for count in values}
    return {
        "attack": Choice((CLEAN,) * 8 + (*EVERY_ATTACK, LABEL_NOISE, LABEL_NOISE, TRIGGER_ONLY)),
        "poison_rate": Given("attack", rates),
        "alpha": Given("attack", alphas),
        "target": Given("classes", {count: Choice(tuple(range(count))) for count in kinds}),
    }
