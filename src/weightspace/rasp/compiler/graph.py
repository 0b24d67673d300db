"""A program's computational graph as data: its nodes by depth, with what each reads and can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weightspace.errors import RaspError
from weightspace.rasp.functions import Value
from weightspace.rasp.language import Encoding, Expression, Selector, SOp, indices, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.validate import analyse, settings


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
    return {
        key: known.values.values for key, known in analyse(program, vocab, length, "fixed", whole=False).traits.items()
    }
