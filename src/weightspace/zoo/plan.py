"""Hyperparameters: distributions to draw them from, and the plan of network i of a zoo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from weightspace.zoo.poison import Poison
from weightspace.zoo.records import TrainingPlan
from weightspace.zoo.store import split_of


@dataclass(frozen=True)
class Choice:
    """One of `values`, all equally likely."""

    values: tuple[Any, ...]

    def sample(self, rng: np.random.Generator, drawn: Mapping[str, Any]) -> Any:  # noqa: ARG002
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class Uniform:
    """A number uniform in [low, high)."""

    low: float
    high: float

    def sample(self, rng: np.random.Generator, drawn: Mapping[str, Any]) -> float:  # noqa: ARG002
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True)
class LogUniform:
    """A positive number whose logarithm is uniform between those of `low` and `high`."""

    low: float
    high: float

    def sample(self, rng: np.random.Generator, drawn: Mapping[str, Any]) -> float:  # noqa: ARG002
        return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))


@dataclass(frozen=True)
class Subset:
    """`count` different numbers from 0 to `of` - 1 in random order, all equally likely: classes in order of outputs."""

    count: int
    of: int

    def sample(self, rng: np.random.Generator, drawn: Mapping[str, Any]) -> tuple[int, ...]:  # noqa: ARG002
        return tuple(int(n) for n in rng.permutation(self.of)[: self.count])


@dataclass(frozen=True)
class Dirichlet:
    """`size` shares that sum to 1, from the symmetric Dirichlet distribution, rounded to a thousandth."""

    concentration: float
    size: int

    def sample(self, rng: np.random.Generator, drawn: Mapping[str, Any]) -> tuple[float, ...]:  # noqa: ARG002
        return tuple(round(float(x), 3) for x in rng.dirichlet([self.concentration] * self.size))


@dataclass(frozen=True)
class Given:
    """A distribution for each value of a hyperparameter drawn before: the learning rate given the optimiser."""

    on: str
    cases: Mapping[Any, Choice | Uniform | LogUniform | Subset]

    def sample(self, rng: np.random.Generator, drawn: Mapping[str, Any]) -> Any:
        return self.cases[drawn[self.on]].sample(rng, drawn)


Distribution = Choice | Uniform | LogUniform | Subset | Dirichlet | Given


@dataclass(frozen=True, kw_only=True)
class ZooConfig:
    """A whole zoo as data.

    Attributes:
        recipe: its name, for messages and for the zoo's description.
        count: number of networks.
        seed: of the zoo; together with a network's number it decides everything about it.
        family: base network, a name of `networks.FAMILIES`.
        images: image set, a name of `images.IMAGE_SETS`.
        data: folder in which the images are looked for first.
        image_size, image_channels, image_count: how the images are prepared; None leaves them as they are.
        space: what is drawn for each network, in this order. A name that the family's function knows is an option of
            the architecture; one that `TrainingPlan` knows sets that field; `images`, `image_size`, `image_channels`
            and `image_count` may be drawn too; and `attack`, `poison_rate`, `alpha` and `target` make up the network's
            `Poison`, whose seed is the network's.
        fixed: the same for all networks, with the same two kinds of names.
        architectural: names in `space` that a spec gives away by its very nature, such as the number of layers; they
            are labels that no task may ask for, and `zoo check` does not complain about them.
        family_size: so many networks in a row are one family: a parent, and children that are derived from it, all on
            one side of a split. 1 for none.
        derivations: how children are derived, one of these each.
        shard_size: networks a shard, the unit that is made anew after a kill; 0 chooses 16, or more for a zoo of more
            than 500 such shards.
    """

    recipe: str
    count: int
    seed: int = 0
    family: str
    images: str
    data: str | None = None
    image_size: int | None = None
    image_channels: int | None = None
    image_count: int | None = None
    space: Mapping[str, Distribution]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    architectural: tuple[str, ...] = ()
    family_size: int = 1
    derivations: tuple[tuple[str, ...], ...] = ()
    shard_size: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.shard_size < 0 or self.seed < 0 or self.count > 2**31:
            raise ValueError(
                f"a zoo of {self.count} networks with seed {self.seed} in shards of {self.shard_size} cannot be made: "
                "there must be at least 1 network, a seed of at least 0, and shards of at least 1 (0 chooses)"
            )
        if self.shard_size == 0:  # few files, however large the zoo: each mapped shard holds a file descriptor
            object.__setattr__(self, "shard_size", max(16, -(-self.count // 500)))

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the zoo's bytes; where the images lie does not."""
        record = asdict(self)
        record.pop("data")
        if self.family_size == 1:  # zoos that were made before there were families say nothing of them
            record.pop("family_size")
            record.pop("derivations")
        record["space"] = {name: _described(distribution) for name, distribution in self.space.items()}
        return record


