"""Where the boxes and the arrows of a graph stand: in rows by depth, few arrows crossing, no two boxes too close."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from weightspace.rasp.compiler.figure import LETTER
from weightspace.rasp.compiler.graph import GraphNode

SIZE = 9
"""Of the letters in boxes, in points."""
LINE, PAD, GAP, BETWEEN, THREAD = 0.165, 0.1, 0.5, 0.3, 0.16
"""In inches: a line of text, the space around it, between rows, between boxes, and for an arrow that passes a row."""


class Item(NamedTuple):
    """What takes room in a row of the picture: a node's box, or an arrow on its way to a deeper row.

    Attributes:
        node: None for an arrow.
        lines: of text.
        width, height: in inches.
    """

    node: GraphNode | None
    lines: tuple[str, ...]
    width: float
    height: float


def rows_of(nodes: Sequence[GraphNode]) -> tuple[list[Item], list[list[int]], list[tuple[int, int]]]:
    """What stands in each row, and which items of neighbouring rows are linked, the upper one first."""
    items = [_item(node) for node in nodes]
    rows: list[list[int]] = [[] for _ in range(max(node.depth for node in nodes) + 1)]
    place = {node.variable: i for i, node in enumerate(nodes)}
    for i, node in enumerate(nodes):
        rows[node.depth].append(i)
    links: list[tuple[int, int]] = []
    passing: dict[tuple[str, int], int] = {}  # arrows from one node share their way down
    for i, node in enumerate(nodes):
        for source in dict.fromkeys(node.reads):
            above = place[source]
            for depth in range(nodes[above].depth + 1, node.depth):
                if (source, depth) not in passing:
                    passing[source, depth] = len(items)
                    rows[depth].append(len(items))
                    items.append(Item(None, (), THREAD, 0.0))
                    links.append((place[source] if depth == nodes[place[source]].depth + 1 else above, len(items) - 1))
                above = passing[source, depth]
            links.append((above, i))
    return items, rows, links


def _item(node: GraphNode) -> Item:
    wrapped = textwrap.wrap(node.call, 36, max_lines=4, placeholder=" ...", break_long_words=True)
    lines = (node.variable, *wrapped, *([node.about] if node.kind != "selector" else []))
    inside = max(map(len, lines)) * LETTER * SIZE
    # a selector's corners take room at both ends
    return Item(node, lines, inside + 2 * PAD + (0.3 if node.kind == "selector" else 0.1), len(lines) * LINE + 2 * PAD)


def ordered(rows: list[list[int]], links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Each row in an order in which few arrows cross: sorted by the mean place of its neighbours, down and up again."""
    above, below = neighbours(links)
    best, fewest = rows, _crossings(rows, links)
    rows = [list(row) for row in rows]
    for sweep in range(24):
        down = sweep % 2 == 0
        for number in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            beside = rows[number - 1 if down else number + 1]
            place = {i: position for position, i in enumerate(beside)}
            near = above if down else below
            own = {i: position for position, i in enumerate(rows[number])}
            rows[number].sort(key=lambda i: _mean([place[j] for j in near.get(i, ())], own[i]))
        count = _crossings(rows, links)
        if count < fewest:
            best, fewest = [list(row) for row in rows], count
    return best


def _mean(values: Sequence[int], otherwise: int) -> float | int:
    return sum(values) / len(values) if values else otherwise


def _crossings(rows: Sequence[Sequence[int]], links: Sequence[tuple[int, int]]) -> int:
    place = {i: (number, position) for number, row in enumerate(rows) for position, i in enumerate(row)}
    by_row: dict[int, list[tuple[int, int]]] = {}
    for upper, lower in links:
        by_row.setdefault(place[upper][0], []).append((place[upper][1], place[lower][1]))
    pairs = ((a, b) for ends in by_row.values() for k, a in enumerate(ends) for b in ends[:k])
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in pairs)


def centres_of(items: Sequence[Item], rows: Sequence[Sequence[int]], links: Sequence[tuple[int, int]]) -> list[float]:
    """The middle of each item from left to right: near its neighbours, and no two too close."""
    above, below = neighbours(links)
    centre = [0.0] * len(items)
    steps = []
    for row in rows:
        step = [(items[a].width + items[b].width) / 2 + BETWEEN for a, b in pairwise(row)]
        steps.append(np.array([0.0, *accumulate(step)]))
        for i, position in zip(row, steps[-1] - steps[-1][-1] / 2, strict=True):
            centre[i] = float(position)
    for sweep in range(200):
        order = range(len(rows)) if sweep % 2 == 0 else range(len(rows) - 1, -1, -1)
        for number in order:
            wanted, weights = [], []
            for i in rows[number]:
                near = [*above.get(i, ()), *below.get(i, ())]
                # an arrow that passes many rows is straight there, and bends at its ends
                pull = [8.0 if items[i].node is items[j].node is None else 1.0 for j in near]
                total = sum(p * centre[j] for p, j in zip(pull, near, strict=True))
                wanted.append(total / sum(pull) if near else centre[i])
                weights.append(sum(pull, 0.1))
            for i, position in zip(rows[number], _apart(wanted, weights, steps[number]), strict=True):
                centre[i] = position
    return centre


def _apart(wanted: Sequence[float], weights: Sequence[float], steps: np.ndarray) -> list[float]:
    """The places nearest to the wanted ones, in squares, that are as far apart as `steps` says."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members: neighbours that would overlap move as one
    for place, weight, step in zip(wanted, weights, steps, strict=True):
        blocks.append((place - step, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (a, u, m), (b, v, n) = blocks[-2:]
            blocks[-2:] = [((a * u + b * v) / (u + v), u + v, m + n)]
    moved = [mean for mean, _, members in blocks for _ in range(members)]
    return [float(mean + step) for mean, step in zip(moved, steps, strict=True)]


def neighbours(links: Iterable[tuple[int, int]]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """What each item is linked with in the row above it, and in the row below it."""
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for upper, lower in links:
        above.setdefault(lower, []).append(upper)
        below.setdefault(upper, []).append(lower)
    return above, below
