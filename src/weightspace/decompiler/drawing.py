"""What the page of a decompilation draws and runs: weights, whose each direction is, and where the answer stands."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightspace.decompiler.proof.certificate import MODES, Certificate, Columns
from weightspace.decompiler.proof.ownership import Share, shares
from weightspace.decompiler.proof.verify import compiled_for, modes_of
from weightspace.decompiler.result import Decompilation
from weightspace.rasp.compiler.bare import BareTransformer, Readout
from weightspace.rasp.compiler.directions import direction_names, named
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.functions import Value
from weightspace.rasp.language import BOS
from weightspace.rasp.program import Program
from weightspace.rasp.reading import token_text
from weightspace.rasp.validate import Mode

MOST_ENTRIES = 4_000_000
"""Parameters up to which matrices are drawn."""
MOST_BYTES = 6_000_000
"""Bytes of weights, as they stand in the page, up to which they are put into it."""
EXAMPLE = 12
"""Tokens of the input that a page begins with, at most."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """The transformer that a page shows.

    Attributes:
        given: whether its weights are the given ones, in their own order; else they are the compiled program's.
        weights: its parameters.
        shares: what each variable of the program has of it; none if there is no program.
        data: JSON-serialisable, what the page's script reads; None if the transformer is too large for a page.
        too_large: why, as a sentence; empty if it is not.
    """

    given: bool
    weights: BareTransformer
    shares: tuple[Share, ...]
    data: dict[str, Any] | None
    too_large: str = ""


def drawn(found: Decompilation, bare: BareTransformer) -> Drawn:
    """What a page shows of a decompilation.

    With a certificate that leaves the stream's directions whole these are the given weights, in their own order.
    Without one nobody knows which of the given directions is whose: then they are the weights of the program,
    compiled. Where there is no program, they are the given ones without names.
    """
    program, candidate = found.program, candidate_of(found, bare)
    if program is None or candidate is None:
        return _with_data(True, bare, (), _unnamed(bare), found)
    columns = _kept_columns(found.certificate)
    placed = tuple(shares(program, candidate, columns))
    weights = BareTransformer.of(candidate) if columns is None else bare
    return _with_data(columns is not None, weights, placed, _named(program, candidate, columns), found)


def candidate_of(found: Decompilation, bare: BareTransformer) -> CompiledTransformer | None:
    """The program compiled as it was when it was compared; None if there is none."""
    if found.program is None:
        return None
    modes: tuple[Mode, ...] = tuple(mode for mode in MODES if mode == found.mode) or modes_of(bare)
    return next((c for mode in modes if (c := compiled_for(found.program, bare, mode)) is not None), None)


def _kept_columns(certificate: Certificate | None) -> Columns | None:
    """The permutation of a certificate, if each direction of the program is one of the given stream, at its size."""
    if certificate is None:
        return None
    rewrite = certificate.rewrite
    whole = rewrite is None or (rewrite.stream is None and rewrite.scale == 1)
    return certificate.columns if whole else None


def _with_data(
    given: bool, weights: BareTransformer, placed: tuple[Share, ...], names: dict[str, Any], found: Decompilation
) -> Drawn:
    if weights.size > MOST_ENTRIES:
        said = f"{weights.size:,} parameters are too many to draw on a page, which shows up to {MOST_ENTRIES:,}."
        return Drawn(given, weights, placed, None, said)
    arrays = {name: packed(array) for name, array in weights.params.items() if name[-2:] != "/b" or array.any()}
    size = sum(len(array["values"]) + len(array.get("places", "")) for array in arrays.values())
    if size > MOST_BYTES:
        said = f"The weights would take {size / 1e6:.0f} MB of the page, which holds up to {MOST_BYTES / 1e6:.0f} MB."
        return Drawn(given, weights, placed, None, said)
    transformer = {
        "arrays": arrays,
        "layers": weights.num_layers,
        "heads": weights.num_heads,
        "causal": weights.causal,
        "longest": weights.max_seq_len,
        "bos": weights.space.index(BOS),
        "rows": [_text(value) for value in weights.space],
        "tokens": [
            {"text": str(token), "shown": _text(token), "row": weights.space.index(token)} for token in weights.vocab
        ],
    }
    data = {"transformer": transformer, "lines": [_line(share, names) for share in placed]}
    data |= {"directions": names["directions"], "answer": names["answer"]}
    data |= {"example": " ".join(map(_typed, _example(found, weights)))}
    return Drawn(given, weights, placed, data)


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array of float32 as JSON: its numbers in base64, little-endian; of one with few, where these stand too."""
    flat = np.ascontiguousarray(array, "<f4").reshape(-1)
    places = np.flatnonzero(flat)
    if 2 * len(places) < len(flat):
        parts = {"places": _base64(places.astype("<u4")), "values": _base64(flat[places])}
    else:
        parts = {"values": _base64(flat)}
    return {"shape": list(array.shape), **parts}


