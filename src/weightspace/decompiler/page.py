"""A decompilation as one HTML file that needs nothing else: program, proof, and where each line stands."""

from __future__ import annotations

import io
import re
import warnings
from base64 import b64encode
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from weightspace.decompiler.drawing import Drawn, drawn
from weightspace.decompiler.proof.ownership import Share
from weightspace.decompiler.result import MEANING, Decompilation
from weightspace.files.atomic import write_atomically
from weightspace.pages.page import render_page
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.figure import MOST_PIXELS
from weightspace.rasp.compiler.graph_picture import draw_graph
from weightspace.rasp.functions import Value, counted
from weightspace.rasp.language import Selector
from weightspace.rasp.program import Program
from weightspace.rasp.reading import token_text
from weightspace.rasp.text import folded_text

LARGEST_SVG = 400_000
"""Letters; a larger picture is set as a PNG."""
LISTED = 14
"""Numbers of directions or units that a cell of the table lists; the rest is counted."""


def write_decompilation(found: Decompilation, bare: BareTransformer, path: str | Path, *, name: str) -> None:
    """Write the page of a decompilation as one self-contained HTML file, whole or not at all.

    It loads nothing (its own policy forbids it), runs one script, its own, follows light and dark mode, prints, and
    reads from 360 px on. Its address says which line is chosen and which input typed: `#line=v3&input=h+e`.

    Args:
        found: what was found; all its texts are escaped.
        bare: the weights in which it was found.
        path: where; folders are made, an older file is replaced.
        name: of the weights, as a heading.
    """
    write_atomically(Path(path), render_decompilation(found, bare, name=name).encode())


def render_decompilation(found: Decompilation, bare: BareTransformer, *, name: str) -> str:
    """The HTML text of `write_decompilation`."""
    program, shown = found.program, drawn(found, bare)
    colours = {share.variable: i for i, share in enumerate(s for s in shown.shares if s.directions)}
    header, listing = ([], []) if program is None else _listing(program, colours, shown)
    return render_page(
        "weightspace.decompiler",
        "page.html",
        scripts=() if shown.data is None else ("transformer.js", "grids.js", "page.js"),
        data=shown.data,
        found=found,
        name=name,
        meaning=_capital(MEANING[found.status]),
        header=header,
        inputs=[
            {"name": share.variable, "colour": colours.get(share.variable)}
            for share in shown.shares
            if share.variable in ("tokens", "indices", "one")
        ],
        listing=listing,
        proof=_proof(found),
        counterexample=_counterexample(found),
        facts=_facts(found, bare),
        graph=None if program is None else _graph(program),
        rows=[] if program is None else [_row(share, program, colours) for share in shown.shares],
        given=shown.given,
        whose=_whose(found, shown),
        too_large=shown.too_large,
    )


def _whose(found: Decompilation, shown: Drawn) -> str:
    """Whose weights are drawn, as a sentence."""
    if shown.given:
        return "These are the given weights."
    if found.certificate is not None:
        return (
            "The given weights are the compiled program's with the stream turned, so that none of their directions is "
            "one of the program's: these are the compiled program's."
        )
    return "There is no certificate that says which direction is whose: these are the compiled program's weights."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# -- texts -----------------------------------------------------------------------------------------------------------


def _listing(program: Program, colours: dict[str, int], shown: Drawn) -> tuple[list[str], list[dict[str, Any]]]:
    """The lines of the program: those before its statements, and each statement with its colour on the page."""
    lines, whole = folded_text(program).splitlines(), str(program).splitlines()
    names = [name for name, _ in program.statements]
    count = len(names) + 1  # and the last line, which returns the output
    output = program.name(program.output)
    placed = {share.variable for share in shown.shares}
    listing = [
        {
            "text": line,
            "whole": "" if full == line else full,
            "name": name,
            "placed": name in placed,
            "colour": colours.get(name),
            "output": name == output,
        }
        for line, full, name in zip(lines[-count:], whole[-count:], [*names, ""], strict=True)
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


# -- pictures --------------------------------------------------------------------------------------------------------


def _graph(program: Program) -> Markup:
    return _picture(draw_graph(program), "g-", f"the graph of the program, {counted(len(program), 'operation')}")


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