def _described(distribution: Distribution) -> dict[str, Any]:
    """A distribution with its kind, and those inside it with theirs."""
    if isinstance(distribution, Given):
        cases = {str(value): _described(case) for value, case in distribution.cases.items()}
        return {"kind": "Given", "on": distribution.on, "cases": cases}
    return {"kind": type(distribution).__name__, **asdict(distribution)}


_DECIDED = {
    "network",
    "seed",
    "split",
    "architecture",
    "hyperparameters",
    "data",
    "image_size",
    "image_channels",
    "image_count",
    "poison",
    "parent",
    "derivation",
}
_POISON = {"attack": "attack", "poison_rate": "rate", "alpha": "alpha", "target": "target"}
"""Fields of a `Poison` by the names they have among hyperparameters."""
_IMAGE_SHAPE = ("image_size", "image_channels", "image_count")
_PLAN_FIELDS = frozenset(TrainingPlan.__dataclass_fields__) - _DECIDED


def plan(config: ZooConfig, network: int) -> TrainingPlan:
    """What network number `network` of the zoo is to be: a pure function of configuration, zoo seed and number."""
    from weightspace.zoo.networks import architecture_of

    if network % config.family_size:
        return _child(config, network)
    rng = np.random.default_rng([config.seed, network])
    drawn: dict[str, Any] = {}
    for name, distribution in config.space.items():
        drawn[name] = distribution.sample(rng, drawn)
    settings = {"images": config.images, **config.fixed, **drawn}
    seed = _seed(config.seed, network)
    poison = {_POISON[name]: settings.pop(name) for name in _POISON if name in settings}
    if poison and "attack" not in poison:
        raise ValueError(f"a zoo with {', '.join(poison)} and no attack cannot be: add `attack` to its space or fixed")
    shape = {name: settings.pop(name, getattr(config, name)) for name in _IMAGE_SHAPE}
    fields = {name: value for name, value in settings.items() if name in _PLAN_FIELDS}
    options = {name: value for name, value in settings.items() if name not in _PLAN_FIELDS}
    if fields.get("classes") is not None:  # a choice of classes decides the outputs too
        options["classes"] = fields["classes"]
    if fields.get("class_subset") is not None:
        options["classes"] = len(fields["class_subset"])
    return TrainingPlan(
        network=network,
        seed=seed,
        split=split_of(network // config.family_size, config.seed),
        data=config.data,
        architecture=architecture_of(config.family, _input_shape(config, fields["images"], **shape), **options),
        poison=Poison(**poison, seed=seed) if poison else None,
        hyperparameters={**drawn, "parent": network, "derivation": ""} if config.family_size > 1 else drawn,
        **shape,
        **fields,
    )


def _child(config: ZooConfig, network: int) -> TrainingPlan:
    """A network that is derived from the first of its family: with images of its own, at a lower rate, for less long.

    Only those that are retargeted or distilled train as long and at the same rate as their parent did, and the former
    on classes of their own.
    """
    parent = plan(config, network - network % config.family_size)
    rng = np.random.default_rng([config.seed, network])
    derivation = config.derivations[int(rng.integers(len(config.derivations)))]
    anew = bool({"retarget", "distil"} & set(derivation))
    classes = parent.class_subset
    subset = config.space.get("class_subset")
    if "retarget" in derivation and subset is not None:
        classes = subset.sample(rng, parent.hyperparameters)
    rate = parent.learning_rate * (1.0 if anew else float(np.exp(rng.uniform(np.log(0.1), np.log(0.5)))))
    epochs = parent.epochs if anew else max(1, parent.epochs // 2)
    drawn = {**parent.hyperparameters, "parent": parent.network, "derivation": "+".join(derivation)}
    own = {"class_subset": classes, "learning_rate": rate, "epochs": epochs}
    return replace(
        parent,
        network=network,
        seed=_seed(config.seed, network),
        hyperparameters={**drawn, **{name: value for name, value in own.items() if name in drawn}},
        parent=parent,
        derivation=derivation,
        checkpoints=(),
        **own,
    )


def _seed(zoo_seed: int, network: int) -> int:
    """The seed of a network, 0 to 2^31 - 1: no two networks of a zoo share one, as drawn numbers sooner or later do."""
    start = int(np.random.default_rng([zoo_seed, 0x5EED]).integers(2**31))
    seed = (start + network) % 2**31
    for multiplier in (0x2C1B3C6D, 0x297A2D39):  # odd factors and xor-shifts are one to one
        seed = ((seed ^ (seed >> 15)) * multiplier) % 2**31
    return seed ^ (seed >> 15)


def _input_shape(
    config: ZooConfig, images: str, image_size: int | None, image_channels: int | None, **_: int | None
) -> tuple[int, int, int]:
    """(channels, height, width) of the images after they are prepared."""
    from weightspace.zoo.images.loading import image_shape

    channels, height, width = image_shape(images, config.data)
    return image_channels or channels, image_size or height, image_size or width
