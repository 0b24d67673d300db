"""What a checkpoint file holds, without a verdict: kinds, hash, arrays, architecture as far as it can be told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from weightspace.errors import NetworkError, UnreadableError, printable
from weightspace.files.checkpoints import FLOATING, Outline, outlines
from weightspace.files.kinds import kinds_of, open_regular
from weightspace.files.tensors import METADATA_KEY
from weightspace.notebook import card
from weightspace.weights.network import description_of
from weightspace.weights.spec import NetworkSpec, SpecError
from weightspace.weights.state_dict import natural_order, spec_of_state_dict

SHOWN = 24
"""Arrays, and entries of metadata, that are printed of each part."""
FILES = 3
"""Files that are named of a checkpoint in several."""
MOST_ARRAYS = 20_000
"""A file with more is not held against topologies."""
LONGEST = 160
"""Characters of an entry of metadata that are printed."""


@dataclass(frozen=True)
class Array:
    """One array: its name, its shape, and its type by safetensors' names (F32, BF16, I8)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


@dataclass(frozen=True)
class Part:
    """One state dict in a file.

    Attributes:
        keys: that lead to it inside a PyTorch file; empty for the file itself.
        arrays: in the order of the file.
        architecture: how the arrays could be connected, in words: "chain" or "transformer" where names and shapes fit
            one, which is no proof; "unknown" where they do not.
        symmetries: what such a network can do without changing its function, in words; empty where unknown.
        metadata: the texts that the file carries.
    """

    keys: tuple[str, ...]
    arrays: tuple[Array, ...]
    architecture: str
    symmetries: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> int:
        """Floating-point numbers."""
        return sum(array.size for array in self.arrays if array.dtype in FLOATING)


@dataclass(frozen=True)
class Inspection:
    """What one file holds.

    Attributes:
        file: its path as it was given.
        size: bytes.
        sha256: of the file.
        kinds: every kind that its content could be read as; an ordinary file is of one.
        parts: its state dicts, the largest first; empty if it cannot be read.
        problem: why it cannot be read, in a sentence; empty if it can.
        notes: what else a reader must know, a sentence each.
    """

    file: str
    size: int
    sha256: str
    kinds: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        name = printable(Path(self.file).name)
        held = f"{self.parts[0].weights:,} weights in {len(self.parts[0].arrays)} arrays" if self.parts else "not read"
        return f"<Inspection of {name[:60]}: {' and '.join(self.kinds) or 'no kind that is known'}, {held}>"

    def _repr_html_(self) -> str:
        facts: dict[str, Any] = {"bytes": f"{self.size:,}", "sha256": self.sha256}
        rows = [(printable(a.name), list(a.shape), a.dtype) for part in self.parts[:1] for a in part.arrays]
        facts |= {"architecture": self.parts[0].architecture} if self.parts else {"problem": printable(self.problem)}
        return card(repr(self)[1:-1], facts, header=("array", "shape", "type"), rows=rows)

    def to_json(self) -> dict[str, Any]:
        """Everything, with names as they stand in the file: whoever prints them has to escape them, as JSON does."""
        parts = [
            {
                "keys": list(part.keys),
                "weights": part.weights,
                "architecture": part.architecture,
                "symmetries": part.symmetries,
                "metadata": dict(part.metadata),
                "arrays": [{"name": a.name, "shape": list(a.shape), "dtype": a.dtype} for a in part.arrays],
            }
            for part in self.parts
        ]
        facts = {name: getattr(self, name) for name in ("file", "size", "sha256", "problem")}
        return {**facts, "kinds": list(self.kinds), "notes": list(self.notes), "parts": parts}