def _base64(array: np.ndarray) -> str:
    return b64encode(array.tobytes()).decode()


def _line(share: Share, names: Mapping[str, Any]) -> dict[str, Any]:
    """What one variable has, and how its value is read off the stream."""
    place = {"name": share.variable, "directions": list(share.directions), "heads": [list(h) for h in share.heads]}
    return place | {"units": [[layer, list(own)] for layer, own in share.units]} | names["read"].get(share.variable, {})


# -- names of directions -----------------------------------------------------------------------------------------------


def _named(program: Program, candidate: CompiledTransformer, columns: Columns | None) -> dict[str, Any]:
    """The name of each direction in the drawn order, how each variable is read, and where the answer stands."""
    names = direction_names(program, candidate)
    width = candidate.layout.width
    order = np.arange(width) if columns is None else np.asarray(columns.directions)
    directions = [""] * width
    read: dict[str, dict[str, Any]] = {}
    for group in candidate.directions:
        own = [int(order[i]) for i in range(group.start, group.start + group.size)]
        for place, text in zip(own, named(group, names), strict=True):
            directions[place] = text
        label = named(group._replace(values=None), names)[0]
        if label.endswith("_none") and label.removesuffix("_none") in read:
            read[label.removesuffix("_none")]["none"] = own[0]
        elif not label.endswith("_selector_width_attn_output"):
            values = None if group.values is None else [_text(value) for value in group.values]
            read.setdefault(label, {}).update(read=own, values=values)
    o = candidate.output
    count = 1 if o.values is None else len(o.values)
    answer = {
        "read": [int(order[i]) for i in range(o.start, o.start + count)],
        "values": None if o.values is None else [_text(value) for value in o.values],
        "none": None if o.none is None else int(order[o.none]),
        "strict": o.strict,
    }
    return {"directions": directions, "read": read, "answer": answer}


def _unnamed(bare: BareTransformer) -> dict[str, Any]:
    return {"directions": [""] * bare.width, "read": {}, "answer": _answer_of(bare.readout)}


def _answer_of(readout: Readout | None) -> dict[str, Any] | None:
    """Where the answer stands, if it is known and stands on single directions."""
    if readout is None or readout.values == ():
        return None
    parts = readout.directions if readout.none is None else np.column_stack([readout.directions, readout.none])
    if not (np.isin(parts, (0, 1)).all() and (parts.sum(0) == 1).all()):
        return None
    return {
        "read": [int(i) for i in readout.directions.argmax(0)],
        "values": None if readout.values is None else [_text(value) for value in readout.values],
        "none": None if readout.none is None else int(readout.none.argmax()),
        "strict": readout.strict,
    }


def _example(found: Decompilation, weights: BareTransformer) -> Sequence[Value]:
    """The input that a page begins with: the counterexample, or else a longest one with many different tokens."""
    wrong = None if found.behaviour is None else found.behaviour.counterexample
    if wrong is not None:
        return wrong.input
    random = np.random.default_rng(0)
    length = min(weights.max_seq_len, EXAMPLE)
    order = [int(i) for i in random.permutation(len(weights.vocab))] * (length // len(weights.vocab) + 1)
    return [weights.vocab[i] for i in order[:length]]


def _typed(token: Value) -> str:
    """A token as it is typed: in quotes if it would else be taken for several."""
    text = str(token)
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}" if not text or any(letter in text for letter in " ,\t\r\n\"'") else text


def _text(value: Value) -> str:
    return "none" if value is None else token_text((value,))
