"""Operations beside Tracr's for trained transformers: one of the values selected, a choice, and what may follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from weightspace.rasp.functions import Value
from weightspace.rasp.language import Encoding, Expression, Selector, SOp

Which = Literal["first", "last", "least", "most", "commonest"]
"""Which of the values that a query selects: by their places, as numbers, or by how often they stand there."""
WHICH: tuple[Which, ...] = get_args(Which)


class Pick(SOp):
    """One of the values of an S-op that a selector selects.

    Attributes:
        which: `first` and `last` by place, `least` and `most` of numbers, `commonest` with the first among equals.
        default: the value where nothing is selected.
    """

    __slots__ = ("default", "selector", "sop", "which")

    def __init__(
        self,
        which: Which,
        selector: Selector,
        sop: SOp,
        *,
        encoding: Encoding = "categorical",
        default: Value = None,
        label: str | None = None,
    ) -> None:
        self.which: Which = which
        self.selector, self.sop, self.default, self.encoding, self.label = selector, sop, default, encoding, label

    @property
    def children(self) -> tuple[Expression, ...]:
        return (self.selector, self.sop)

    def rebuilt(self, children: Sequence[Any], label: str | None) -> Pick:
        return Pick(self.which, *children, encoding=self.encoding, default=self.default, label=label)


class Choose(SOp):
    """At each place the value of one S-op where a third one holds, and of another where it does not, or is None."""

    __slots__ = ("condition", "no", "yes")

    def __init__(
        self, condition: SOp, yes: SOp, no: SOp, *, encoding: Encoding = "categorical", label: str | None = None
    ) -> None:
        self.condition, self.yes, self.no, self.encoding, self.label = condition, yes, no, encoding, label

    @property
    def children(self) -> tuple[Expression, ...]:
        return (self.condition, self.yes, self.no)

    def rebuilt(self, children: Sequence[Any], label: str | None) -> Choose:
        return Choose(*children, encoding=self.encoding, label=label)


class NextTokens(SOp):
    """The tokens that may come next: at each place the tuple of those whose S-op holds there.

    Attributes:
        tokens: in the order of their S-ops.
    """

    __slots__ = ("sops", "tokens")

    def __init__(self, tokens: Sequence[Value], sops: Sequence[SOp], *, label: str | None = None) -> None:
        self.tokens, self.sops = tuple(tokens), tuple(sops)
        self.encoding, self.label = "categorical", label

    @property
    def children(self) -> tuple[Expression, ...]:
        return self.sops

    def rebuilt(self, children: Sequence[Any], label: str | None) -> NextTokens:
        return NextTokens(self.tokens, children, label=label)
