"""What heads do, as a person reads it: lines in a terminal, and one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from weightspace import __version__
from weightspace.files.atomic import write_atomically
from weightspace.heads.behaviour import BEHAVIOURS, THRESHOLDS, HeadBehaviour
from weightspace.heads.reading import HeadReading, ReadHead

MEANING = {
    "previous": "attends to the place before",
    "induction": "attends to what followed the same token last time",
    "duplicate": "attends to the same token before",
    "current": "attends to its own place",
    "local": "attends to the four places before",
    "sink": "attends to the first place",
    "punctuation": "attends to punctuation",
    "copying": "writes what it reads",
}
WIDTH, HEIGHT = 120, 28
"""Of a kernel's picture, in units of its view box."""
CIRCUIT_STEP = 34


def summary(found: HeadReading, top: int) -> str:
    """The heads with the highest scores of each behaviour."""
    lines = [f"{len(found.heads)} heads in {found.layers} layers, read from weights: {found.where}", ""]
    for name in found.behaviours:
        likely = sum(head.scores[name] >= 0.5 for head in found.heads)
        told = f", {found.labelled[name]} labelled" if name in found.labelled else ""
        lines.append(f"{name} ({MEANING.get(name, 'from your labels')}{told}): {likely} heads at 0.5 or more")
        for head in found.top(name, top):
            near = head.nearest[0]
            like = f"{near.name} ({', '.join(near.behaviours) or 'none of these'})"
            lines.append(
                f"  layer {head.layer:>3}, head {head.head:>3}   {head.scores[name]:.2f} +- {head.spread[name]:.2f}"
                f"   like {like}"
            )
    return "\n".join(lines)


def behaviour_summary(found: HeadBehaviour) -> str:
    """Measured behaviours: how many heads have each, and which most."""
    lines = [f"measured on {found.stated}", ""]
    for name in BEHAVIOURS:
        scores = found.of(name)
        if bool(scores.isnan().all()):
            lines.append(f"{name}: not measured")
            continue
        having = int((scores >= THRESHOLDS[name]).sum())
        order = scores.flatten().argsort(descending=True)[:5].tolist()
        heads = scores.shape[1]
        best = ", ".join(f"{place // heads}.{place % heads} {float(scores.flatten()[place]):.2f}" for place in order)
        lines.append(f"{name} ({MEANING[name]}): {having} heads at {THRESHOLDS[name]:g} or more; {best}")
    return "\n".join(lines)


def behaviour_records(found: HeadBehaviour) -> list[dict[str, Any]]:
    """Measured scores as a list for JSON; what cannot be measured is left out."""
    records = []
    for layer, heads in enumerate(found.scores.tolist()):
        for head, scores in enumerate(heads):
            known = {
                name: round(score, 4) for name, score in zip(BEHAVIOURS, scores, strict=True) if not math.isnan(score)
            }
            records.append({"layer": layer, "head": head, "scores": known, "beside": int(found.beside[layer, head])})
    return records


def write_heads(found: HeadReading, path: str | Path, *, name: str) -> None:
    """Write the page, whole or not at all.

    It loads and runs nothing (its own policy forbids it), follows light and dark mode, and reads from 360 px on.

    Args:
        name: of the model, as a heading.
    """
    write_atomically(Path(path), render_heads(found, name=name).encode())


def render_heads(found: HeadReading, *, name: str) -> str:
    """The HTML text of `write_heads`."""
    template = resources.files("weightspace.heads").joinpath("page.html")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    across = len(found.heads) // found.layers
    rows = [found.heads[layer * across : (layer + 1) * across] for layer in range(found.layers)]
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        found=found,
        name=name,
        rows=rows,
        meaning=MEANING,
        orders={each: _order(found.heads, each) for each in found.behaviours},
        kernel=_kernel,
        circuit=_circuit(found, across),
        version=__version__,
    )


def _order(heads: Sequence[ReadHead], behaviour: str) -> list[int]:
    """At which place each head stands when heads are sorted by a behaviour."""
    places = sorted(range(len(heads)), key=lambda place: -heads[place].scores[behaviour])
    found = [0] * len(heads)
    for order, place in enumerate(places):
        found[place] = order
    return found


def _kernel(head: ReadHead) -> Markup:
    """Bars of attention by place, and a line of attention by content, for distances 0 to 31."""
    count = 32
    step = WIDTH / count
    most = max(max(head.by_place[:count]), 1e-9)
    bars = "".join(
        f"M{step * distance:.1f} {HEIGHT}v{-HEIGHT * value / most:.1f}h{0.7 * step:.1f}V{HEIGHT}"
        for distance, value in enumerate(head.by_place[:count])
    )
    size = max(max(abs(value) for value in head.by_content[:count]), 0.05)
    line = " ".join(
        f"{step * (distance + 0.35):.1f},{HEIGHT / 2 * (1 - value / size):.1f}"
        for distance, value in enumerate(head.by_content[:count])
    )
    return Markup(
        f'<svg class="kernel" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="attention by distance">'
        f'<path d="{bars}"/><polyline points="{line}"/></svg>'
    )


def _circuit(found: HeadReading, across: int) -> Markup | None:
    """The heads of the strongest edges, layer above layer, with the edges between them."""
    if not found.edges:
        return None
    layers = sorted({layer for edge in found.edges for layer, _ in (edge.earlier, edge.later)})
    height = {layer: CIRCUIT_STEP * (len(layers) - place) for place, layer in enumerate(layers)}
    most = found.edges[0].strength

    def at(head: tuple[int, int]) -> tuple[float, float]:
        return 44 + CIRCUIT_STEP * (head[1] + 0.5), height[head[0]] - CIRCUIT_STEP / 2

    parts = []
    for edge in reversed(found.edges):
        (x, y), (u, v) = at(edge.earlier), at(edge.later)
        share = edge.strength / most
        title = f"{edge.earlier[0]}.{edge.earlier[1]} to {edge.later[0]}.{edge.later[1]}: {edge.strength:.1f}"
        parts.append(
            f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {(y + v) / 2:.0f} {u:.0f} {(y + v) / 2:.0f} {u:.0f} {v:.0f}" '
            f'stroke-width="{0.6 + 3 * share:.1f}" stroke-opacity="{0.25 + 0.6 * share:.2f}">'
            f"<title>{title}</title></path>"
        )
    heads = sorted({head for edge in found.edges for head in (edge.earlier, edge.later)})
    parts += [f'<text x="0" y="{height[layer] - CIRCUIT_STEP / 2 + 4:.0f}">layer {layer}</text>' for layer in layers]
    for head in heads:
        x, y = at(head)
        parts.append(
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="11"/><text class="head" x="{x:.0f}" y="{y + 4:.0f}">{head[1]}</text>'
        )
    width = 56 + CIRCUIT_STEP * across
    return Markup(
        f'<svg class="circuit" viewBox="0 0 {width} {CIRCUIT_STEP * len(layers)}" width="{width}" role="img" '
        f'aria-label="which heads read which">{"".join(parts)}</svg>'
    )
