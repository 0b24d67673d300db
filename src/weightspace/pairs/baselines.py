"""What a component does without any training: by attribution, by S-ops of a pool, and by swaps of a known program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.circuits.alignment import Alignment
from weightspace.circuits.attribution import edge_attribution
from weightspace.circuits.hypothesis import Component
from weightspace.circuits.interchanging import draw_pairs, interchange_accuracy
from weightspace.errors import RaspError
from weightspace.pairs.correspondence import Correspondence, Slot, operations, reads
from weightspace.pairs.counterfactuals import Counterfactuals
from weightspace.rasp.batch import Batch
from weightspace.rasp.batch_interpreter import evaluate_swapped
from weightspace.rasp.canonical import canonical_program
from weightspace.rasp.functions import Value, is_number
from weightspace.rasp.language import Aggregate
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample

POOLED = 400
"""Programs of `typed` whose S-ops are the candidates."""
CLOSE = 0.005
"""Candidates that explain as much, but for this share, are alike: the simplest counts."""


def attributed(
    aligned: Alignment, slots: Sequence[Slot], *, steps: int = 0, pairs: int = 64, seed: int = 0
) -> np.ndarray:
    """Of each component how much its edges matter to the answer, to first order (EAP; with steps EAP-IG)."""
    base, source = np.random.default_rng(seed).integers(0, len(aligned), (2, pairs))
    with torch.no_grad():
        first = aligned.transformer.run(aligned.tokens[base]).logits.argmax(-1, keepdim=True)

    def metric(logits: Tensor) -> Float[Tensor, " batch"]:
        return logits.log_softmax(-1).gather(-1, first[: len(logits)])[:, aligned.offset :, 0].sum(1)

    found = edge_attribution(aligned.transformer, aligned.tokens[base], aligned.tokens[source], metric, steps=steps)
    scores = found.scores.abs().sum(1)
    names = [f"a{slot.layer}.h{slot.head}" if slot.is_head else f"m{slot.layer}" for slot in slots]
    return np.array([float(scores[found.graph.sources.index(name)]) for name in names])


@dataclass(frozen=True, eq=False)
class CandidateSOps:
    """Different S-ops and what they are on some inputs.

    Attributes:
        kinds: of each, the name of its operation.
        depths: operations of each.
        values: (inputs * places, S-ops), standardised.
    """

    kinds: tuple[str, ...]
    depths: np.ndarray
    values: Float[np.ndarray, "rows candidates"]


@lru_cache(2)
def candidate_s_ops(vocab: tuple[Value, ...], length: int, inputs: tuple[tuple[Value, ...], ...]) -> CandidateSOps:
    """S-ops of programs that are drawn of `typed`, each that differs from the others up to scale."""
    batch = Batch.of(inputs, vocab)
    found: dict[bytes, tuple[int, str, np.ndarray]] = {}
    for drawn in islice(sample("typed", 1, range(3, 7)), POOLED):
        program = canonical_program(drawn.meant_for(vocab, length))
        for name, node in operations(program).items():
            try:
                given = evaluate_swapped(program, batch, {}, [name])[name]
            except RaspError:
                continue
            if not all(map(is_number, given.values)) or (given.codes < 0).any():
                continue
            column = given.numbers().ravel()
            if column.std() < 1e-9:
                continue
            column = (column - column.mean()) / column.std()
            column = column * np.sign(column[np.flatnonzero(column)[0]])
            depth = len(operations(Program.of(node, vocab=vocab, max_seq_len=length)))
            key = np.round(column, 5).tobytes()
            if key not in found or depth < found[key][0]:
                found[key] = (depth, type(node).__name__, column)
    entries = sorted(found.values(), key=lambda each: each[0])
    depths = np.array([entry[0] for entry in entries])
    return CandidateSOps(tuple(entry[1] for entry in entries), depths, np.stack([entry[2] for entry in entries], 1))


def kinds_by_regression(aligned: Alignment, slots: Sequence[Slot], candidates: CandidateSOps) -> list[str]:
    """Of each component the kind of the candidate that its output explains best, the simplest of equals.

    A head is compared with what heads compute, and an MLP with the rest.
    """
    heads = np.array([kind == Aggregate.__name__ for kind in candidates.kinds])
    found = []
    for slot in slots:
        held = aligned.activations(slot.place)[:, aligned.offset :].double().flatten(0, 1).numpy()
        held = held - held.mean(0)
        left, values, _ = np.linalg.svd(held, full_matrices=False)
        basis = left[:, values > 1e-4 * max(values[0], 1e-9)]
        explained = ((basis.T @ candidates.values) ** 2).sum(0) / len(held)
        explained[heads != slot.is_head] = -1.0
        close = np.flatnonzero(explained >= explained.max() - CLOSE)
        found.append(candidates.kinds[close[np.argmin(candidates.depths[close])]])
    return found


def assigned(aligned: Alignment, slots: Sequence[Slot], *, pairs: int = 64, seed: int = 0) -> dict[str, Slot]:
    """For each S-op of a known program the component with the highest interchange accuracy that can hold it.

    S-ops are placed in the program's order, each behind what it reads; of equals the first component is taken.
    """
    program, found = aligned.program, dict[str, Slot]()
    before = reads(program)
    for name, node in operations(program).items():
        drawn = draw_pairs(aligned, name, count=pairs, seed=seed)
        fitting = [
            slot
            for slot in slots
            if slot.is_head == isinstance(node, Aggregate)
            and slot not in found.values()
            and all(_sees(slot, found[other]) for other in before[name])
        ]
        shares = [interchange_accuracy(aligned, Component(slot.place), drawn).share or 0.0 for slot in fitting]
        if not fitting:
            break
        found[name] = fitting[int(np.argmax(np.array(shares) >= max(shares) - 0.01))]
    return found


def _sees(reader: Slot, writer: Slot) -> bool:
    return writer.layer < reader.layer or (writer.layer == reader.layer and writer.is_head and not reader.is_head)


def inputs_of(correspondence: Correspondence, count: int, seed: int = 0) -> list[tuple[Value, ...]]:
    """Some inputs of a program, the same for all programs of one vocabulary and length."""
    every = Counterfactuals.of(correspondence.program).inputs
    order = np.random.default_rng(seed).permutation(len(every))[:count]
    return [every[row] for row in np.sort(order).tolist()]
