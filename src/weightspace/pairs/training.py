"""Strict interchange training: a network learns a program, S-op by S-op, each in a component of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from time import process_time

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from weightspace.pairs.answers import AnswerClasses
from weightspace.pairs.correspondence import Correspondence
from weightspace.pairs.counterfactuals import Counterfactuals, Places, rows_of
from weightspace.pairs.forward import interchanged
from weightspace.pairs.network import NetworkPlan, Weights, first_weights
from weightspace.rasp.batch import BatchValues

POOL = 64
"""Batches of examples that are drawn at a time."""
LOOK = 50
"""Steps between two looks at how good it is."""
SHARED = 2
"""Bases that have a source in common: who is a source costs as much as a base does."""
SHOWN = 128
"""Pairs for each component by which it is looked at."""
ENOUGH = 0.985
"""The least share of pairs, over components, with which training ends."""
HOPELESS = 0.5
"""With less after half of its steps training ends, too: it would not become sound."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network.

    Attributes:
        weights: by the names of `first_weights`.
        answer: what each logit stands for.
        steps: that it took.
        seconds: of one core.
        least: the lowest share of right pairs, over components, when it ended.
    """

    weights: Weights
    answer: AnswerClasses
    steps: int
    seconds: float
    least: float


@dataclass(frozen=True, eq=False)
class Examples:
    """Pairs of inputs with what is swapped, and what is right.

    Attributes:
        sources: (tokens, places, examples / r) 1 where an input has a token; the first place begins each input. Of each
            batch the first 1 / r examples have these sources, and the following ones the same again.
        bases: (tokens, places, examples).
        swaps: (components, places, examples).
        clean, expected: (places - 1, examples) the classes of the sources, and of the bases after the swaps.
    """

    sources: Float[Tensor, "tokens places sources"]
    bases: Float[Tensor, "tokens places examples"]
    swaps: Bool[Tensor, "components places examples"]
    clean: Int[Tensor, "answers sources"]
    expected: Int[Tensor, "answers examples"]

    def batch(self, number: int, size: int) -> Examples:
        """The examples of one step."""
        few = size * self.sources.shape[-1] // self.bases.shape[-1]
        start, first = number * size, number * few
        return self._part(slice(first, first + few), slice(start, start + size))

    def only(self, chosen: Int[Tensor, " some"]) -> Examples:
        """Some of examples that each have a source of their own."""
        return self._part(chosen, chosen)

    def _part(self, sources: Tensor | slice, bases: Tensor | slice) -> Examples:
        return Examples(
            self.sources[..., sources],
            self.bases[..., bases],
            self.swaps[..., bases],
            self.clean[:, sources],
            self.expected[:, bases],
        )


class Curriculum:
    """Examples of a program and a correspondence, on some of the inputs.

    Attributes:
        answer: the classes.
        rows: numbers of the inputs that are trained on.
    """

    def __init__(
        self,
        plan: NetworkPlan,
        correspondence: Correspondence,
        counterfactuals: Counterfactuals,
        answer: AnswerClasses,
        rows: Int[np.ndarray, " some"],
        random: np.random.Generator,
    ) -> None:
        self.plan, self.counterfactuals, self.rows, self.random = plan, counterfactuals, rows, random
        self.answer, self.correspondence = answer, correspondence
        numbers = {slot: number for number, slot in enumerate(plan.slots)}
        self.own = [numbers[correspondence.slots[name]] for name in counterfactuals.names]
        self.helping = {
            number: numbers[correspondence.helpers[name]]
            for number, name in enumerate(counterfactuals.names)
            if name in correspondence.helpers
        }
        self.free = [number for slot, number in numbers.items() if slot not in correspondence.used]
        self.clean = counterfactuals.labels(answer, counterfactuals.values[counterfactuals.output])

    def draw(self, batches: int) -> Examples:
        """Random examples, in half of which random free components are swapped too."""
        size = self.plan.batch
        count, few = batches * size, size // SHARED
        base, source, where = self.counterfactuals.draw(self.random, count, self.rows)
        sources = source[: batches * few].reshape(batches, few)
        strict = self.random.random((count, 1, 1)) < 0.5
        free = strict & (self.random.random((count, len(self.plan.slots), where.shape[2] + 1)) < 0.5)
        if self.plan.chained:
            labels = self._chained(base.reshape(batches, SHARED, few), sources, where)
        else:
            labels = self._labels(base, np.tile(sources, (1, SHARED)).ravel(), where)
        return self._examples(base, sources.ravel(), where, free, labels)

    def _chained(
        self, base: Int[np.ndarray, "batches times few"], source: Int[np.ndarray, "batches few"], where: Places
    ) -> Int[np.ndarray, "examples answers"]:
        """Classes where the second bases of each batch have the first ones, after their swaps, for their sources."""
        found = self.counterfactuals
        by_turn = where.reshape(*base.shape, *where.shape[1:])
        values: Mapping[str, BatchValues] = {name: rows_of(found.values[name], source.ravel()) for name in found.names}
        labels = []
        for turn in range(base.shape[1]):
            chosen = by_turn[:, turn].reshape(-1, *where.shape[1:])
            values = found.followed(base[:, turn].ravel(), values, chosen)
            labels.append(found.labels(self.answer, values[found.output]).reshape(len(base), base.shape[2], -1))
        return np.stack(labels, 1).reshape(-1, where.shape[2])

    def shown(self, count: int) -> list[Examples]:
        """For each S-op pairs whose answer changes where it is swapped, and pairs with free components swapped."""
        found = []
        names, length = self.counterfactuals.names, self.counterfactuals.codes.shape[1]
        nothing = np.zeros((1, len(self.plan.slots), length + 1), bool)
        for number in range(len(names)):
            base, source = self.rows[self.random.integers(0, len(self.rows), (2, 8 * count))]
            where = np.zeros((8 * count, len(names), length), bool)
            where[:, number] = self.random.random((8 * count, length)) < self.random.choice((0.5, 1), (8 * count, 1))
            each = self._examples(base, source, where, nothing, self._labels(base, source, where))
            changed = (each.expected != torch.from_numpy(self.clean[base].T)).any(0).nonzero()[:count, 0]
            if len(changed):
                found.append(each.only(changed))
        base, source = self.rows[self.random.integers(0, len(self.rows), (2, count))]
        where = np.zeros((count, len(names), length), bool)
        every = self.random.random((count, len(self.plan.slots), length + 1)) < 0.5
        return [*found, self._examples(base, source, where, every, self._labels(base, source, where))]

    def _labels(
        self, base: Int[np.ndarray, " examples"], source: Int[np.ndarray, " examples"], where: Places
    ) -> Int[np.ndarray, "examples answers"]:
        """Classes of the answers on bases after swaps."""
        return self.counterfactuals.labels(self.answer, self.counterfactuals.swapped(base, source, where))

    def _examples(
        self,
        base: Int[np.ndarray, " examples"],
        source: Int[np.ndarray, " sources"],
        where: Places,
        free: Bool[np.ndarray, "some components tokens"],
        labels: Int[np.ndarray, "examples answers"],
    ) -> Examples:
        """Examples of what is swapped by variable, and of free components."""
        count, _, length = where.shape
        swaps = np.zeros((count, len(self.plan.slots), length + 1), bool)
        swaps[:, self.free] = free[:, self.free]
        swaps[:, :, 0] = free[:, :, 0]  # where an input begins nothing is held
        for number, component in enumerate(self.own):
            swaps[:, component, 1:] = where[:, number]
            if number in self.helping:
                along = self.random.random((count, 1)) < 0.5
                swaps[:, self.helping[number], 1:] = where[:, number] & along
        return Examples(
            self._tokens(source),
            self._tokens(base),
            torch.from_numpy(swaps.transpose(1, 2, 0).copy()),
            torch.from_numpy(self.clean[source].T.copy()),
            torch.from_numpy(labels.T.copy()),
        )

    def _tokens(self, rows: Int[np.ndarray, " examples"]) -> Float[Tensor, "tokens places examples"]:
        codes = self.counterfactuals.codes[rows]
        begin = len(self.counterfactuals.program.vocab or ())
        numbers = np.insert(codes, 0, begin, 1).T
        return torch.from_numpy((np.arange(begin + 1)[:, None, None] == numbers).astype(np.float32))


def trained(curriculum: Curriculum, *, interchange: bool = True) -> Trained:
    """Train a network until every component does as it should, or its steps are over.

    Args:
        interchange: whether components are swapped; else the same network learns what the program answers, and that.
    """
    plan, began = curriculum.plan, process_time()
    vocabulary = len(curriculum.counterfactuals.program.vocab or ()) + 1
    places = curriculum.counterfactuals.codes.shape[1] + 1
    flat = _Flat(first_weights(plan, vocabulary, places, len(curriculum.answer.values)))
    optimiser = _optimiser(plan, flat)
    shown = curriculum.shown(SHOWN)
    least, step = 0.0, 0
    examples = curriculum.draw(POOL)
    while step < plan.steps:
        if step and step % POOL == 0:
            examples = curriculum.draw(POOL)
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * _height(step, plan.steps)
        optimiser.zero_grad()
        _loss(plan, flat.weights(), examples.batch(step % POOL, plan.batch), interchange).backward()
        torch.nn.utils.clip_grad_norm_([flat.matrices, flat.vectors], 1.0)
        optimiser.step()
        step += 1
        if step % LOOK == 0 or step == plan.steps:
            least = _least(plan, flat.weights(), shown, interchange)
            if least >= ENOUGH or (step >= plan.steps / 2 and least < HOPELESS):
                break
    found = {name: each.detach().clone() for name, each in flat.weights().items()}
    return Trained(found, curriculum.answer, step, process_time() - began, least)


class _Flat:
    """All matrices side by side in one vector and all biases in another: an optimiser's step is a few operations."""

    def __init__(self, weights: Weights) -> None:
        self.shapes = [
            {name: each.shape for name, each in weights.items() if (each.dim() > 1) is matrices}
            for matrices in (True, False)
        ]
        self.matrices, self.vectors = (
            torch.cat([weights[name].flatten() for name in shapes]).requires_grad_() for shapes in self.shapes
        )

    def weights(self) -> Weights:
        """Views of them by name."""
        found = {}
        for shapes, vector in zip(self.shapes, (self.matrices, self.vectors), strict=True):
            parts = vector.split([shape.numel() for shape in shapes.values()])
            found |= {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return found


def _optimiser(plan: NetworkPlan, flat: _Flat) -> torch.optim.Optimizer:
    groups = [
        {"params": [flat.matrices], "weight_decay": plan.weight_decay},
        {"params": [flat.vectors], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if plan.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)


def _height(step: int, steps: int) -> float:
    """The learning rate's share of the highest: up for 30 steps, then down to a tenth."""
    return min(1.0, (step + 1) / 30) * (0.1 + 0.9 * (1 + math.cos(math.pi * step / steps)) / 2)


def _loss(plan: NetworkPlan, weights: Weights, examples: Examples, interchange: bool) -> Tensor:
    """The cross-entropy of the answers of sources and of swapped bases; by behaviour alone, of both as they are."""
    if not interchange:
        logits = interchanged(plan, weights, examples.sources, None)[:, 1:]
        return functional.cross_entropy(logits.unsqueeze(0), examples.clean.unsqueeze(0))
    tokens = torch.cat([examples.sources, examples.bases], -1)
    logits = interchanged(plan, weights, tokens, examples.swaps, plan.chained)[:, 1:]
    wanted = torch.cat([examples.clean, examples.expected], -1)
    return functional.cross_entropy(logits.unsqueeze(0), wanted.unsqueeze(0))


@torch.no_grad()
def _least(plan: NetworkPlan, weights: Weights, shown: list[Examples], interchange: bool) -> float:
    """The lowest share of pairs, over components, with the right answer at every place; or of sources as they are."""
    lowest = 1.0
    for each in shown:
        if not interchange:
            right = interchanged(plan, weights, each.sources, None)[:, 1:].argmax(0) == each.clean
        else:
            tokens = torch.cat([each.sources, each.bases], -1)
            answers = interchanged(plan, weights, tokens, each.swaps)[:, 1:].argmax(0)
            right = (answers[:, -each.bases.shape[-1] :] == each.expected) | (each.expected < 0)
        lowest = min(lowest, float(right.all(0).float().mean()))
    return lowest
