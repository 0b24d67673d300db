"""The picture of a transformer's residual stream with named directions, as it grows from half-layer to half-layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.compiler.directions import named
from weightspace.rasp.compiler.figure import COLOURS, FONT, LETTER, write_text
from weightspace.rasp.compiler.terminal import short_value, shortened
from weightspace.rasp.compiler.transformer import CompiledTransformer

ALL_SHOWN = 40
"""Up to so many directions all are shown; of more, those that are ever other than zero."""
MOST_SHOWN = 400
MOST_UNITS = 240
MOST_TOKENS = 60
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
    labels = [shortened(name, 80) for group in transformer.directions for name in named(group, names or {})]
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
    said = [f"{' '.join(map(str, inputs))}  ->  {' '.join(map(short_value, answer))}", *notes]
    _write_head(figure, said)
    for number, panel in enumerate(panels):
        top = head + names_height + 0.3 + number * step
        box = (margin, top, edges[-1], high)
        axes = _axes_at(figure, box)
        _draw_panel(axes, panel, edges, odd, groups, places)
        write_text(axes, 0, -0.12, panel.title, 8.5, ha="left", va="bottom", weight="bold")
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
                    shortened(f"{name} writes {', '.join(made)}", 70),
                    stream[:, shown],
                    changed[shown],
                    tuple(mine) if half == "attention" else (),
                    units if half == "MLP" else None,
                )
            )
    return panels, shown, notes


def _write_head(figure: Any, said: Sequence[str]) -> None:
    """Lines above all panels, the first of them larger."""
    width, height = figure.get_size_inches()
    for number, text in enumerate(said):
        style = {"fontsize": 11 if number == 0 else 8, "color": COLOURS["muted" if number else "ink"]}
        y = 1 - (0.28 + (0.22 if number else 0) + 0.17 * max(number - 1, 0)) / height
        figure.text(0.3 / width, y, text, family=FONT, va="center_baseline", parse_math=False, **style)


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
        write_text(axes, float(x), y, label, SMALL, rotation=90, va=place)


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
            write_text(axes, x, (row + 0.5) * ROW, f"{value:.2g}", 6, color=colour)
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
        write_text(axes, 0, -0.12, name, 8, ha="left", va="bottom")
        if number == 0:
            _name_places(axes, places)
        short = [place if len(place) <= 3 else place[:2] + "." for place in places]
        for column, place in enumerate(short):
            write_text(axes, (column + 0.5) * ROW, high + 0.04, place, 6, va="top", color=COLOURS["muted"])
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
            write_text(axes, 0, -0.12, f"{title}: {extent}", 8, ha="left", va="bottom")
            if number == 0:
                _name_places(axes, places)
                write_text(axes, 0, high + 0.04, count, 6.5, ha="left", va="top", color=COLOURS["muted"])
