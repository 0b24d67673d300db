"""The picture of a program's computational graph, inputs at the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weightspace.rasp.compiler.figure import COLOURS, LETTER, write_text
from weightspace.rasp.compiler.graph import graph
from weightspace.rasp.compiler.graph_layout import GAP, LINE, PAD, SIZE, Item, centres_of, neighbours, ordered, rows_of
from weightspace.rasp.program import Program


def draw_graph(program: Program) -> Any:
    """The computational graph, inputs at the top: a matplotlib Figure.

    Inputs are rounded, selectors have six corners, S-ops are boxes; the output has a thick border. What the output
    does not need is left out.
    """
    from matplotlib.figure import Figure

    nodes = [node for node in graph(program) if node.needed]
    items, rows, links = rows_of(nodes)
    rows = ordered(rows, links)
    centre = centres_of(items, rows, links)
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
        write_text(axes, x, y - h + PAD + (number + 0.5) * LINE, line, SIZE, **style)


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

    above, below = neighbours(links)
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
        write_text(axes, x + 0.28, y, name, 8, ha="left", color=COLOURS["muted"])
        x += 0.28 + len(name) * LETTER * 8 + 0.3
