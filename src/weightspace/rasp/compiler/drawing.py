"""Pictures of a program: its computational graph, and its residual stream with named directions."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.compiler.transformer import CompiledTransformer, Directions
from weightspace.rasp.functions import Value
from weightspace.rasp.language import Encoding, Expression, Selector, SOp, indices, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.validate import Mode, analyse, settings

FORMATS = ("png", "svg")
# Blue and orange of Okabe and Ito's palette, as in the reports: told apart with every kind of colour blindness.
COLOURS = {
    "ink": "#1b1f24",
    "muted": "#59636e",
    "line": "#aab2bb",
    "accent": "#0072b2",
    "second": "#d55e00",
    "input": "#dcebf5",
    "selector": "#fbe6d8",
    "paper": "#ffffff",
}
FONT = "DejaVu Sans Mono"
"""It comes with matplotlib; all its letters are equally wide, so that boxes can be made to fit."""
LETTER = 0.602 / 72
"""Width of a letter in inches, for each point of its size."""


# -- the graph as data and as text -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class GraphNode:
    """A node of a program's computational graph.

    Attributes:
        variable: its name; `tokens` and `indices` are called that.
        call: what the program text says of it, such as `Map(x + 1, tokens)`; "" for an input.
        kind: what it is.
        depth: nodes on the longest way to it from the inputs, which have depth 0.
        reads: variables.
        encoding: of an S-op.
        values: what an S-op can be; None if that is not known.
        needed: whether the output depends on it.
        is_output: whether it is the output.
    """

    variable: str
    call: str
    kind: Literal["input", "S-op", "selector"]
    depth: int
    reads: tuple[str, ...]
    encoding: Encoding | None
    values: tuple[Value, ...] | None
    needed: bool
    is_output: bool

    @property
    def about(self) -> str:
        """Its encoding and its values, in a few words."""
        if self.kind == "selector":
            return "selector"
        if self.values is None:
            return str(self.encoding)
        count = len(self.values)
        return f"{self.encoding}, {count} value{'' if count == 1 else 's'}"


def graph(program: Program) -> list[GraphNode]:
    """The computational graph, by depth and then alphabetically (Langosco et al., Figure 12); inputs first.

    Statements that the output does not need are listed too. An input that nothing reads is not.
    """
    count = len(program.statements)
    lines = str(program).splitlines()[-1 - count : -1]
    calls = [line.split(" = ", 1)[1] for line in lines]
    values = _values(program)
    needed = {id(node) for node in program.nodes}
    depths: dict[int, int] = {id(tokens): 0, id(indices): 0}
    read = {id(child) for _, node in program.statements for child in node.children} | {id(program.output)}
    found = []
    inputs: list[tuple[str, Expression]] = [("tokens", tokens), ("indices", indices)]
    statements = [entry for entry in inputs if id(entry[1]) in read] + list(program.statements)
    for (name, node), call in zip(statements, [""] * (len(statements) - count) + calls, strict=True):
        if id(node) not in depths:
            depths[id(node)] = 1 + max(depths[id(child)] for child in node.children)
        found.append(
            GraphNode(
                variable=name,
                call=call,
                kind="input" if not call else "selector" if isinstance(node, Selector) else "S-op",
                depth=depths[id(node)],
                reads=tuple(program.name(child) for child in node.children),
                encoding=node.encoding if isinstance(node, SOp) else None,
                values=values.get(id(node)),
                needed=id(node) in needed,
                is_output=node is program.output,
            )
        )
    return sorted(found, key=lambda node: (node.depth, node.call, node.variable != "tokens"))


def _values(program: Program) -> dict[int, tuple[Value, ...]]:
    """What each S-op can be, by its `id`; without those of which it cannot be said."""
    try:
        vocab, length = settings(program, None, None)
    except RaspError:
        return {}
    return {key: known.values.values for key, known in analyse(program, vocab, length, "fixed").traits.items()}


def graph_text(program: Program) -> str:
    """The computational graph for a terminal: a line for each node, by depth, with what it reads and can be."""
    nodes = graph(program)
    said = [_shortened(f"{node.variable} = {node.call}" if node.call else node.variable, 64) for node in nodes]
    width = max(map(len, said))
    lines, depth = [], -1
    for node, text in zip(nodes, said, strict=True):
        head = f"depth {node.depth}" if node.depth != depth else ""
        depth = node.depth
        about = node.about
        if node.values is not None and node.kind != "selector":
            about += f": {_listed(node.values)}"
        if node.is_output:
            about += "  <- output"
        elif not node.needed:
            about += "  (the output does not need it)"
        lines.append(f"{head:<9} {text:<{width}}  {about}")
    return "\n".join(lines)


def _listed(values: Sequence[Value], most: int = 36) -> str:
    """The values in few letters: the first of them and the last."""
    texts = [_shortened(_written(value), 20) for value in values]
    if len(", ".join(texts)) <= most:
        return ", ".join(texts)
    first = texts[:-1]
    while len(first) > 1 and len(", ".join([*first, "...", texts[-1]])) > most:
        first.pop()
    return ", ".join([*first, "...", texts[-1]])


def _written(value: Value) -> str:
    return f"{value + 0.0:.4g}" if isinstance(value, float) else repr(value)  # -0.0 is shown as 0


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def direction_names(program: Program, transformer: CompiledTransformer) -> dict[str, str]:
    """The variable of the program that each group of directions belongs to, by the group's label.

    Args:
        transformer: compiled from this program.
    """
    from weightspace.rasp.compiler.assemble import direction_labels

    fixed: Mode = "tracr_compat" if transformer.mode == "tracr_compat" else "fixed"
    analysis = analyse(program, transformer.vocab, transformer.max_seq_len, fixed)
    operations = [known for known in analysis.traits.values() if known.depth]
    labels = direction_labels(program, operations, fixed == "fixed")
    return {labels[id(known.node)]: program.name(known.node) for known in operations}


def named(group: Directions, names: Mapping[str, str]) -> tuple[str, ...]:
    """The name of each direction of a group, with the program's variables in the place of the compiler's labels.

    Args:
        names: from `direction_names`; may be empty.
    """
    label = group.label
    for known in sorted(names, key=len, reverse=True):  # what a label begins with may be another label
        if label == known or label.startswith((f"{known}_selector_width_attn", f"{known}_none")):
            label = names[known] + label.removeprefix(known)
            break
    return group._replace(label=label).names


def transformer_text(transformer: CompiledTransformer, names: Mapping[str, str] | None = None) -> str:
    """The sizes of a transformer and its named directions by group, for a terminal.

    Args:
        names: what to call the groups, from `direction_names`; by default as the transformer does.
    """
    c = transformer.configuration
    lines = [
        f"{_counted(c.num_layers, 'layer')}, {_counted(c.num_heads, 'head')} of {c.key_size} a layer, "
        f"{_counted(c.mlp_hidden_size, 'hidden unit')} an MLP, residual width {transformer.layout.width}, "
        f"{len(transformer):,} parameters, {len(transformer.places):,} of them not zero ({transformer.mode})"
    ]
    groups = transformer.directions
    called = [named(group._replace(values=None), names or {})[0] for group in groups]
    width = max(map(len, called))
    for group, name in zip(groups, called, strict=True):
        label = "" if name == group.label else f"  ({group.label})"
        values = "a number" if group.values is None else _listed(group.values)
        lines.append(f"  {name:<{width}}  {group.size:>5}  {values}{label}")
    return "\n".join(lines)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def trace_text(values: Mapping[str, Sequence[Any]]) -> str:
    """What every variable gives on one input, for a terminal: a column for each place.

    A selector has a row for each query, which marks the keys that it selects.

    Args:
        values: from `interpreter.trace`.
    """
    rows: list[tuple[str, str, list[str]]] = []
    places = [_short(token) for token in values["tokens"]]
    for name, given in values.items():
        if given and isinstance(given[0], list):
            for number, row in enumerate(given):
                marks = ["x" if selected else "." for selected in row]
                rows.append((name if number == 0 else "", places[number], marks))
        else:
            rows.append((name, "", ["-" if value is None else _short(value) for value in given]))
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    cell = max((len(text) for _, _, texts in rows for text in texts), default=1)
    return "\n".join(
        f"{name:<{first}}  {query:<{second}}  {' '.join(f'{text:>{cell}}' for text in texts)}"
        for name, query, texts in rows
    )


# -- the graph as a picture ------------------------------------------------------------------------------------------

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


def draw_graph(program: Program) -> Any:
    """The computational graph, inputs at the top: a matplotlib Figure.

    Inputs are rounded, selectors have six corners, S-ops are boxes; the output has a thick border. What the output
    does not need is left out.
    """
    from matplotlib.figure import Figure

    nodes = [node for node in graph(program) if node.needed]
    items, rows, links = _rows(nodes)
    rows = _ordered(rows, links)
    centre = _across(items, rows, links)
    left = min(centre[i] - items[i].width / 2 for i in range(len(items))) - 0.25
    width = max(max(centre[i] + items[i].width / 2 for i in range(len(items))) + 0.25 - left, 5.2)
    heights = [max(items[i].height for i in row) for row in rows]
    height = sum(heights) + GAP * (len(rows) - 1) + 0.95
    figure = Figure(figsize=(width, height), facecolor=COLOURS["paper"])
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(left, left + width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    tops = [0.25 + sum(heights[:row]) + GAP * row for row in range(len(rows))]
    row_of = {i: row for row, members in enumerate(rows) for i in members}
    for i, item in enumerate(items):
        if item.node is not None:
            _draw_box(axes, item, centre[i], tops[row_of[i]] + heights[row_of[i]] / 2)
    _draw_arrows(axes, items, links, centre, row_of, tops, heights)
    _draw_legend(axes, left + 0.25, height - 0.3)
    return figure


def _item(node: GraphNode) -> Item:
    wrapped = textwrap.wrap(node.call, 36, max_lines=4, placeholder=" ...", break_long_words=True)
    lines = (node.variable, *wrapped, *([node.about] if node.kind != "selector" else []))
    inside = max(map(len, lines)) * LETTER * SIZE
    # a selector's corners take room at both ends
    return Item(node, lines, inside + 2 * PAD + (0.3 if node.kind == "selector" else 0.1), len(lines) * LINE + 2 * PAD)


def _rows(nodes: Sequence[GraphNode]) -> tuple[list[Item], list[list[int]], list[tuple[int, int]]]:
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


def _ordered(rows: list[list[int]], links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Each row in an order in which few arrows cross: sorted by the mean place of its neighbours, down and up again."""
    above, below = _neighbours(links)
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


