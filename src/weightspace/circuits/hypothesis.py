"""A hypothesis: a program, and which component of a transformer, or subspace of its output, holds which S-op."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.errors import NetworkError, RaspError, UnreadableError
from weightspace.files.atomic import write_atomically
from weightspace.files.json_text import json_object
from weightspace.rasp.language import Selector
from weightspace.rasp.program import Program
from weightspace.transformers.places import HEAD_AXIS, KINDS, Place
from weightspace.transformers.shape import TransformerShape

LARGEST = 2**27
"""Bytes of a file of JSON that are read."""


@dataclass(frozen=True, eq=False)
class Component:
    """What holds an S-op: a place of the forward pass, at each place of the text; or a subspace of what stands there.

    Attributes:
        place: one that has a value at each place of the text: a stream, a head's output, hidden units, an MLP's output.
        directions: columns that span the subspace, independent of each other; None for all that stands there.
    """

    place: Place
    directions: Float[Tensor, "width rank"] | None = None

    def __post_init__(self) -> None:
        kind = self.place.kind
        if HEAD_AXIS.get(kind) == 1 or kind.endswith("scale"):
            raise NetworkError(f"{self.place} holds no S-op: name a stream, a head's output, hidden units or an MLP")
        if kind in HEAD_AXIS and self.place.head is None:
            raise NetworkError(f"{self.place} stands for all heads of a layer: say which head holds the S-op")
        if self.directions is not None:
            rank = int(torch.linalg.matrix_rank(self.directions)) if self.directions.numel() else 0
            if not rank or rank < self.directions.shape[1] or not bool(self.directions.isfinite().all()):
                raise NetworkError(
                    f"the {self.directions.shape[1]} directions at {self.place} span {rank} dimensions: give at least "
                    "one, finite and independent of each other"
                )

    @property
    def rank(self) -> int | None:
        """Dimensions of the subspace; None for all that stands there."""
        return None if self.directions is None else self.directions.shape[1]

    @property
    def basis(self) -> Float[Tensor, "width rank"] | None:
        """Orthonormal columns that span the subspace."""
        return None if self.directions is None else torch.linalg.qr(self.directions)[0]

    def __str__(self) -> str:
        return str(self.place) if self.rank is None else f"{self.place} along {self.rank}"

    def check(self, shape: TransformerShape) -> None:
        """Hold it against a transformer.

        Raises:
            NetworkError: if there is no such place in it, or directions are of another width.
        """
        self.place.check(shape)
        width = _width(self.place, shape)
        if self.directions is not None and len(self.directions) != width:
            raise NetworkError(
                f"directions of width {len(self.directions)} do not fit {self.place}, where {width} numbers stand"
            )


def _width(place: Place, shape: TransformerShape) -> int:
    if place.kind in ("pre", "gate", "post"):
        return shape.hidden
    if place.kind in ("q", "k", "v", "rot_q", "rot_k", "z"):
        return shape.head_size
    return shape.outputs if place.kind == "logits" else shape.width


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """What a transformer computes, and where: it claims that each component holds its S-op and nothing else matters.

    Attributes:
        program: what is computed.
        components: by variable of the program, `tokens` and `indices` included, what holds it.
    Raises:
        NetworkError: if a variable is not one of the program's S-ops, or two variables name the same component.
    """

    program: Program
    components: Mapping[str, Component]

    def __post_init__(self) -> None:
        nodes = {"tokens": None, "indices": None, **dict(self.program.statements)}
        for name in self.components:
            if name not in nodes or isinstance(nodes[name], Selector):
                known = ", ".join(name for name, node in nodes.items() if not isinstance(node, Selector))
                raise NetworkError(f"the program has no S-op {name!r}: it has {known}")
        entries = list(self.components.items())
        for number, (name, component) in enumerate(entries):
            for other, second in entries[:number]:
                if _overlap(component, second):
                    raise NetworkError(
                        f"{other} and {name} name the same component, {component.place}: give each a place or "
                        "directions of its own"
                    )

    def __repr__(self) -> str:
        return f"<Hypothesis: {', '.join(f'{name} at {held}' for name, held in self.components.items())}>"

    def check(self, shape: TransformerShape) -> None:
        """Hold it against a transformer.

        Raises:
            NetworkError: if a component is not there.
        """
        for name, component in self.components.items():
            try:
                component.check(shape)
            except NetworkError as error:
                raise NetworkError(f"{name}: {error}") from None

    def to_record(self) -> dict[str, Any]:
        """What `from_record` makes the same hypothesis of; JSON-serialisable."""
        components = []
        for name, held in self.components.items():
            entry: dict[str, Any] = {"variable": name, "kind": held.place.kind}
            entry |= {"layer": held.place.layer, "head": held.place.head}
            entry["directions"] = None if held.directions is None else held.directions.T.tolist()
            components.append(entry)
        return {"program": str(self.program), "components": components}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Hypothesis:
        """The hypothesis of a record.

        Raises:
            NetworkError: if something is missing, unknown, named twice or of another form.
        """
        try:
            program = Program.parse(record["program"])
            components: dict[str, Component] = {}
            for entry in record["components"]:
                name = entry["variable"]
                if name in components:
                    raise NetworkError(f"{name} is given two components: give it one")
                components[name] = _component(entry)
        except KeyError as error:
            raise NetworkError(f"a hypothesis lacks {error}: it has a program and components") from None
        except RaspError as error:
            raise NetworkError(f"the program of a hypothesis cannot be read: {error}") from None
        except (TypeError, AttributeError):
            raise NetworkError("a hypothesis has a program and a list of components: this is of another form") from None
        return cls(program, components)

    def to_json(self, path: str | Path) -> None:
        """Write it as JSON; the file appears whole or not at all."""
        write_atomically(Path(path), json.dumps(self.to_record()).encode())

    @classmethod
    def from_json(cls, path: str | Path) -> Hypothesis:
        """Read what `to_json` wrote.

        Raises:
            UnreadableError: if there is no such file, or it is no JSON.
            NetworkError: as `from_record` does.
        """
        try:
            with Path(path).open("rb") as file:
                raw = file.read(LARGEST + 1)
            if len(raw) > LARGEST:
                raise ValueError(f"it is larger than {LARGEST:,} bytes")
            record = json_object(raw)
        except OSError as error:
            raise UnreadableError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
        except ValueError as error:
            raise UnreadableError(f"{path} is no hypothesis: {error}") from None
        try:
            return cls.from_record(record)
        except NetworkError as error:
            raise NetworkError(f"{path}: {error}") from None


def _component(entry: Mapping[str, Any]) -> Component:
    name, kind, layer, head = entry["variable"], entry["kind"], entry.get("layer"), entry.get("head")
    numbers = all(each is None or (isinstance(each, int) and not isinstance(each, bool)) for each in (layer, head))
    if not (isinstance(name, str) and isinstance(kind, str) and numbers):
        raise NetworkError(f"the component of {name!r} is a kind with the numbers of its layer and head")
    if kind not in KINDS:
        raise NetworkError(f"there is no place {kind!r}: known are {', '.join(KINDS)}")
    said: Any = entry.get("directions")
    if said is None:
        return Component(Place(kind, layer, head))  # type: ignore[arg-type] (checked by Place)
    if not said or len({len(row) for row in said}) != 1 or not all(_is_number(each) for row in said for each in row):
        raise NetworkError(f"the directions of {name} are lists of numbers of one length, at least one")
    return Component(Place(kind, layer, head), torch.tensor(said, dtype=torch.float32).T)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _overlap(first: Component, second: Component) -> bool:
    """Whether two components share something."""
    if first.place != second.place:
        return False
    if first.directions is None or second.directions is None:
        return True
    if len(first.directions) != len(second.directions):
        return False  # one of them does not fit the transformer, which `check` says
    both = torch.cat([first.directions, second.directions], 1)
    return int(torch.linalg.matrix_rank(both)) < both.shape[1]
