"""A decompilation as one HTML file that needs nothing else: program, proof, and where each line stands."""

from __future__ import annotations

import io
import re
import warnings
from base64 import b64encode
from collections.abc import Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from weightspace.decompiler.proof.certificate import MODES
from weightspace.decompiler.proof.ownership import Share, shares
from weightspace.decompiler.proof.verify import compiled_for, modes_of
from weightspace.decompiler.result import MEANING, Decompilation
from weightspace.errors import RaspError
from weightspace.files.atomic import write_atomically
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.directions import direction_names
from weightspace.rasp.compiler.figure import MOST_PIXELS
from weightspace.rasp.compiler.graph_picture import draw_graph
from weightspace.rasp.compiler.stream_picture import draw_stream
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.functions import Value, counted
from weightspace.rasp.language import Selector
from weightspace.rasp.program import Program
from weightspace.rasp.reading import token_text
from weightspace.rasp.text import folded_text
from weightspace.rasp.validate import Mode

LARGEST_SVG = 400_000
"""Letters; a larger picture is set as a PNG."""
LISTED = 14
"""Numbers of directions or units that a cell of the table lists; the rest is counted."""
MOST_CELLS = 1_500
"""Directions, or units of one layer, up to which each has its own square on the map."""


def write_decompilation(found: Decompilation, bare: BareTransformer, path: str | Path, *, name: str) -> None:
    """Write the page of a decompilation as one self-contained HTML file, whole or not at all.

    It loads nothing (its own policy forbids it), follows light and dark mode, prints, and reads from 360 px on.

    Args:
        found: what was found; all its texts are escaped.
        bare: the weights in which it was found.
        path: where; folders are made, an older file is replaced.
        name: of the weights, as a heading.
    """
    write_atomically(Path(path), render_decompilation(found, bare, name=name).encode())


def render_decompilation(found: Decompilation, bare: BareTransformer, *, name: str) -> str:
    """The HTML text of `write_decompilation`."""
    program, candidate, placed = found.program, _candidate(found, bare), []
    if program is not None and candidate is not None:
        placed = shares(program, candidate, None if found.certificate is None else found.certificate.columns)
    colours = {share.variable: i for i, share in enumerate(s for s in placed if s.directions)}
    template = resources.files("weightspace.decompiler").joinpath("page.html")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        found=found,
        name=name,
        meaning=_capital(MEANING[found.status]),
        header=[] if program is None else _listing(program, colours)[0],
        listing=[] if program is None else _listing(program, colours)[1],
        proof=_proof(found),
        counterexample=_counterexample(found),
        facts=_facts(found, bare),
        graph=None if program is None else _graph(program),
        stream=None if program is None or candidate is None else _stream(found, program, candidate),
        rows=[] if program is None else [_row(share, program, colours) for share in placed],
        strips=[] if candidate is None else _strips(placed, candidate, colours),
        certified=found.certificate is not None,
    )


def _candidate(found: Decompilation, bare: BareTransformer) -> CompiledTransformer | None:
    """The program compiled as it was when it was compared."""
    if found.program is None:
        return None
    modes: tuple[Mode, ...] = tuple(mode for mode in MODES if mode == found.mode) or modes_of(bare)
    return next((c for mode in modes if (c := compiled_for(found.program, bare, mode)) is not None), None)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# -- texts -----------------------------------------------------------------------------------------------------------


def _listing(program: Program, colours: dict[str, int]) -> tuple[list[str], list[dict[str, Any]]]:
    """The lines of the program: those before its statements, and each statement with its colour on the map."""
    lines = folded_text(program).splitlines()
    names = [name for name, _ in program.statements]
    count = len(names) + 1  # and the last line, which returns the output
    output = program.name(program.output)
    listing = [
        {"text": line, "colour": colours.get(name), "output": name == output}
        for line, name in zip(lines[-count:], [*names, ""], strict=True)
    ]
    return lines[:-count], listing


def _proof(found: Decompilation) -> list[str]:
    sentences = [] if found.certificate is None else [found.certificate.explain()]
    if found.behaviour is not None:
        sentences.append(found.behaviour.explain())
    if found.distance is not None and found.status != "certified":
        sentences.append(found.distance.explain())
    if found.tables:
        sentences.append(
            f"{'One function is' if found.tables == 1 else f'{found.tables} functions are'} printed as a table: no "
            "short expression was found for it."
        )
    return [*sentences, *found.notes]


def _counterexample(found: Decompilation) -> list[tuple[str, tuple[str, ...]]]:
    wrong = None if found.behaviour is None else found.behaviour.counterexample
    if wrong is None:
        return []

    def texts(values: Sequence[Value]) -> tuple[str, ...]:
        return tuple("none" if value is None else token_text((value,)) for value in values)

    rows = (("input", wrong.input), ("the weights answer", wrong.expected), ("the program answers", wrong.given))
    return [(name, texts(values)) for name, values in rows]


def _facts(found: Decompilation, bare: BareTransformer) -> list[tuple[str, str]]:
    shape = (
        f"{counted(bare.num_layers, 'layer')}, {counted(bare.num_heads, 'head')} of {bare.key_size}, "
        f"{counted(bare.hidden_size, 'hidden unit')}, width {bare.width}"
    )
    facts = [("weights", shape), ("parameters", f"{sum(array.size for array in bare.params.values()):,}")]
    facts.append(("vocabulary", _shortened(token_text(bare.vocab), 120)))
    facts.append(("longest input", str(bare.max_seq_len)))
    facts.append(("attention", "causal" if bare.causal else "to all places"))
    if found.mode is not None:
        facts.append(("compiled as", found.mode))
    if found.certificate is not None:
        facts.append(("largest difference", f"{found.certificate.largest:.3g}"))
    if found.behaviour is not None:
        every = " (all)" if found.behaviour.exhaustive else " (a sample)"
        facts.append(("inputs compared", f"{found.behaviour.tried:,}{every}"))
    facts += [("found by", found.method or "nothing"), ("time", f"{found.seconds:.2f} s")]
    return [*facts, ("operations checked", f"{found.checked:,}")]


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 4]} ..."