def _neighbours(links: Iterable[tuple[int, int]]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for upper, lower in links:
        above.setdefault(lower, []).append(upper)
        below.setdefault(upper, []).append(lower)
    return above, below


def _crossings(rows: Sequence[Sequence[int]], links: Sequence[tuple[int, int]]) -> int:
    place = {i: (number, position) for number, row in enumerate(rows) for position, i in enumerate(row)}
    by_row: dict[int, list[tuple[int, int]]] = {}
    for upper, lower in links:
        by_row.setdefault(place[upper][0], []).append((place[upper][1], place[lower][1]))
    pairs = ((a, b) for ends in by_row.values() for k, a in enumerate(ends) for b in ends[:k])
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in pairs)


def _across(items: Sequence[Item], rows: Sequence[Sequence[int]], links: Sequence[tuple[int, int]]) -> list[float]:
    """The middle of each item from left to right: near its neighbours, and no two too close."""
    above, below = _neighbours(links)
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


def _draw_box(axes: Any, item: Item, x: float, y: float) -> None:
    from matplotlib.patches import FancyBboxPatch, Polygon

    node = item.node
    assert node is not None
    w, h = item.width / 2, item.height / 2
    border: dict[str, Any] = {"linewidth": 2.4 if node.is_output else 1.1, "zorder": 2}
    if node.kind == "selector":
        corners = [(x - w, y), (x - w + 0.13, y - h), (x + w - 0.13, y - h), (x + w, y)]
        corners += [(x + w - 0.13, y + h), (x - w + 0.13, y + h)]
        shape: Any = Polygon(corners, facecolor=COLOURS["selector"], edgecolor=COLOURS["second"], **border)
    else:
        round_corner = 0.16 if node.kind == "input" else 0.02
        shape = FancyBboxPatch(
            (x - w + round_corner, y - h + round_corner),
            2 * (w - round_corner),
            2 * (h - round_corner),
            boxstyle=f"round,pad={round_corner}",
            facecolor=COLOURS["input" if node.kind == "input" else "paper"],
            edgecolor=COLOURS["accent"],
            **border,
        )
    axes.add_patch(shape)
    for number, line in enumerate(item.lines):
        last = number == len(item.lines) - 1 and node.kind != "selector"
        style = {"weight": "bold"} if number == 0 else {"color": COLOURS["muted"]} if last else {}
        _text(axes, x, y - h + PAD + (number + 0.5) * LINE, line, SIZE, **style)


