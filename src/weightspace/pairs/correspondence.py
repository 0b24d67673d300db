"""Which head or MLP of a transformer holds which S-op: checked, written as JSON, and drawn at random."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from weightspace.circuits.hypothesis import Component, Hypothesis
from weightspace.errors import NetworkError
from weightspace.files.atomic import write_atomically
from weightspace.rasp.language import Aggregate, Expression, SelectorWidth, SOp, indices, tokens, walk
from weightspace.rasp.program import Program
from weightspace.transformers.places import Place
from weightspace.transformers.shape import TransformerShape

TRIES = 200


@dataclass(frozen=True, order=True)
class Slot:
    """A head, or the MLP of a layer.

    Attributes:
        layer: counted from 0.
        head: counted from 0; -1 for the MLP.
    """

    layer: int
    head: int = -1

    @property
    def is_head(self) -> bool:
        return self.head >= 0

    @property
    def place(self) -> Place:
        """What it gives to the stream: of a head before its output matrix."""
        return Place("z", self.layer, self.head) if self.is_head else Place("mlp_out", self.layer)

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}" if self.is_head else f"{self.layer}.mlp"


def slots_of(layers: int, heads: int) -> list[Slot]:
    """All heads and MLPs of a transformer, in the order of its forward pass."""
    return [Slot(layer, head) for layer in range(layers) for head in (*range(heads), -1)]


@dataclass(frozen=True, eq=False)
class Correspondence:
    """A program and the component of each of its `operations`.

    Attributes:
        program: what is computed.
        slots: by variable, `tokens` and `indices` left out.
        helpers: of a SelectorWidth, whose count stands in an MLP, the head that selects for it.
    Raises:
        NetworkError: if an S-op has no component, or one of the wrong kind, or two have the same.
    """

    program: Program
    slots: Mapping[str, Slot]
    helpers: Mapping[str, Slot]

    def __post_init__(self) -> None:
        needed = operations(self.program)
        for name, node in needed.items():
            slot = self.slots.get(name)
            if slot is None:
                raise NetworkError(f"{name} has no component: give each S-op that the output needs one")
            if slot.is_head != isinstance(node, Aggregate):
                raise NetworkError(
                    f"{name} is at {slot}, and {type(node).__name__} is held by "
                    f"{'a head' if isinstance(node, Aggregate) else 'an MLP'}"
                )
            if isinstance(node, SelectorWidth) and not self.helpers.get(name, Slot(0)).is_head:
                raise NetworkError(f"{name} counts what a head selects: say which in `helpers`")
        for name in (*self.slots, *self.helpers):
            if name not in needed:
                raise NetworkError(f"no component is wanted for {name!r}: the S-ops are {', '.join(needed)}")
        every = [*self.slots.values(), *self.helpers.values()]
        twice = {slot for slot in every if every.count(slot) > 1}
        if twice:
            raise NetworkError(f"the component {min(twice)} is named twice: give each S-op one of its own")

    @property
    def used(self) -> set[Slot]:
        """Components that hold or help."""
        return {*self.slots.values(), *self.helpers.values()}

    @property
    def hypothesis(self) -> Hypothesis:
        """The same for `circuits`: of a SelectorWidth the MLP."""
        return Hypothesis(self.program, {name: Component(slot.place) for name, slot in self.slots.items()})

    def check(self, shape: TransformerShape) -> None:
        """Hold it against a transformer.

        Raises:
            NetworkError: if a component is not there.
        """
        self.hypothesis.check(shape)
        for name, slot in self.helpers.items():
            try:
                slot.place.check(shape)
            except NetworkError as error:
                raise NetworkError(f"{name}: {error}") from None

    def to_record(self) -> dict[str, Any]:
        """What `from_record` makes the same correspondence of, and `Hypothesis.from_record` its hypothesis."""
        helpers = {name: [slot.layer, slot.head] for name, slot in self.helpers.items()}
        return {**self.hypothesis.to_record(), "helpers": helpers}

    def to_json(self, path: Path) -> None:
        """Write it; `Hypothesis.from_json` reads it too."""
        write_atomically(path, json.dumps(self.to_record(), indent=1).encode())

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Correspondence:
        """The correspondence of a record.

        Raises:
            NetworkError: if something is missing, named twice or of another form.
        """
        found = Hypothesis.from_record(record)
        slots = {}
        for name, held in found.components.items():
            place = held.place
            if place.kind not in ("z", "mlp_out") or held.directions is not None:
                raise NetworkError(f"{name} is at {held}: expected the whole of a head (z) or of an MLP (mlp_out)")
            slots[name] = Slot(place.layer or 0, -1 if place.head is None else place.head)
        try:
            helpers = {name: Slot(int(layer), int(head)) for name, (layer, head) in record["helpers"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise NetworkError("`helpers` gives a layer and a head by variable: this is of another form") from None
        return cls(found.program, slots, helpers)


def operations(program: Program) -> dict[str, SOp]:
    """The S-ops that have components: those that the output needs and the tokens decide, each after what it reads.

    What follows from the places alone is the same on every input of one length: nothing could show where it is.
    """
    needed = {id(node) for node in program.nodes}
    return {
        name: node
        for name, node in program.statements
        if isinstance(node, SOp)
        and id(node) in needed
        and node is not tokens
        and any(each is tokens for each in walk(node))
    }


def reads(program: Program) -> dict[str, set[str]]:
    """For each S-op those that it reads, itself or by its selector."""
    known = operations(program)
    found = {}
    for name, node in known.items():
        waiting: list[Expression] = list(node.children)
        found[name] = set()
        while waiting:
            child = waiting.pop()
            if child is tokens or child is indices:
                continue
            if program.name(child) in known:
                found[name].add(program.name(child))
            else:
                waiting += child.children
    return found


def layers_needed(program: Program, heads: int) -> int:
    """The fewest layers in which every S-op has a component of its own."""
    found = _placed(program, len(program.statements) + 1, heads, None)
    assert found is not None  # a layer for each S-op is always enough
    return 1 + max(slot.layer for slot in found.used)


def drawn_correspondence(program: Program, layers: int, heads: int, random: Random) -> Correspondence:
    """A component for each S-op, drawn at random among those that see what it reads.

    Raises:
        NetworkError: if there are too few components; the message says what is missing.
    """
    needed = layers_needed(program, heads)
    if needed > layers:
        count = len(operations(program))
        raise NetworkError(
            f"the program's {count} S-ops need {needed} layers of {heads} heads and an MLP, and the transformer has "
            f"{layers}: {needed - layers} are missing"
        )
    for _ in range(TRIES):
        found = _placed(program, layers, heads, random)
        if found is not None:
            return found
    found = _placed(program, layers, heads, None)
    assert found is not None
    return found


def _placed(program: Program, layers: int, heads: int, random: Random | None) -> Correspondence | None:
    """S-ops in their order at the first free component that sees what they read, or at a random one of these."""
    slots: dict[str, Slot] = {}
    helpers: dict[str, Slot] = {}
    taken: set[Slot] = set()

    def take(options: list[Slot]) -> Slot | None:
        free = [slot for slot in options if slot not in taken]
        if not free:
            return None
        taken.add(chosen := free[0] if random is None else random.choice(free))
        return chosen

    needed, before = operations(program), reads(program)
    for name, node in needed.items():
        ready = [slots[other] for other in before[name]]
        first = max((slot.layer + (0 if slot.is_head else 1) for slot in ready), default=0)
        slot = None
        if isinstance(node, Aggregate | SelectorWidth):
            seen = max((slot.layer + 1 for slot in ready), default=0)
            slot = take([Slot(layer, number) for layer in range(seen, layers) for number in range(heads)])
            if slot is None:
                return None
        if isinstance(node, SelectorWidth):
            assert slot is not None
            helpers[name], first = slot, slot.layer
        if not isinstance(node, Aggregate):
            slot = take([Slot(layer) for layer in range(first, layers)])
        if slot is None:
            return None
        slots[name] = slot
    return Correspondence(program, slots, helpers)
