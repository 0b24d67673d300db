"""A network out of files of state dicts: which part of a file it is, and under whose names its arrays are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from weightspace.errors import UnreadableError
from weightspace.files.checkpoints import Outline, outlines, read
from weightspace.weights.array_names import taken_apart
from weightspace.weights.matching import MismatchError, match
from weightspace.weights.spec import NetworkSpec, SpecError
from weightspace.weights.state_dict import STORED, Topology, natural_order, spec_of_state_dict
from weightspace.zoo.importers.foreign import Unfit, Weights

WHOLE = "the file itself"
"""What the state dict at the top of a file is called among its parts."""


# -- which part of a file ---------------------------------------------------------------------------------------------


def network_in(path: Path, part: str | None = None) -> Outline:
    """The state dict in a file that is a network; nothing in the file is executed.

    Pictures, optimisers' moments and other arrays are no network: one has an array that is named as a layer's weight.

    Args:
        part: the keys that lead to the state dict, with dots between them; "." is the file itself. Needed where a file
            holds several networks with other weights.
    Raises:
        Unfit: if the file is missing, torn, refused as it would run code, or holds no network or several.
    """
    found = {name_of(one): one for one in _outlines(path) if any(np.prod(shape) for shape in one.floating.values())}
    if not found:
        raise Unfit("unreadable", f"{path} holds no array of floating-point numbers: give a file of weights")
    if part is not None:
        if part not in found and not (part == "." and WHOLE in found):
            raise Unfit("missing", f"{path} has no part {part!r} with weights: it has {', '.join(found)}")
        return found[WHOLE if part == "." else part]
    networks = {name: one for name, one in found.items() if _has_layers(one)}
    if not networks:
        first = next(iter(found.values()))
        if len(found) == 1 and first.kind not in ("pytorch", "pickle"):
            return first  # of other kinds only weights are listed, whatever they are called
        names = ", ".join(list(first.floating)[:3])
        raise Unfit(
            "unreadable",
            f"{path} holds no network that is plain to see: none of its arrays ({names}, ...) is called as a layer's "
            f"weight; if it is one all the same, name its part (--part {'.' if WHOLE in found else next(iter(found))})",
        )
    name, *others = networks
    if any(not _same(networks[name], networks[other]) for other in others):
        raise Unfit(
            "which",
            f"{path} holds {len(networks)} networks ({', '.join(networks)}): say which one is meant (--part "
            f"{'.' if name == WHOLE else name})",
        )
    return networks[name]


def name_of(outline: Outline) -> str:
    """What a part is called, for `network_in`."""
    return ".".join(outline.part) or WHOLE


def _outlines(path: Path) -> list[Outline]:
    try:
        return outlines(path)
    except UnreadableError as error:
        reason = "code" if "nothing in it was executed" in str(error) else "unreadable" if path.is_file() else "missing"
        raise Unfit(reason, str(error)) from None
    except Exception as error:  # a file can be wrong in ways that nobody thought of, and must not stop the others
        what = " ".join(str(error).split())[:120]
        raise Unfit("unreadable", f"{path} could not be read ({type(error).__name__}: {what})") from None


def _has_layers(outline: Outline) -> bool:
    return any(taken_apart(name).word == "weight" and np.prod(shape) > 1 for name, shape in outline.floating.items())


def _same(one: Outline, other: Outline) -> bool:
    """Whether two parts are one network twice, as a file may hold it as the last and as the best one."""
    if dict(one.floating) != dict(other.floating):
        return False
    return all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(read_arrays(one)[1], read_arrays(other)[1], strict=True)
    )


def read_arrays(outline: Outline, only: Sequence[str] | None = None) -> tuple[list[str], list[np.ndarray]]:
    """Names of the floating-point arrays of a state dict in natural order, and the arrays as float32.

    Args:
        only: the names of those that are read; all unless given.
    Raises:
        Unfit: if the file cannot be read any more.
    """
    some = outline.floating if only is None else {name: outline.floating[name] for name in only}
    names = natural_order(name for name, shape in some.items() if np.prod(shape))
    try:
        arrays = read(outline, names)
    except UnreadableError as error:
        raise Unfit("unreadable", str(error)) from None
    except Exception as error:  # see above
        raise Unfit("unreadable", f"{outline.path} could not be read ({type(error).__name__})") from None
    return names, [arrays[name] for name in names]


# -- under whose names ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Described:
    """The floating-point arrays of a network's files: their shapes and their types, in natural order."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    @staticmethod
    def of(paths: Sequence[Path], part: str | None) -> tuple[_Described, list[Outline]]:
        found = [network_in(path, part) if len(paths) == 1 else _outlines(path)[0] for path in paths]
        held: dict[str, Outline] = {}
        for outline in found:
            for name, shape in outline.floating.items():
                if name in held:
                    path = outline.path
                    raise Unfit("shape", f"{path} holds the array {name!r}, which another part of the network has too")
                if np.prod(shape):
                    held[name] = outline
        names = natural_order(held)
        shapes = {name: held[name].floating[name] for name in names}
        return _Described(shapes, {name: held[name].dtypes[name] for name in names}), found