def _text(axes: Any, x: float | int, y: float, text: str, size: float | int, **style: Any) -> None:
    usual = {"ha": "center", "va": "center_baseline", "color": COLOURS["ink"], "family": FONT}
    # a dollar sign in a token is no mathematics
    axes.text(x, y, text, fontsize=size, parse_math=False, zorder=3, **(usual | style))


def _draw_arrows(
    axes: Any,
    items: Sequence[Item],
    links: Sequence[tuple[int, int]],
    centre: Sequence[float],
    row_of: Mapping[int, int],
    tops: Sequence[float],
    heights: Sequence[float],
) -> None:
    from matplotlib.patches import FancyArrowPatch, PathPatch
    from matplotlib.path import Path as Line

    above, below = _neighbours(links)
    for upper, lower in links:
        source, target = items[upper], items[lower]
        x0 = centre[upper] + _port(source, lower, below[upper], centre)
        x1 = centre[lower] + _port(target, upper, above[lower], centre)
        row = row_of[upper]
        edge, next_edge = tops[row] + heights[row], tops[row + 1]
        y0 = tops[row] + (heights[row] + source.height) / 2 if source.node is not None else tops[row]
        y1 = next_edge + (heights[row + 1] - target.height) / 2 if target.node is not None else next_edge
        end = next_edge - 0.12  # the head of an arrow takes its direction from a last straight piece
        middle = (edge + end) / 2
        # straight as long as boxes are beside it, bent between the rows only
        path = Line(
            [(x0, y0), (x0, edge), (x0, middle), (x1, middle), (x1, end), (x1, y1)],
            [Line.MOVETO, Line.LINETO, Line.CURVE4, Line.CURVE4, Line.CURVE4, Line.LINETO],
        )
        origin = source.node.kind if source.node is not None else _origin(items, above, upper)
        colour = COLOURS["second" if origin == "selector" else "muted"]
        if target.node is None:
            axes.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, linewidth=1.1, zorder=1))
        else:
            arrow = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0}
            axes.add_patch(FancyArrowPatch(path=path, color=colour, linewidth=1.1, zorder=1, **arrow))


