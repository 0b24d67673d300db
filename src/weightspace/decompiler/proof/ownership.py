"""Which directions, heads and hidden units of a transformer each line of its program takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightspace.decompiler.proof.certificate import Columns
from weightspace.rasp.compiler.directions import direction_names, named
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.language import Selector, SOp, walk
from weightspace.rasp.program import Program


@dataclass(frozen=True)
class Share:
    """What one variable has of a transformer.

    Attributes:
        variable: of the program; or `tokens`, `indices`, or `one`, which is 1 everywhere.
        directions: of the residual stream, in ascending order.
        heads: (layer, head) of those that write its directions; of a selector, those that select by it.
        units: (layer, hidden units in ascending order) that write its directions, or that belong to them and write
            nothing.
    """

    variable: str
    directions: tuple[int, ...]
    heads: tuple[tuple[int, int], ...]
    units: tuple[tuple[int, tuple[int, ...]], ...]


def shares(program: Program, transformer: CompiledTransformer, columns: Columns | None = None) -> list[Share]:
    """What each variable has of a transformer, inputs first, then in the order of the program.

    Args:
        transformer: compiled from this program.
        columns: a certificate's permutation: then places are those in the certified weights, else in `transformer`.
    """
    owner = _owners(program, transformer)
    heads, units = _writers(transformer, owner)
    selecting = _selecting(program)
    found = []
    for variable in ["tokens", "indices", "one", *(name for name, _ in program.statements)]:
        if variable not in owner and variable not in selecting:
            continue
        directions = np.flatnonzero(np.array(owner) == variable)
        writes = selecting.get(variable, {variable})
        mine = [(layer, head) for (layer, head), names in heads.items() if writes & names]
        own = {layer: np.array([u for u, names in enumerate(row) if variable in names]) for layer, row in units.items()}
        if columns is not None:
            directions = columns.directions[directions]
            mine = [(layer, int(columns.heads[layer, head])) for layer, head in mine]
            own = {layer: columns.units[layer][u] if len(u) else u for layer, u in own.items()}
        sorted_units = [(layer, tuple(sorted(u.tolist()))) for layer, u in sorted(own.items()) if len(u)]
        found.append(Share(variable, tuple(sorted(directions.tolist())), tuple(sorted(mine)), tuple(sorted_units)))
    return found


def _selecting(program: Program) -> dict[str, set[str]]:
    """For each selector the S-ops that select by it, or by what is made of it."""
    found: dict[str, set[str]] = {program.name(node): set() for node in program.nodes if isinstance(node, Selector)}
    for node in program.nodes:
        if isinstance(node, SOp):
            for child in node.children:
                if isinstance(child, Selector):
                    for part in walk(child):
                        if isinstance(part, Selector):
                            found[program.name(part)].add(program.name(node))
    return found


def _owners(program: Program, transformer: CompiledTransformer) -> list[str]:
    """The variable that each direction belongs to; scratch directions and those of None belong to their S-op."""
    names = direction_names(program, transformer)
    variables = {"tokens", "indices", "one", *names.values()}
    owner = []
    for group in transformer.directions:
        label = named(group._replace(values=None), names)[0]
        whose = label if label in variables else label.removesuffix("_selector_width_attn_output").removesuffix("_none")
        owner += [whose] * group.size
    return owner


def _writers(
    transformer: CompiledTransformer, owner: list[str]
) -> tuple[dict[tuple[int, int], set[str]], dict[int, list[set[str]]]]:
    """For each head, and for each unit of each layer, the variables whose directions it writes."""
    c, params = transformer.configuration, transformer.params
    heads: dict[tuple[int, int], set[str]] = {}
    units: dict[int, list[set[str]]] = {}
    for layer in range(c.num_layers):
        out = params[f"transformer/layer_{layer}/attn/linear/w"].reshape(c.num_heads, c.key_size, -1)
        for head in range(c.num_heads):
            heads[layer, head] = {owner[i] for i in np.flatnonzero(out[head].any(0))}
        first = params[f"transformer/layer_{layer}/mlp/linear_1/w"]
        second = params[f"transformer/layer_{layer}/mlp/linear_2/w"]
        row = [{owner[i] for i in np.flatnonzero(written)} for written in second]
        # a unit that reads and writes nothing stands among those of its own S-op: a function without a value there
        for unit in np.flatnonzero(first.any(0) & ~second.any(1)).tolist():
            around = [*range(unit - 1, -1, -1), *range(unit + 1, len(row))]
            row[unit] = next((row[other] for other in around if len(row[other]) == 1), set())
        units[layer] = row
    return heads, units
