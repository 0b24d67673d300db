"""Numbers that describe each component of a transformer: from its weights, and from what it does on some inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from weightspace.circuits.alignment import Alignment
from weightspace.circuits.hypothesis import Component
from weightspace.circuits.readouts import same_answers
from weightspace.pairs.component_graph import TINY, ComponentGraph
from weightspace.pairs.correspondence import Slot

Table = Float[np.ndarray, "components columns"]
HEAD_PORTS = ("query", "key", "value")


def weight_columns(graph: ComponentGraph) -> Table:
    """One row a component, of weights alone.

    Heads and MLPs have the same columns; what one of them lacks is 0. Logarithms are taken less their median over the
    network's components of the same kind, so that a network's scale says nothing.
    """
    rows = [[float(value) for value in _row(graph, slot)] for slot in graph.slots]
    table = np.array(rows)
    heads = np.array([slot.is_head for slot in graph.slots])
    for kind in (heads, ~heads):
        table[kind, :SCALES] -= np.median(table[kind, :SCALES], 0)
    return table


SCALES = 15
"""The first columns are logarithms of scales."""


def _row(graph: ComponentGraph, slot: Slot) -> list[float]:
    row = graph.writers.index(slot)
    mine = [number for number, (reader, _) in enumerate(graph.readers) if reader == slot]
    ports = {graph.readers[number][1]: number for number in mine}
    heads = [number for number, writer in enumerate(graph.writers) if writer is not None and writer.is_head]
    mlps = [number for number, writer in enumerate(graph.writers) if writer is not None and not writer.is_head]
    flow = graph.flow
    scales = [_log(graph.written[row]), _log(flow[row]), *(_log(graph.strength[row, n]) for n in _later(graph))]
    shares = []
    for port in (*HEAD_PORTS, "mlp"):
        number = ports.get(port)
        if number is None:
            scales += [0.0, 0.0, 0.0]
            shares += [0.0] * 8
            continue
        column = graph.strength[:, number] ** 2
        total = float(column.sum()) + TINY
        inside = (column[:2], column[heads], column[mlps])
        scales += [_log(column.sum().sqrt()), _log(column[:2].sum().sqrt()), _log((column * flow).sum().sqrt())]
        shares += [float(part.sum()) / total for part in inside]
        shares += [float(part.max()) / total if len(part) else 0.0 for part in inside]
        shares += [float(column[0]) / total, float((column**2).sum()) / total**2]
    later = _outgoing(graph, row)
    patterns = _patterns(graph, slot) if slot.is_head else [0.0] * 10
    where = [slot.layer / max(1, graph.slots[-1].layer), float(slot.is_head)]
    return [*scales, *shares, *later, float(graph.ranks[row]), *patterns, *where]


def _later(graph: ComponentGraph) -> list[int]:
    """The reader of the answer, and those of the strongest ports of later components are summed elsewhere."""
    return [len(graph.readers) - 1]


def _outgoing(graph: ComponentGraph, row: int) -> list[float]:
    """Of what each port of later components reads the share that comes from here: the largest, and weighted by flow."""
    squared = graph.strength**2
    shares = squared[row] / (squared.sum(0) + TINY)
    position = {slot: number for number, slot in enumerate(graph.writers) if slot is not None}
    found = []
    for port in (*HEAD_PORTS, "mlp", "answer"):
        numbers = [number for number, (_, name) in enumerate(graph.readers) if name == port]
        some = shares[numbers]
        weight = torch.stack(
            [
                torch.ones(()) if slot is None else graph.flow[position[slot]]
                for slot, _ in (graph.readers[number] for number in numbers)
            ]
        )
        found += [float(some.max()), float((some * weight).max())]
    return found


def _patterns(graph: ComponentGraph, slot: Slot) -> list[float]:
    """What a head's scores between tokens, and between places, look like: equal, before, behind, flat."""
    number = [each for each in graph.slots if each.is_head].index(slot)
    found = []
    for scores in (graph.tokens[number], graph.places[number]):
        size = len(scores)
        order = torch.arange(size)
        norm = float(scores.norm()) + TINY
        patterns = (
            torch.eye(size),
            (order[None] < order[:, None]).float(),
            (order[None] == order[:, None] - 1).float(),
        )
        for pattern in patterns:
            pattern = pattern - pattern.mean(1, keepdim=True)
            found.append(float((scores * pattern).sum() / (norm * float(pattern.norm()) + TINY)))
        found += [float((scores - scores.mean(0)).norm()) / norm, float(np.log(norm))]
    return found


def _log(value: torch.Tensor) -> float:
    return float(torch.log(value + 1e-6))


def activation_columns(aligned: Alignment, slots: Sequence[Slot], *, pairs: int = 128, seed: int = 0) -> Table:
    """One row a component, of what it does on some inputs; what is right is not asked.

    How far its output varies; how much of that its own token and place explain, alone and together, and the mean of the
    input's tokens; in how many clusters it comes; and how often answers change where it is resampled.
    """
    random = np.random.default_rng(seed)
    base, source = random.integers(0, len(aligned), (2, pairs))
    where = aligned.common(base, source)
    before = aligned.answers(base)
    tokens = aligned.batch.codes
    designs = _designs(tokens, len(aligned.batch.vocab))
    rows = []
    for slot in slots:
        held = aligned.activations(slot.place)[:, aligned.offset :].double().flatten(0, 1).numpy()
        held = held - held.mean(0)
        whole = float((held**2).sum())
        explained = [_explained(held, design, whole) for design in designs]
        given = aligned.swapped_answers(Component(slot.place), base, source, where)
        changed = float((~same_answers(before, given)).any(1).mean())
        values = np.linalg.svd(held, compute_uv=False) ** 2
        share = values / (values.sum() + TINY)
        rank = float(1 / ((share**2).sum() + TINY))
        scale = whole / (len(held) or 1)
        rows.append([changed, np.log(scale + 1e-6), *explained, rank, float(share[:1].sum()), float(share[:2].sum())])
    return np.array(rows)


def _designs(tokens: np.ndarray, vocabulary: int) -> list[np.ndarray]:
    """What an output is explained by: token, place, both, the input's counts, counts and token."""
    count, length = tokens.shape
    own = np.eye(vocabulary)[tokens.ravel()]
    place = np.tile(np.eye(length), (count, 1))
    both = (own[:, :, None] * place[:, None, :]).reshape(len(own), -1)
    counts = np.repeat(np.eye(vocabulary)[tokens].sum(1), length, 0)
    crossed = (own[:, :, None] * counts[:, None, :]).reshape(len(own), -1)
    return [own, place, np.concatenate([own, place], 1), both, counts, np.concatenate([both, counts], 1), crossed]


def _explained(held: np.ndarray, design: np.ndarray, whole: float) -> float:
    basis = _basis(design - design.mean(0))
    return float(((basis.T @ held) ** 2).sum()) / (whole + TINY)


def _basis(matrix: np.ndarray) -> np.ndarray:
    """Orthonormal columns of a matrix's range."""
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    return left[:, values > 1e-8 * (values[0] if len(values) else 1)]