def _port(item: Item, other: int, others: Sequence[int], centre: Sequence[float]) -> float:
    """Where an arrow leaves or enters an item, from its middle: several share the middle half of a box's side."""
    if item.node is None or len(others) == 1:
        return 0.0
    number = sorted(others, key=centre.__getitem__).index(other)
    return item.width * 0.5 * (number / (len(others) - 1) - 0.5)


def _origin(items: Sequence[Item], above: Mapping[int, Sequence[int]], item: int) -> str:
    while True:
        node = items[item].node
        if node is not None:
            return node.kind
        item = above[item][0]


def _draw_legend(axes: Any, left: float, y: float) -> None:
    from matplotlib.patches import Rectangle

    x = left
    for name, face, edge, thick in (
        ("input", "input", "accent", 1.1),
        ("S-op", "paper", "accent", 1.1),
        ("selector", "selector", "second", 1.1),
        ("output", "paper", "accent", 2.4),
    ):
        colours: dict[str, Any] = {"facecolor": COLOURS[face], "edgecolor": COLOURS[edge]}
        axes.add_patch(Rectangle((x, y - 0.06), 0.2, 0.13, linewidth=thick, **colours))
        _text(axes, x + 0.28, y, name, 8, ha="left", color=COLOURS["muted"])
        x += 0.28 + len(name) * LETTER * 8 + 0.3


# -- the residual stream as a picture --------------------------------------------------------------------------------