class StateDicts:
    """The networks of a source's files, those of one architecture under one set of names.

    The names are those of the first file, in the order of the source, whose arrays are this network. So it makes no
    difference in which order files are read, or which are read again when a killed import goes on.

    Attributes:
        notes: what the person who imports should know, a sentence each; more as files are read.
    """

    def __init__(self, files: Sequence[Sequence[Path]], topology: Topology, part: str | None) -> None:
        self.files, self.part = files, part
        self.topology: Topology = topology
        self.notes: list[str] = []
        self._told: set[tuple[str, ...]] = set()

    def read(self, paths: Sequence[Path]) -> Weights:
        """The network in one file, or in several that share it out.

        Raises:
            Unfit: if it cannot be read, or does not fit the topology.
        """
        described, found = _Described.of(paths, self.part)
        try:
            spec, names = self._known(described.shapes, self._first_of_each)
            spec = self._spec(described) if spec is None else spec
        except SpecError as error:
            raise Unfit("shape", f"{paths[0]} does not fit topology {self.topology}: {error}") from None
        arrays = {name: array for outline in found for name, array in zip(*read_arrays(outline), strict=True)}
        names = names or tuple(leaf.name for leaf in spec.leaves)
        types = (STORED[described.dtypes[name]] for name in names)
        leaves = tuple(replace(leaf, dtype=dtype) for leaf, dtype in zip(spec.leaves, types, strict=True))
        self._tell(paths[0], found)
        return Weights(NetworkSpec(leaves, spec.groups), np.concatenate([arrays[name].ravel() for name in names]))

    @cached_property
    def _first_of_each(self) -> list[NetworkSpec]:
        """The architectures of the source, each under the names of the first file that has it; no weights are read."""
        specs: list[NetworkSpec] = []
        seen: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
        for paths in self.files:
            try:
                described, _ = _Described.of(paths, self.part)
                key = tuple(described.shapes.items())
                if key not in seen and self._known(described.shapes, specs)[0] is None:
                    specs.append(self._spec(described))
                seen.add(key)
            except (Unfit, SpecError):  # which is said when it is read
                continue
        return specs

    def _spec(self, described: _Described) -> NetworkSpec:
        return spec_of_state_dict(described.shapes, topology=self.topology)

    def _known(
        self, shapes: Mapping[str, tuple[int, ...]], specs: Sequence[NetworkSpec]
    ) -> tuple[NetworkSpec | None, tuple[str, ...]]:
        """The spec that arrays fit under whatever names, and their names in its order."""
        held = Counter(shapes.values())
        for spec in specs:
            if {leaf.name: leaf.shape for leaf in spec.leaves} == shapes:
                return spec, ()
            if Counter(leaf.shape for leaf in spec.leaves) <= held:
                try:
                    return spec, match(spec, shapes, whose="another file").names
                except MismatchError:
                    continue
        return None, ()

    def _tell(self, path: Path, found: Sequence[Outline]) -> None:
        """Say, once for each part, that a file held more than what was taken."""
        if len(found) > 1 or not found[0].part or found[0].part in self._told:
            return
        self._told.add(found[0].part)
        self.notes.append(f"of files with several parts {name_of(found[0])} was taken, first of {path.name}")
