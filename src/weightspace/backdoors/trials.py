"""Trained networks put to the test: accuracy, success of their attack, and what each neuron has to do with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.weights.neurons import group_starts, neuron_entries
from weightspace.weights.spec import NetworkSpec
from weightspace.zoo.networks import answers, build, named_arrays, spec_of
from weightspace.zoo.plan import ZooConfig, plan
from weightspace.zoo.poison import Poison
from weightspace.zoo.records import Architecture
from weightspace.zoo.training_images import Images

AT_ONCE = 16
"""Networks that answer together."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Images that a network is tried on, standardised as its training images were.

    Attributes:
        images: (b, c, h, w) without the trigger.
        labels: (b,) their classes.
        triggered: (b, c, h, w) the same images with the trigger.
        target: class that the trigger is to give.
    """

    images: Float[Tensor, "b c h w"]
    labels: Int[Tensor, " b"]
    triggered: Float[Tensor, "b c h w"]
    target: int

    @property
    def other(self) -> Bool[Tensor, " b"]:
        """Images of other classes than the target, of which success is the share that is answered as the target."""
        return self.labels != self.target


class Bench:
    """The images of a zoo, on which its networks are tried and trained further.

    Args:
        config: of the zoo; `data` says where its images lie.
    """

    def __init__(self, config: ZooConfig) -> None:
        self.plan = plan(config, 0)
        self.data = Images.of(self.plan, torch.device("cpu"))
        self.architecture: Architecture = self.plan.architecture
        self.spec: NetworkSpec = spec_of(self.architecture)
        self.module: nn.Module = build(self.architecture).eval().requires_grad_(False)

    def trial(self, poison: Poison, count: int, *, last: bool = False) -> Trial:
        """`count` of the test images in a random order, without and with the trigger of an attack.

        Args:
            last: the last ones in that order instead of the first: others, if there are enough.
        """
        order = np.random.default_rng(3).permutation(len(self.data.test))
        chosen = order[::-1][:count] if last else order[:count]
        rows = torch.from_numpy(np.sort(chosen))
        x, y = self.data.standardise(self.data.test[rows]), self.data.test_labels[rows]
        tampered = self.data.poisoned([replace(self.plan, poison=poison)]).tampered
        assert tampered is not None
        return Trial(x, y, tampered.trigger(x[None])[0], poison.target)

    def scores(self, flat: np.ndarray, trial: Trial) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy (n,) and success (n,) of networks of flat weights (n, size)."""
        found: list[tuple[Tensor, Tensor]] = []
        both = torch.cat([trial.images, trial.triggered[trial.other]])
        with torch.inference_mode():
            for block in np.array_split(np.ascontiguousarray(flat), -(-len(flat) // AT_ONCE)):
                said = answers(self.module, named_arrays(self.spec, torch.from_numpy(block)), both).argmax(2)
                plain, attacked = said[:, : len(trial.images)], said[:, len(trial.images) :]
                found.append(((plain == trial.labels).float().mean(1), (attacked == trial.target).float().mean(1)))
        accuracy, success = (torch.cat(part).double().numpy() for part in zip(*found, strict=True))
        return accuracy, success

    def effects(self, flat: np.ndarray, trial: Trial) -> np.ndarray:
        """How much removing each neuron, alone, lowers the success of the attack.

        Returns:
            (neurons of all groups,) in the order of `group_starts`; NaN for inputs and outputs.
        """
        neurons = hidden_neurons(self.spec)
        _, before = self.scores(flat[None], trial)
        _, after = self.scores(np.stack([pruned(self.spec, flat, [int(neuron)]) for neuron in neurons]), trial)
        found = np.full(group_starts(self.spec)[-1], np.nan)
        found[neurons] = before[0] - after
        return found

    def finetuned(
        self,
        flat: np.ndarray,
        *,
        count: int,
        epochs: int,
        rate: float,
        poison: Poison | None = None,
        seed: int = 0,
        batch_size: int = 50,
    ) -> np.ndarray:
        """A network trained further by Adam on `count` training images, clean or tampered with by an attack.

        Args:
            flat: (size,) its weights.
            count: training images, drawn by the seed.
            epochs: passes over them.
            rate: learning rate, constant.
        """
        rng = np.random.default_rng([seed, 4])
        chosen = rng.permutation(len(self.data.train))[:count]
        x = self.data.standardise(self.data.train[torch.from_numpy(chosen)])
        y = self.data.train_labels[torch.from_numpy(chosen)]
        if poison is not None:
            tampered = self.data.poisoned([replace(self.plan, poison=poison)]).tampered
            assert tampered is not None
            rows = torch.from_numpy(chosen)
            hit = tampered.member[0][rows][:, None, None, None]
            x, y = torch.where(hit, tampered.trigger(x[None])[0], x), tampered.labels[0][rows]
        module = build(self.architecture).train()
        arrays = named_arrays(self.spec, torch.from_numpy(flat[None].copy()))
        module.load_state_dict({name: array[0] for name, array in arrays.items()})
        optimiser = torch.optim.Adam(module.parameters(), lr=rate)
        for _ in range(epochs):
            order = torch.from_numpy(rng.permutation(len(x)))
            for start in range(0, len(x), batch_size):
                rows = order[start : start + batch_size]
                optimiser.zero_grad()
                F.cross_entropy(module(x[rows]), y[rows]).backward()
                optimiser.step()
        state = module.state_dict()
        return np.concatenate([state[leaf.name].numpy().reshape(-1) for leaf in self.spec.leaves]).astype(np.float32)


def hidden_neurons(spec: NetworkSpec) -> np.ndarray:
    """Numbers of the neurons that are neither inputs nor outputs, in the order of `group_starts`."""
    starts = group_starts(spec)
    return np.concatenate(
        [np.arange(starts[i], starts[i + 1]) for i, group in enumerate(spec.groups) if group.permutable]
    )


def pruned(spec: NetworkSpec, flat: np.ndarray, neurons: Iterable[int]) -> np.ndarray:
    """Flat weights (size,) without some neurons: all weights by which they are read are zero."""
    starts, result = group_starts(spec), flat.copy()
    wanted = set(neurons)
    for entries in neuron_entries(spec):
        if not entries.reads and entries.role in ("kernel", "embedding"):
            for i in range(len(entries.places)):
                if starts[entries.group] + i in wanted:
                    result[entries.places[i].reshape(-1)] = 0
    return result


def poison_of(row: Mapping[str, Any]) -> Poison:
    """The attack of a network, from its row in the zoo's index."""
    alpha = row["alpha"]
    return Poison(
        attack=str(row["attack"]),
        rate=float(row["poison_rate"]),
        alpha=None if alpha is None or alpha != alpha else float(alpha),
        target=int(row["target"]),
        seed=int(row["seed"]),
    )
