"""Programs as a person reads them: one line a variable, what is used once written where it is used."""

from __future__ import annotations

from collections import Counter

from weightspace.rasp.choices import NextTokens
from weightspace.rasp.forms import names_of
from weightspace.rasp.language import (
    Expression,
    LinearSequenceMap,
    Map,
    Selector,
    SequenceMap,
    SOp,
    Statements,
    indices,
    tokens,
)
from weightspace.rasp.text import annotation_of, call_text, header_lines

WIDEST = 110
"""Characters of a line into which nothing more is written."""


def readable_text(program: Statements) -> str:
    """A program's text in which selectors, and S-ops that only the answer reads, stand where they are used.

    It can be parsed, and means the same; `to_text` gives every operation a line of its own.
    """
    return "\n".join([*header_lines(program), *_Writer(program).lines()])


def count_lines(text: str) -> int:
    """Lines of a program without those that say what it is meant for."""
    return sum(1 for line in text.splitlines() if line.strip() and not line.startswith(_HEADERS))


_HEADERS = ("vocab =", "max_seq_len =", "causal =", "mlp_exactness =", "#")


class _Writer:
    def __init__(self, program: Statements) -> None:
        self.program, self.output = program, program.output
        needed = program.nodes
        self.uses = Counter(id(child) for node in needed for child in node.children)
        readers: dict[int, list[Expression]] = {}
        for node in needed:
            for child in node.children:
                readers.setdefault(id(child), []).append(node)
        self.readers = readers
        self.texts: dict[int, str] = {id(tokens): "tokens", id(indices): "indices"}

    def lines(self) -> list[str]:
        """The statements and the return."""
        lines = []
        for node in self.program.nodes:
            if node is tokens or node is indices or isinstance(node, NextTokens):
                continue
            text = self._call(node)
            if self._inside(node, text):
                self.texts[id(node)] = text
                continue
            name = self.program.name(node)
            lines.append(f"{name}{annotation_of(node)} = {text}")
            self.texts[id(node)] = name
        if isinstance(self.output, NextTokens):
            names_of(self.program, self.output)
            said = (f"{t!r}: {self.texts[id(s)]}" for t, s in zip(self.output.tokens, self.output.sops, strict=True))
            return [*lines, f"return {{{', '.join(said)}}}"]
        return [*lines, f"return {self.texts[id(self.output)]}"]

    def _call(self, node: Expression) -> str:
        return call_text(node, [self.texts[id(child)] for child in node.children])

    def _inside(self, node: Expression, text: str) -> bool:
        """Whether it stands where it is used, and not in a line of its own."""
        if len(text) > WIDEST or (isinstance(node, SOp) and (node.numerical or isinstance(node, LinearSequenceMap))):
            return False
        readers = self.readers.get(id(node), [])
        if isinstance(node, Selector):
            return self.uses[id(node)] == 1
        if node is self.output:
            return True
        if self.uses[id(node)] == 1 and readers[0] is self.output and isinstance(self.output, NextTokens):
            return True
        constant = isinstance(node, Map) and node.function.arity == 1 and "x" not in _names(node.function.source)
        return constant and isinstance(node, Map | SequenceMap)


def _names(source: str) -> set[str]:
    import ast

    return {part.id for part in ast.walk(ast.parse(source, mode="eval")) if isinstance(part, ast.Name)}
