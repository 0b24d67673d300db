"""The best exact match possible on the typed tokens, from rewritings of single lines that leave weights as they are.

The typed target has constants, factors and operand order; lost are functions of one table, such as `x > 3` and `x ==
4` of what is at most 4, comparisons that select alike, and the order of the operands of what is commutative: both
orders are written, and equally likely. A Markov chain redraws the function, comparison or order of one line from the
sampler's own distribution for the types around it, and keeps it if the weights stay; see `decompiler.paper.ceiling`,
whose estimates these are. The chain changes neither what reads what nor the types, and does not ask again what the
sampler asks of an S-op's values, which follow from the weights but for their scale: the estimate is from above.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

from weightspace.decompiler.paper.ceiling import Posterior, summary
from weightspace.decompiler.paper.walk import weights_key
from weightspace.errors import TaskError
from weightspace.rasp.language import (
    Aggregate,
    Expression,
    LinearSequenceMap,
    Map,
    Select,
    SequenceMap,
    SOp,
    indices,
    rebuild,
    tokens,
)
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import MAPS, SEQUENCE_MAPS, TYPED_COMPARISONS, Kind, choose, sample
from weightspace.rasp.tokens import TYPED

DRAWN: tuple[Kind, ...] = ("bool", "float", "categorical")
"""What a Map's result may be, equally likely."""


def kinds_of_program(program: Program) -> dict[int, set[Kind]]:
    """The types that each S-op may have had for the sampler, by the `id` of its node."""
    kinds: dict[int, set[Kind]] = {id(tokens): {"categorical"}, id(indices): {"categorical"}}
    for node in program.nodes:
        if isinstance(node, Map):
            encoded: list[Kind] = [
                kind for kind in DRAWN if (kind == "categorical") == (node.encoding == "categorical")
            ]
            read = kinds[id(node.inner)]
            kinds[id(node)] = {
                out for out in encoded for given in read if node.function.source in MAPS.get((given, out), ())
            }
        elif isinstance(node, Aggregate) and node.numerical:
            kinds[id(node)] = {"freq"}
            kinds[id(node.sop)] &= {"bool"}
        elif isinstance(node, LinearSequenceMap):
            kinds[id(node)] = {"float"}
            for read in (node.first, node.second):
                kinds[id(read)] &= {"float"}
        elif isinstance(node, SOp) and node is not tokens and node is not indices:
            kinds[id(node)] = {"categorical"}
    return kinds


class TypedWalk:
    """A Markov chain over the typed programs that have the same wiring, types and weights as the first."""

    def __init__(self, program: Program, random: Random) -> None:
        self.program, self.random = program, random
        self.key = weights_key(program, fuse=False)
        if self.key is None:
            raise TaskError("Tracr cannot compile the program: there are no weights to know it by")
        self.target = _target(program)
        self.known: dict[str, bytes | None] = {str(program): self.target}

    def step(self) -> bytes:
        """Try to rewrite one line; gives the target where the chain now stands."""
        nodes = [node for node in self.program.nodes if node is not tokens and node is not indices]
        chosen = choose(self.random, nodes)
        new = self._rewritten(chosen)
        if new is None:
            return self.target
        made: dict[int, Expression] = {id(tokens): tokens, id(indices): indices}
        for node in nodes:
            original = new if node is chosen else node
            made[id(node)] = rebuild(original, [made[id(child)] for child in original.children], None)
        program = Program.of(
            made[id(self.program.output)],  # type: ignore[arg-type]
            vocab=self.program.vocab,
            max_seq_len=self.program.max_seq_len,
        )
        text = str(program)
        if text not in self.known:
            alike = weights_key(program, fuse=False) == self.key
            self.known[text] = _target(program) if alike else None
        target = self.known[text]
        if target is not None:
            self.program, self.target = program, target
        return self.target

    def _rewritten(self, node: Expression) -> Expression | None:
        """A line with another function, comparison or order, drawn as the sampler draws it; None if it has none."""
        random, swapped = self.random, self.random.random() < 0.5
        if isinstance(node, Map):
            kinds = kinds_of_program(self.program)
            pairs: list[tuple[Kind, Kind]] = [
                (i, o) for i in kinds[id(node.inner)] for o in kinds[id(node)] if (i, o) in MAPS
            ]
            if not pairs:
                return None
            source = choose(random, MAPS[choose(random, sorted(pairs, key=str))])
            return Map(source, node.inner, encoding=node.encoding)
        if isinstance(node, SequenceMap):
            first, second = (node.second, node.first) if swapped else (node.first, node.second)
            return SequenceMap(choose(random, SEQUENCE_MAPS), first, second)
        if isinstance(node, LinearSequenceMap):
            if not swapped:
                return None
            return LinearSequenceMap(node.second, node.first, node.second_factor, node.first_factor)
        if isinstance(node, Select):
            keys, queries = (node.queries, node.keys) if swapped else (node.keys, node.queries)
            return Select(keys, queries, choose(random, TYPED_COMPARISONS))
        return None


def _target(program: Program) -> bytes:
    return bytes(TYPED.encode(program))


def typed_ceiling(
    programs: int, steps: int, seed: int, lengths: tuple[int, ...] | None = None, most_parameters: int = 65_536
) -> list[Posterior]:
    """The posteriors of so many different typed programs; the mean of `held_out` is the estimate of the ceiling.

    Args:
        steps: of each chain; take several numbers and see whether the estimate still falls.
        lengths: S-ops, inputs counted; the distribution's own unless given.
        most_parameters: larger transformers are left out, as in the zoos.
    Raises:
        TaskError: if there are too few programs or steps.
    """
    if programs < 1 or steps < 10:
        raise TaskError(f"{programs} programs and {steps} steps will not do: give at least 1 and 10")
    return [
        _posterior(program, steps, Random(f"typed walk {seed} {number}"))
        for number, program in enumerate(islice(_different(seed, lengths, most_parameters), programs))
    ]


def _posterior(program: Program, steps: int, random: Random) -> Posterior:
    walk = TypedWalk(program, random)
    start = walk.target
    return summary([walk.step() for _ in range(steps)], start, len(program))


def _different(seed: int, lengths: tuple[int, ...] | None, most_parameters: int) -> Iterator[Program]:
    seen: set[Any] = set()
    for program in sample("typed", seed, lengths):
        key = weights_key(program, most_parameters, fuse=False)
        if key is not None and key not in seen:
            seen.add(key)
            yield program
