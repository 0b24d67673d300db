"""A program's graph, its transformer, and what its variables give on one input, as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weightspace.rasp.compiler.directions import named
from weightspace.rasp.compiler.graph import graph
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.functions import Value
from weightspace.rasp.program import Program


def graph_text(program: Program) -> str:
    """The computational graph for a terminal: a line for each node, by depth, with what it reads and can be."""
    nodes = graph(program)
    said = [shortened(f"{node.variable} = {node.call}" if node.call else node.variable, 64) for node in nodes]
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


def trace_text(values: Mapping[str, Sequence[Any]]) -> str:
    """What every variable gives on one input, for a terminal: a column for each place.

    A selector has a row for each query, which marks the keys that it selects.

    Args:
        values: from `interpreter.trace`.
    """
    rows: list[tuple[str, str, list[str]]] = []
    places = [short_value(token) for token in values["tokens"]]
    for name, given in values.items():
        if given and isinstance(given[0], list):
            for number, row in enumerate(given):
                marks = ["x" if selected else "." for selected in row]
                rows.append((name if number == 0 else "", places[number], marks))
        else:
            rows.append((name, "", ["-" if value is None else short_value(value) for value in given]))
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    cell = max((len(text) for _, _, texts in rows for text in texts), default=1)
    return "\n".join(
        f"{name:<{first}}  {query:<{second}}  {' '.join(f'{text:>{cell}}' for text in texts)}"
        for name, query, texts in rows
    )


def _listed(values: Sequence[Value], most: int = 36) -> str:
    """The values in few letters: the first of them and the last."""
    texts = [shortened(_written(value), 20) for value in values]
    if len(", ".join(texts)) <= most:
        return ", ".join(texts)
    first = texts[:-1]
    while len(first) > 1 and len(", ".join([*first, "...", texts[-1]])) > most:
        first.pop()
    return ", ".join([*first, "...", texts[-1]])


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _written(value: Value) -> str:
    return f"{value + 0.0:.4g}" if isinstance(value, float) else repr(value)  # -0.0 is shown as 0


def short_value(value: object) -> str:
    """A value in few letters, to three digits."""
    return f"{value + 0.0:.3g}" if isinstance(value, float) else str(value)


def shortened(text: str, most: int) -> str:
    """The text, cut where it is longer than so many letters."""
    return text if len(text) <= most else text[: most - 3] + "..."