ALL_SHOWN = 40
"""Up to so many directions all are shown; of more, those that are ever other than zero."""
MOST_SHOWN = 400
MOST_UNITS = 240
MOST_TOKENS = 60
MOST_PIXELS = 20_000
"""On the longer side of a PNG; larger pictures are drawn with fewer dots an inch."""
CELL, WIDE, ROW = 0.17, 0.36, 0.2
"""In inches: a direction, one in which numbers are written, a place."""
SMALL = 7


class Panel(NamedTuple):
    """One row of the picture: the stream after a half-layer, and what made it.

    Attributes:
        title: which half-layer, and what it has written.
        stream: (places, directions shown).
        written: (directions shown,) whether it has changed them.
        patterns: of the heads in use, (their names, (places, places)).
        hidden: (places, units) before and after ReLU.
    """

    title: str
    stream: np.ndarray
    written: np.ndarray
    patterns: tuple[tuple[str, np.ndarray], ...] = ()
    hidden: tuple[np.ndarray, np.ndarray] | None = None


def draw_stream(transformer: CompiledTransformer, inputs: Sequence[Any], names: Mapping[str, str] | None = None) -> Any:
    """The residual stream as it grows (Langosco et al., Figures 17 to 20): a matplotlib Figure.

    A row for the embedding and for each half-layer that writes something. Left: the stream, places by named directions;
    what has just been written is framed. Right: the attention pattern of each head in use, or the MLP's hidden units
    before and after ReLU. White is 0, blue 1 or more, orange negative; a number stands where it is neither 0 nor 1.

    Args:
        inputs: one sequence of tokens, without BOS.
        names: what to call the groups of directions, from `direction_names`; by default as the transformer does.
    Raises:
        RaspError: if the input is empty, too long for the transformer or for a picture, or a token unknown.
    """
    from matplotlib.figure import Figure

    if len(inputs) == 0:
        raise RaspError("an input without tokens has no residual stream to draw: give at least one token")
    if len(inputs) > MOST_TOKENS:
        raise RaspError(f"an input of {len(inputs)} tokens is too long for a picture: at most {MOST_TOKENS}")
    labels = [_shortened(name, 80) for group in transformer.directions for name in named(group, names or {})]
    panels, shown, notes = _panels(transformer, inputs, labels, names or {})
    labels = [labels[i] for i in shown]
    groups = np.repeat(np.arange(len(transformer.directions)), [group.size for group in transformer.directions])[shown]
    places = ["BOS", *map(str, inputs)]

    streams = np.stack([panel.stream for panel in panels])
    odd = np.any(np.abs(streams - np.clip(np.rint(streams), 0, 1)) > 5e-3, axis=(0, 1)).reshape(-1)
    edges = np.array([0.0, *accumulate(WIDE if wide else CELL for wide in odd)])
    margin = 0.3 + max(map(len, places)) * LETTER * SMALL
    names_height = 0.15 + max(map(len, labels)) * LETTER * SMALL
    high = len(places) * ROW
    beside = [_beside_width(panel, margin) for panel in panels]
    head = 0.55 + 0.17 * len(notes)
    step = high + 0.62
    left = margin + max(edges[-1], max(len(panel.title) for panel in panels) * LETTER * 8.5) + 0.3
    width = max(left + max(beside) + 0.3, 7.5)
    height = head + names_height + 0.3 + step * len(panels) + names_height
    figure = Figure(figsize=(width, height), facecolor=COLOURS["paper"])
    answer = transformer.run([inputs])[0]
    said = [f"{' '.join(map(str, inputs))}  ->  {' '.join(map(_short, answer))}", *notes]
    for number, text in enumerate(said):
        style = {"fontsize": 11 if number == 0 else 8, "color": COLOURS["muted" if number else "ink"]}
        y = 1 - (0.28 + (0.22 if number else 0) + 0.17 * max(number - 1, 0)) / height
        figure.text(0.3 / width, y, text, family=FONT, va="center_baseline", parse_math=False, **style)
    for number, panel in enumerate(panels):
        top = head + names_height + 0.3 + number * step
        box = (margin, top, edges[-1], high)
        axes = _axes_at(figure, box)
        _draw_panel(axes, panel, edges, odd, groups, places)
        _text(axes, 0, -0.12, panel.title, 8.5, ha="left", va="bottom", weight="bold")
        if number == 0:
            _name_columns(axes, edges, labels, top=True)
        if number == len(panels) - 1:
            _name_columns(axes, edges, labels, top=False)
        _draw_beside(figure, panel, left, top, margin, places)
    return figure


