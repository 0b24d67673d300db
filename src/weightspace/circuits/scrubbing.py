"""Causal scrubbing: everything that a hypothesis says does not matter is resampled, and the answer has to stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from weightspace.circuits.alignment import Alignment, Rows
from weightspace.circuits.hypothesis import Component, Hypothesis
from weightspace.circuits.readouts import same_answers
from weightspace.errors import NetworkError
from weightspace.evaluation.metrics import Tally
from weightspace.rasp.language import Expression, indices, tokens
from weightspace.transformers.places import Place, Replacement

INPUT = Component(Place("embed"))
"""What holds `tokens` where a hypothesis does not say."""


@dataclass(frozen=True)
class Scrubbing:
    """How often the answer stays what the program says when a hypothesis is scrubbed.

    Attributes:
        agreement: inputs on which it does, at all places at which something is asked.
        places: single places.
        untouched: inputs on which the transformer agrees with the program as it is.
    """

    agreement: Tally
    places: Tally
    untouched: Tally


def causal_scrubbing(
    alignment: Alignment, hypothesis: Hypothesis, *, rows: Rows | None = None, seed: int = 0
) -> Scrubbing:
    """Causal scrubbing (Chan et al., 2022) of a hypothesis, per input and never as a mean loss.

    What each located S-op holds is taken from runs on random inputs, in which the components of the located S-ops that
    it reads hold what they hold, scrubbed in turn, on inputs on which these S-ops have the right values. So it is
    resampled from equals along the program's graph:

    - a run for an S-op is a run on another input of the same length, drawn at random, which is what everything outside
      the hypothesis holds;
    - of an S-op that it reads, a component is given at each place what it holds there on an input, drawn anew for each
      reader and place, on which the S-op has the same value at that place;
    - every other located component holds what it holds on the random input, whatever was changed before it.

    The answer is read off such a run for the S-ops that make it. S-ops that are not located are not resampled: who
    reads them reads the located S-ops that they read.

    Args:
        alignment: of the hypothesis's program with the transformer.
        rows: numbers of the inputs; all unless given. Values are resampled among these.
    Raises:
        NetworkError: if the transformer has no such component, or only one input.
    """
    hypothesis.check(alignment.transformer.shape)
    rows = np.arange(len(alignment)) if rows is None else rows
    if len(rows) < 2:
        raise NetworkError("scrubbing needs at least two inputs")
    scrub = _Scrub(alignment, hypothesis, rows, np.random.default_rng(seed))
    given = scrub.answers()
    right = same_answers(alignment.expected[rows], given) | ~alignment.asked[rows]
    before = same_answers(alignment.expected[rows], alignment.answers(rows)) | ~alignment.asked[rows]
    return Scrubbing(
        Tally.of(np.asarray(right.all(1))),
        Tally.of(right[alignment.asked[rows]]),
        Tally.of(np.asarray(before.all(1))),
    )


class _Scrub:
    """What the located S-ops hold after scrubbing, in the program's order."""

    def __init__(
        self, alignment: Alignment, hypothesis: Hypothesis, rows: Rows, generator: np.random.Generator
    ) -> None:
        self.alignment, self.rows, self.generator = alignment, rows, generator
        self.components = {"tokens": INPUT} | {
            name: held for name, held in hypothesis.components.items() if name in alignment.values
        }
        self.bases = {name: component.basis for name, component in self.components.items()}
        program = alignment.program
        self.nodes: dict[str, Expression] = {"tokens": tokens, "indices": indices, **dict(program.statements)}
        self.names = {id(node): name for name, node in self.nodes.items()}
        self.held: dict[str, Tensor] = {}
        lengths = alignment.batch.lengths[rows]
        self.of_length = {length: np.flatnonzero(lengths == length) for length in np.unique(lengths).tolist()}
        self.lengths = lengths

    def answers(self) -> np.ndarray:
        """The answers of the scrubbed transformer, (rows, places)."""
        for name in self.nodes:
            if name not in self.components:
                continue
            if name in ("tokens", "indices"):
                self.held[name] = self._own(name, self.rows)
                continue
            base, replace = self._patched(self.read_by(name), name)
            self.held[name] = self.alignment.held(self.components[name], base, replace)
        wanted: set[str] = set()
        for name in self.alignment.readout.variables:
            wanted |= {name} if name in self.components else self.read_by(name)
        base, replace = self._patched(wanted, None)
        return self.alignment.answers(base, replace)

    def read_by(self, name: str) -> set[str]:
        """The located S-ops that an S-op reads, through selectors and S-ops that are not located."""
        found: set[str] = set()
        waiting = list(self.nodes[name].children)
        while waiting:
            child = waiting.pop()
            if self.names[id(child)] in self.components:
                found.add(self.names[id(child)])
            else:
                waiting += child.children
        return found

    def _patched(self, wanted: set[str], reader: str | None) -> tuple[Rows, _Replacing]:
        """Random inputs, and what is put into a run on them for a reader of some S-ops."""
        random = np.empty(len(self.rows), np.int64)
        for members in self.of_length.values():
            random[members] = self.generator.choice(members, len(members))
        base = self.rows[random]
        puts: dict[str, Tensor] = {}
        for name, component in self.components.items():
            if name in wanted:
                source = torch.from_numpy(self._equals(name))
                places = torch.arange(source.shape[1])
                puts[name] = self.held[name][source, places]
            elif component is not INPUT and name != reader:
                puts[name] = self._own(name, base)
        return base, _Replacing(self, base, puts)

    def _own(self, name: str, rows: Rows) -> Float[Tensor, "rows places size"]:
        """What a component holds in runs as they are."""
        held = self.alignment.activations(self.components[name].place)[torch.from_numpy(rows)]
        basis = self.bases[name]
        return held if basis is None else held @ basis

    def _equals(self, name: str) -> Int[np.ndarray, "rows places"]:
        """For each place of each input a row of an input, drawn at random, with the same value of an S-op there.

        Inputs are of one length where places see what comes after them, as that may matter.
        """
        alignment, offset = self.alignment, self.alignment.offset
        codes = alignment.values[name].codes[self.rows].astype(np.int64)
        found = np.repeat(np.arange(len(codes))[:, None], codes.shape[1] + offset, 1)
        lengths = np.zeros_like(self.lengths) if alignment.transformer.shape.causal else self.lengths
        for place in range(codes.shape[1]):
            here = np.flatnonzero(self.lengths > place)
            _, key = np.unique(np.stack([codes[here, place], lengths[here]]), axis=1, return_inverse=True)
            key = key.reshape(-1)
            order = np.argsort(key, kind="stable")
            first = np.searchsorted(key[order], key, "left")
            size = np.searchsorted(key[order], key, "right") - first
            drawn = first + (self.generator.random(len(here)) * size).astype(np.int64)
            found[here, place + offset] = here[order[drawn]]
        return found


class _Replacing:
    """Puts values into the components of S-ops, several at one place if need be."""

    def __init__(self, scrub: _Scrub, base: Rows, puts: Mapping[str, Tensor]) -> None:
        self.scrub, self.puts = scrub, puts
        self.real = scrub.alignment.present(base)
        self.real[:, : scrub.alignment.offset] = False

    def __call__(self, part: np.ndarray, length: int) -> Mapping[Place, Replacement]:
        chosen = torch.from_numpy(part)
        by_place: dict[Place, list[tuple[Tensor, Tensor | None]]] = {}
        for name, put in self.puts.items():
            place = self.scrub.components[name].place
            by_place.setdefault(place, []).append((put[chosen, :length], self.scrub.bases[name]))
        real = self.real[chosen, :length]
        return {place: _all_put(puts, real) for place, puts in by_place.items()}


def _all_put(puts: list[tuple[Tensor, Tensor | None]], real: Tensor) -> Replacement:
    """A replacement by coordinates along bases, or by whole values."""

    def put(value: Tensor) -> Tensor:
        for coordinates, basis in puts:
            change = coordinates - value if basis is None else (coordinates - value @ basis) @ basis.T
            value = value + change * real.unsqueeze(-1)
        return value

    return put