# -- where each line stands ------------------------------------------------------------------------------------------


def _row(share: Share, program: Program, colours: dict[str, int]) -> dict[str, Any]:
    """A line of the table: a variable and what it has of the weights."""
    nodes = dict(program.statements)
    units = [f"layer {layer}: {_spans(own)}" for layer, own in share.units]
    selector = isinstance(nodes.get(share.variable), Selector)
    return {
        "variable": share.variable,
        "colour": colours.get(share.variable),
        "directions": "in the scores of its heads" if selector else _spans(share.directions),
        "heads": ", ".join(f"layer {layer}, head {head}" for layer, head in share.heads),
        "units": units,
    }


def _spans(numbers: Sequence[int]) -> str:
    """Numbers as few letters: runs as `3 to 7`, the first of them if there are many."""
    runs = [
        [number for _, number in group]
        for _, group in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    ]
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}\u2013{run[-1]}" for run in runs]
    if len(texts) <= LISTED:
        return ", ".join(texts)
    return f"{', '.join(texts[:LISTED])} and {sum(map(len, runs[LISTED:]))} more"


def _strips(placed: Sequence[Share], candidate: CompiledTransformer, colours: dict[str, int]) -> list[dict[str, Any]]:
    """The map: the directions, and the heads and units of each layer, each with the variable that has it."""
    c = candidate.configuration
    directions: dict[int, str] = {i: share.variable for share in placed for i in share.directions}
    strips = [_strip("residual stream", "direction", candidate.layout.width, directions, colours)]
    for layer in range(c.num_layers):
        heads = {head: s.variable for s in placed if s.directions for k, head in s.heads if k == layer}
        units = {u: share.variable for share in placed for k, own in share.units if k == layer for u in own}
        if heads:
            strips.append(_strip(f"layer {layer} attention", "head", c.num_heads, heads, colours))
        if units:
            strips.append(_strip(f"layer {layer} MLP", "hidden unit", c.mlp_hidden_size, units, colours))
    return strips


def _strip(title: str, what: str, size: int, owner: dict[int, str], colours: dict[str, int]) -> dict[str, Any]:
    used = f"{len(owner)} of {counted(size, what)} in use"
    cells = [
        {"title": f"{what} {i}: {owner.get(i, 'not used')}", "colour": colours.get(owner.get(i, ""))}
        for i in (range(size) if size <= MOST_CELLS else sorted(owner)[:MOST_CELLS])
    ]
    return {"title": title, "used": used, "cells": cells, "large": what == "head"}


# -- pictures --------------------------------------------------------------------------------------------------------


def _graph(program: Program) -> Markup:
    return _picture(draw_graph(program), "g-", f"the graph of the program, {counted(len(program), 'operation')}")


def _stream(found: Decompilation, program: Program, candidate: CompiledTransformer) -> dict[str, Any] | None:
    """The residual stream on the counterexample, or else on a longest input with many different tokens."""
    wrong = None if found.behaviour is None else found.behaviour.counterexample
    if wrong is not None:
        inputs = list(wrong.input)
    else:
        random = np.random.default_rng(0)
        length = min(candidate.max_seq_len, 12)
        order = [int(i) for i in random.permutation(len(candidate.vocab))] * (length // len(candidate.vocab) + 1)
        inputs = [candidate.vocab[i] for i in order[:length]]
    try:
        figure = draw_stream(candidate, inputs, direction_names(program, candidate))
    except RaspError:  # too long for a picture
        return None
    text = token_text(inputs)
    return {"input": text, "svg": _picture(figure, "s-", f"the residual stream on the input {text}")}


def _picture(figure: Any, prefix: str, alt: str) -> Markup:
    """A figure as an element of a page, as wide as it was drawn."""
    from matplotlib import rc_context

    wide = figure.get_size_inches()[0] * 96
    out = io.BytesIO()
    silent: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "weightspace"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
        figure.savefig(out, format="svg", metadata=silent)
        svg = out.getvalue().decode()
        if len(svg) > LARGEST_SVG:
            out = io.BytesIO()
            dpi = min(150.0, MOST_PIXELS / max(figure.get_size_inches()))
            figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
            image = b64encode(out.getvalue()).decode()
            return Markup('<img alt="{}" style="width: {:.0f}px" src="data:image/png;base64,{}">').format(
                alt, wide, image
            )
    opening, _, content = svg[svg.index("<svg") :].partition(">")
    box = re.search(r'viewBox="([\d. ]+)"', opening)
    assert box is not None, "matplotlib writes a viewBox"
    content = re.sub(r"<metadata>.*?</metadata>", "", content, flags=re.DOTALL)
    content = re.sub(r"<[^<>]+>", lambda tag: _own(tag[0], prefix), content)
    head = Markup('<svg role="img" aria-label="{}" viewBox="{}" style="width: {:.0f}px">').format(alt, box[1], wide)
    return head + Markup(content)


def _own(tag: str, prefix: str) -> str:
    """One tag with identifiers that no other picture has."""
    tag = re.sub(r'\bid="', f'id="{prefix}', tag)
    return tag.replace('xlink:href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