def _panels(
    transformer: CompiledTransformer, inputs: Sequence[Any], labels: Sequence[str], names: Mapping[str, str]
) -> tuple[list[Panel], np.ndarray, list[str]]:
    """The rows of the picture, which directions it shows, and what is to be said of the others."""
    codes = np.array(transformer.encode([inputs]))
    stages = [(name, stream[0]) for name, stream in transformer.stages(codes)]
    patterns, hidden = transformer.attention_patterns(codes), transformer.hidden(codes)
    ever = np.any([np.abs(stream).max(0) > 1e-6 for _, stream in stages], axis=0)
    shown = np.arange(len(labels)) if len(labels) <= ALL_SHOWN else np.flatnonzero(ever)
    notes = ["white: 0; blue: 1 or more; orange: below 0; other numbers are written out; framed: what is just written"]
    if len(shown) < len(labels):
        notes.append(f"{len(labels) - len(shown)} of {len(labels)} directions are zero throughout and left out")
    if len(shown) > MOST_SHOWN:
        notes.append(f"{len(shown) - MOST_SHOWN} more directions are left out for want of room")
        shown = shown[:MOST_SHOWN]
    panels: list[Panel] = []
    before = stages[0][1]
    for name, stream in stages:
        changed = np.abs(stream - before).max(0) > 1e-6
        before = stream
        if name == "embedding":
            panels.append(Panel("embedding", stream[:, shown], np.zeros(len(shown), bool)))
        elif changed.any():
            made = [
                named(group._replace(values=None), names)[0]
                for group in transformer.directions
                if changed[group.start : group.start + group.size].any()
            ]
            layer, half = int(name.split()[1]), name.split()[2]
            mine = [(f"head {h}", pattern[0]) for (k, h), pattern in patterns.items() if k == layer]
            units = (hidden[layer][0][0], hidden[layer][1][0]) if layer in hidden else None
            panels.append(
                Panel(
                    _shortened(f"{name} writes {', '.join(made)}", 70),
                    stream[:, shown],
                    changed[shown],
                    tuple(mine) if half == "attention" else (),
                    units if half == "MLP" else None,
                )
            )
    return panels, shown, notes


def _short(value: object) -> str:
    return f"{value + 0.0:.3g}" if isinstance(value, float) else str(value)


def _axes_at(figure: Any, box: tuple[float, float, float, float]) -> Any:
    """Axes at (left, top, width, height) in inches from the upper left corner, whose units are inches too."""
    left, top, width, height = box
    across, down = figure.get_size_inches()
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=COLOURS["ink"])
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_edgecolor(COLOURS["line"])
    return axes