def inspect(path: str | Path) -> Inspection:
    """What a checkpoint holds, without a verdict; nothing in it is executed.

    Raises:
        UnreadableError: if there is no such file, or it is no ordinary one. A file that is refused or damaged is
            described as far as it goes, with its problem.
    """
    path = Path(path)
    kinds = kinds_of(path)
    digest = hashlib.sha256()
    size = 0
    with open_regular(path) as file:
        while piece := file.read(2**20):
            digest.update(piece)
            size += len(piece)
    notes = []
    if len(kinds) > 1:
        notes.append(f"It is {len(kinds)} kinds of file at once: what a program reads of it depends on the program.")
    try:
        found = outlines(path)
    except UnreadableError as error:
        return Inspection(str(path), size, digest.hexdigest(), kinds, problem=str(error), notes=tuple(notes))
    notes += dict.fromkeys(note for one in found for note in one.notes)
    files = list(dict.fromkeys(other.name for one in found for other in one.files if other != path))
    if files:
        more = f", and {len(files) - FILES:,} more" if len(files) > FILES else ""
        notes.append(f"Its arrays lie in {len(files):,} files beside it: {', '.join(files[:FILES])}{more}.")
    if len(found) > 1:
        notes.append(f"It holds {len(found)} state dicts: the keys that lead to each stand before it.")
    parts = tuple(_part(path, one) for one in found)
    return Inspection(str(path), size, digest.hexdigest(), kinds, parts, notes=tuple(notes))


def _part(path: Path, found: Outline) -> Part:
    arrays = tuple(Array(name, tuple(shape), found.dtypes[name]) for name, shape in found.shapes.items())
    architecture, spec = _architecture(path, found)
    return Part(found.part, arrays, architecture, _symmetries(spec), found.metadata)


def _architecture(path: Path, found: Outline) -> tuple[str, NetworkSpec | None]:
    """How the arrays could be connected, by what the file says of itself, or by the first topology that they fit."""
    if METADATA_KEY in found.metadata:
        try:
            spec = NetworkSpec.from_json(description_of(path, found.metadata)["spec"])
            if {leaf.name: leaf.shape for leaf in spec.leaves} == dict(found.shapes):
                return "as the file says itself", spec
        except (NetworkError, SpecError, KeyError, TypeError, ValueError, RecursionError):
            pass  # what it says is of another kind of file, or damaged: its arrays are looked at like any others
    shapes = found.floating
    if not 0 < len(shapes) <= MOST_ARRAYS:
        return "unknown", None
    orders: Sequence[Callable[[Mapping[str, tuple[int, ...]]], list[str]]] = (list, natural_order)
    for order in orders:
        for topology in ("transformer", "chain"):
            try:
                return topology, spec_of_state_dict({name: shapes[name] for name in order(shapes)}, topology=topology)
            except SpecError:
                continue
    return "unknown", None


def _symmetries(spec: NetworkSpec | None) -> str:
    free = [group for group in spec.groups if group.permutable] if spec is not None else []
    if not free:
        return ""
    return f"{sum(group.size for group in free):,} neurons in {len(free)} groups can change places"


def described(found: Inspection) -> str:
    """An inspection as a person reads it in a terminal; names and texts out of the file are escaped."""
    lines = [
        printable(found.file),
        f"  kind          {' and '.join(found.kinds) or 'none that is known'}",
        f"  bytes         {found.size:,}",
        f"  sha256        {found.sha256}",
    ]
    lines += [f"  note          {printable(note)}" for note in found.notes]
    if found.problem:
        return "\n".join([*lines, f"  not read      {printable(found.problem)}"])
    for part in found.parts:
        lines += ["", *_described(part)]
    return "\n".join(lines)


def _described(part: Part) -> list[str]:
    numbers = sum(array.size for array in part.arrays)
    lines = [f"  part          {printable('.'.join(part.keys))}"] if part.keys else []
    lines.append(f"  weights       {part.weights:,}")
    if numbers != part.weights:
        lines.append(f"  other numbers {numbers - part.weights:,}")
    lines.append(f"  architecture  {part.architecture}{f': {part.symmetries}' if part.symmetries else ''}")
    for name, text in list(part.metadata.items())[:SHOWN]:
        cut = f"{text[:LONGEST]}... ({len(text):,} characters)" if len(text) > LONGEST else text
        lines.append(f"  metadata      {printable(name[:LONGEST])}: {printable(cut)}")
    if len(part.metadata) > SHOWN:
        lines.append(f"  metadata      and {len(part.metadata) - SHOWN:,} more entries")
    shown = part.arrays[:SHOWN]
    width = min(48, max((len(printable(array.name)) for array in shown), default=0))
    lines.append(f"  arrays        {len(part.arrays):,}")
    lines += [
        f"    {printable(array.name[:LONGEST]):<{width}}  {array.dtype:<4}  {list(array.shape)}" for array in shown
    ]
    if len(part.arrays) > len(shown):
        lines.append(f"    and {len(part.arrays) - len(shown):,} more")
    return lines