def _heat(axes: Any, values: np.ndarray, edges: np.ndarray, most: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("stream", [COLOURS["second"], COLOURS["paper"], COLOURS["accent"]])
    rows = np.arange(len(values) + 1) * ROW
    axes.pcolormesh(edges, rows, values, cmap=colours, vmin=-most, vmax=most, edgecolors="#eef1f4", linewidth=0.4)


def _name_places(axes: Any, places: Sequence[str]) -> None:
    ticks = [(number + 0.5) * ROW for number in range(len(places))]
    for text in axes.set_yticks(ticks, places, family=FONT) and axes.get_yticklabels():
        text.set_parse_math(False)


def _name_columns(axes: Any, edges: np.ndarray, labels: Sequence[str], top: bool) -> None:
    """Write the name of every direction above or below."""
    y, place = (-0.36, "bottom") if top else (axes.get_ylim()[0] + 0.06, "top")
    for x, label in zip((edges[:-1] + edges[1:]) / 2, labels, strict=True):
        _text(axes, float(x), y, label, SMALL, rotation=90, va=place)


def _draw_panel(
    axes: Any, panel: Panel, edges: np.ndarray, odd: np.ndarray, groups: np.ndarray, places: Sequence[str]
) -> None:
    from matplotlib.patches import Rectangle

    _heat(axes, panel.stream, edges, 1.0)
    _name_places(axes, places)
    for row, column in np.argwhere(np.abs(panel.stream) > 5e-3):
        value = panel.stream[row, column]
        if odd[column] and abs(value - 1) > 5e-3:
            colour = COLOURS["paper" if abs(value) > 0.6 else "ink"]
            x = float(edges[column] + edges[column + 1]) / 2
            _text(axes, x, (row + 0.5) * ROW, f"{value:.2g}", 6, color=colour)
    for column in np.flatnonzero(np.diff(groups)):
        axes.axvline(edges[column + 1], color=COLOURS["line"], linewidth=0.8)
    starts = np.flatnonzero(np.diff(np.concatenate([[0], panel.written.astype(int), [0]])))
    for first, last in zip(starts[::2], starts[1::2], strict=True):
        frame = Rectangle(
            (float(edges[first]), 0),
            float(edges[last] - edges[first]),
            len(places) * ROW,
            facecolor="none",
            edgecolor=COLOURS["ink"],
            linewidth=1.6,
            clip_on=False,
            zorder=3,
        )
        axes.add_patch(frame)


def _beside_width(panel: Panel, margin: float) -> float:
    """Width of what stands beside a panel, in inches."""
    if panel.hidden is not None:
        return margin + 2 * _units_width(panel.hidden[0]) + 0.25
    return margin + len(panel.patterns) * (len(panel.stream) * ROW + 0.25) if panel.patterns else 0.0


def _units_width(hidden: np.ndarray) -> float:
    return float(np.clip(hidden.shape[1] * 0.07, 1.9, 5.0))


def _draw_beside(figure: Any, panel: Panel, left: float, top: float, margin: float, places: Sequence[str]) -> None:
    high = len(places) * ROW
    left += margin
    for number, (name, pattern) in enumerate(panel.patterns):
        axes = _axes_at(figure, (left + number * (high + 0.25), top, high, high))
        _heat(axes, pattern, np.arange(len(places) + 1) * ROW, 1.0)
        _text(axes, 0, -0.12, name, 8, ha="left", va="bottom")
        if number == 0:
            _name_places(axes, places)
        short = [place if len(place) <= 3 else place[:2] + "." for place in places]
        for column, place in enumerate(short):
            _text(axes, (column + 0.5) * ROW, high + 0.04, place, 6, va="top", color=COLOURS["muted"])
    if panel.hidden is not None:
        before, after = panel.hidden
        units = before.shape[1]
        chosen = np.arange(units) if units <= MOST_UNITS else np.flatnonzero(after.max(0) > 1e-6)
        count = f"{units} units" if len(chosen) == units else f"the {len(chosen)} of {units} units above 0"
        wide = _units_width(before)
        most = max(float(np.abs(before).max()), 1e-6)
        for number, (title, values) in enumerate((("before ReLU", before), ("after", after))):
            axes = _axes_at(figure, (left + number * (wide + 0.25), top, wide, high))
            values = values[:, chosen]
            _heat(axes, values, np.linspace(0, wide, len(chosen) + 1), most)
            extent = f"{values.min():.4g} to {values.max():.4g}" if values.size else "none"
            _text(axes, 0, -0.12, f"{title}: {extent}", 8, ha="left", va="bottom")
            if number == 0:
                _name_places(axes, places)
                _text(axes, 0, high + 0.04, count, 6.5, ha="left", va="top", color=COLOURS["muted"])


# -- files -----------------------------------------------------------------------------------------------------------


def picture_format(path: Path) -> str:
    """The format of a picture by the name of its file.

    Raises:
        RaspError: if it is none of `FORMATS`.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise RaspError(f"a picture is a .png or .svg file, not {path.name!r}: call it {path.stem or 'picture'}.png")
    return suffix


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG or SVG, by the name of the file; the same figure gives the same bytes.

    Raises:
        RaspError: if the name is of no such format.
    """
    from matplotlib import rc_context

    from weightspace.files.atomic import write_atomically

    kind, out = picture_format(path), io.BytesIO()
    silent = {"Software": None} if kind == "png" else {"Date": None, "Creator": None, "Format": None, "Type": None}
    # texts stay texts, so that a picture can be searched
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "weightspace"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
        figure.savefig(out, format=kind, dpi=min(150.0, MOST_PIXELS / max(figure.get_size_inches())), metadata=silent)
    write_atomically(path, out.getvalue())
