"""One network under other names: which array of a file is which of a spec, or the first difference between the two."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Literal

from weightspace.errors import NetworkError
from weightspace.files.checkpoints import FLOATING
from weightspace.weights.array_names import Token, parts_of, roles_in_layer, runs_before, taken_apart
from weightspace.weights.spec import NetworkSpec, Role
from weightspace.weights.state_dict import natural_order

Shapes = Mapping[str, tuple[int, ...]]
Kind = Literal["linear", "norm", "other"]

SHOWN = 3
"""Pairs of names that a note shows."""
DEEPEST = 32
"""Words and numbers of a layer's name that are looked at for the blocks that it is in."""
TRIED = 20_000
"""Steps after which a search for a second assignment gives up, and says that there may be one."""


class MismatchError(NetworkError):
    """Arrays that are another network than the one expected, or that may be it in two ways; the first difference."""


@dataclass(frozen=True)
class Match:
    """Which array of a file is which array of a spec.

    Attributes:
        names: the file's name of each leaf, in leaf order.
        left_out: arrays of the file that change nothing in the network, and what each is.
        renamed: the file's name and the spec's, of each array whose name was not enough to know it; else empty.
    """

    names: tuple[str, ...]
    left_out: Mapping[str, str]
    renamed: tuple[tuple[str, str], ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of it, a sentence each."""
        notes = []
        if self.renamed:
            pairs = ", ".join(f"{own[:60]} is {leaf}" for own, leaf in self.renamed[:SHOWN])
            more = f", and so on for all {len(self.renamed)}" if len(self.renamed) > SHOWN else ""
            notes.append(f"Its arrays have other names and were known by shape and order: {pairs}{more}.")
        whats: dict[str, list[str]] = {}
        for name, what in self.left_out.items():
            whats.setdefault(what, []).append(name[:60])
        for what, names in whats.items():
            shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
            notes.append(f"Left out as {what}: {shown}.")
        return tuple(notes)


def match(
    spec: NetworkSpec,
    shapes: Shapes,
    dtypes: Mapping[str, str] | None = None,
    *,
    whose: str = "the detector",
) -> Match:
    """Which of a file's arrays is which leaf of a network that is expected; the file's order plays no part.

    Names are compared first, without whatever stands in front of them. Where they do not agree, arrays that share a
    layer are compared by what they do and by their shapes; where several layers have one shape, the numbers in their
    names, or the block that they share with another layer, say which is which. What nothing decides is not guessed.

    Arrays that change nothing are left out: counters, empty arrays, a single number beside the layers, and mean and
    standard deviation of the inputs. Any other array too many is a difference.

    Args:
        spec: of the network that is expected.
        shapes: of all arrays by name, those of other types too.
        dtypes: of each, in safetensors' names; all F32 unless given.
        whose: the network that is expected, for the sentence.
    Raises:
        MismatchError: with the first difference, or with two arrays that could be exchanged.
    """
    types = dtypes or dict.fromkeys(shapes, "F32")
    harmless = _harmless(spec, shapes, types)
    read = {name: shape for name, shape in shapes.items() if types[name] in FLOATING}
    for useful in (read, {name: shape for name, shape in read.items() if name not in harmless}):
        named = _by_names(spec, useful)
        if named is not None:
            return Match(named, _rest(named, shapes, types, harmless, whose))
    odd = {name: shape for name, shape in shapes.items() if name not in harmless}
    pieces = _pieces({name: shape for name, shape in odd.items() if types[name] in FLOATING})
    names = _by_structure(_wanted(spec), pieces, whose)
    found = tuple(names[leaf.name] for leaf in spec.leaves)
    left_out = _rest(found, shapes, types, harmless, whose)
    return Match(found, left_out, tuple((own, leaf.name) for own, leaf in zip(found, spec.leaves, strict=True)))


# -- arrays that change nothing ---------------------------------------------------------------------------------------

_COUNTER = re.compile(
    r"(^|_)(steps?|epochs?|iter(ation)?s?|counter|count|num_batches_tracked|n_averaged|best_\w+|acc(uracy)?|loss|lr"
    r"|seed|version|temperature|logit_scale)$"
)
_PART_OF_A_LAYER = re.compile(r"alpha|slope|prelu|act|gate|res|skip|weight|bias|kernel|gamma|beta|_[wb]$|^[wb]\d*$")
_OF_INPUTS = re.compile(r"(pixel_|image_|img_|input_|data_|norm_)?(mean|std|stdev|mu|sigma)")


def _harmless(spec: NetworkSpec, shapes: Shapes, types: Mapping[str, str]) -> dict[str, str]:
    """The arrays that a network of this spec does not miss, and what each is."""
    parts = {name: parts_of(name) or ("",) for name in shapes}
    parents = [parts[name][:-1] for name, shape in shapes.items() if prod(shape) > 1 and types[name] in FLOATING]
    root = _common(parents)
    first = next((leaf.shape for leaf in spec.leaves if leaf.role == "kernel"), ())
    inputs = first[1] if len(first) > 1 else 1
    of_inputs = {
        name
        for name, shape in shapes.items()
        if _OF_INPUTS.fullmatch(parts[name][-1].lower()) and prod(shape) in (1, inputs) and types[name] in FLOATING
    }
    layers = {parts[name][:-1] for name in shapes if name not in of_inputs}
    found = {}
    for name, shape in shapes.items():
        parent, last = parts[name][:-1], parts[name][-1].lower()
        beside = root[: len(parent)] == parent  # not inside a layer
        if prod(shape) == 0:
            found[name] = "empty"
        elif prod(shape) == 1 and re.match(r"[IU]\d|BOOL", types[name]) and "zero_point" not in last:
            found[name] = "counters"
        elif name in of_inputs and (beside or parent not in layers):
            found[name] = "mean and standard deviation of the inputs"
        elif prod(shape) == 1 and beside and (_COUNTER.search(last) or _sets_nothing(shape, last)):
            found[name] = "single numbers beside the layers"
    return found


def _sets_nothing(shape: tuple[int, ...], last: str) -> bool:
    """Whether a single number is of no layer: without a dimension, and not called as a layer's parameter would be."""
    return shape == () and not _PART_OF_A_LAYER.search(last)


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The longest beginning that all have in common."""
    if not paths:
        return ()
    low, high = min(paths), max(paths)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length]


def _rest(
    used: Sequence[str], shapes: Shapes, types: Mapping[str, str], harmless: Mapping[str, str], whose: str
) -> dict[str, str]:
    """What is left out; raises a MismatchError if one of them may matter."""
    taken = set(used)
    for name in natural_order(shapes):
        if name not in taken and name not in harmless:
            kind = "" if types[name] in FLOATING else f" of type {types[name]}"
            raise MismatchError(
                f"it also holds {name[:60]} {list(shapes[name])}{kind}, for which {whose}'s networks have no place"
            )
    return {name: what for name, what in harmless.items() if name not in taken}


# -- by names ---------------------------------------------------------------------------------------------------------


def _by_names(spec: NetworkSpec, shapes: Shapes) -> tuple[str, ...] | None:
    """The arrays whose names end as the leaves' do; None if they do not all.

    Raises:
        MismatchError: if two whole networks are there.
    """
    ends: dict[tuple[str, ...], list[str]] = {}
    lengths = {len(parts_of(leaf.name)) for leaf in spec.leaves}
    for name in shapes:
        parts = tuple(part.lower() for part in parts_of(name))
        for length in lengths:
            if 0 < length <= len(parts):
                ends.setdefault(parts[-length:], []).append(name)
    candidates: list[dict[tuple[str, ...], str]] = []  # of each leaf: what stands in front, and the array
    for leaf in spec.leaves:
        wanted = tuple(part.lower() for part in parts_of(leaf.name))
        fitting = [name for name in ends.get(wanted, ()) if shapes[name] == leaf.shape]
        if not fitting:
            return None
        candidates.append({parts_of(name)[: -len(wanted)]: name for name in fitting})
        if len(candidates[-1]) < len(fitting):  # a/b and a.b, or A and a
            return None
    shared = set(candidates[0]).intersection(*candidates[1:])
    if len(shared) > 1:
        where = " and ".join(sorted(".".join(prefix) or "its top level" for prefix in shared))
        raise MismatchError(f"two assignments are possible: it holds {len(shared)} such networks, under {where}")
    if shared:
        (prefix,) = shared
        return tuple(one[prefix] for one in candidates)
    telling = all(any(isinstance(token, str) for token in taken_apart(leaf.name).layer) for leaf in spec.leaves)
    names = tuple(next(iter(one.values())) for one in candidates)
    if telling and all(len(one) == 1 for one in candidates) and len(set(names)) == len(names):
        return names
    return None


# -- by structure -----------------------------------------------------------------------------------------------------

Signature = tuple[tuple[str, tuple[int, ...]], ...]
_NORM: frozenset[Role] = frozenset(("scale", "shift", "running_mean", "running_variance"))


@dataclass(frozen=True)
class _Piece:
    """A layer's kernel with its bias, or its normalisation: what is assigned as a whole.

    Attributes:
        layer: its name, taken apart.
        arrays: name of each of its arrays, by what it does.
        shapes: of them.
    """

    layer: tuple[Token, ...]
    kind: Kind
    arrays: Mapping[str, str]
    shapes: Shapes

    @property
    def signature(self) -> Signature:
        return tuple(sorted((does, self.shapes[name]) for does, name in self.arrays.items()))

    @property
    def first(self) -> str:
        """Its kernel or scale, or whichever array it has."""
        return next((self.arrays[does] for does in ("kernel", "embedding", "scale") if does in self.arrays), self.any)

    @property
    def any(self) -> str:
        return next(iter(self.arrays.values()))


def _pieces(shapes: Shapes) -> list[_Piece]:
    """A file's arrays as pieces; their order says nothing."""
    layers: dict[tuple[Token, ...], list[str]] = {}
    apart = {name: taken_apart(name) for name in shapes}
    for name, parsed in apart.items():
        layers.setdefault(parsed.layer, []).append(name)
    pieces = []
    for layer, names in layers.items():
        roles = roles_in_layer({name: (apart[name].word, shapes[name]) for name in names})
        pieces += _of_layer(layer, roles, {name: shapes[name] for name in names})
    return pieces


def _wanted(spec: NetworkSpec) -> list[_Piece]:
    """A spec's leaves as pieces, in leaf order."""
    shapes = {leaf.name: leaf.shape for leaf in spec.leaves}
    layers: dict[tuple[Token, ...], dict[str, Role]] = {}
    for leaf in spec.leaves:
        layers.setdefault(taken_apart(leaf.name).layer, {})[leaf.name] = leaf.role
    pieces = [piece for layer, roles in layers.items() for piece in _of_layer(layer, roles, shapes)]
    return sorted(pieces, key=lambda piece: min(spec.index(name) for name in piece.arrays.values()))


def _of_layer(layer: tuple[Token, ...], roles: Mapping[str, Role], shapes: Shapes) -> list[_Piece]:
    """A layer's linear part and its normalisation; arrays that do one thing twice stand alone, each by its words."""
    parts: dict[Kind, dict[str, str]] = {}
    alone = []
    often = Counter(roles.values())
    for name, role in roles.items():
        if role == "other" or often[role] > 1:
            does = f"{role} {' '.join(map(str, taken_apart(name).layer[-2:]))}"
            alone.append(_Piece(layer, "other", {does: name}, {name: shapes[name]}))
        else:
            parts.setdefault("norm" if role in _NORM else "linear", {})[role] = name
    made = [_Piece(layer, kind, arrays, {n: shapes[n] for n in arrays.values()}) for kind, arrays in parts.items()]
    return made + alone


def _by_structure(wanted: Sequence[_Piece], pieces: Sequence[_Piece], whose: str) -> dict[str, str]:
    """The file's name of each leaf.

    Raises:
        MismatchError: with the first difference, or if several assignments are possible.
    """
    places: dict[Signature, list[int]] = {}
    for place, piece in enumerate(wanted):
        places.setdefault(piece.signature, []).append(place)
    same: dict[Signature, list[_Piece]] = {}
    for piece in pieces:
        same.setdefault(piece.signature, []).append(piece)
    if {s: len(p) for s, p in places.items()} != {s: len(p) for s, p in same.items()}:
        raise MismatchError(first_difference(wanted, pieces, whose))
    _check_layout(pieces)
    allowed = _blocks(wanted, pieces)
    chosen: dict[int, _Piece] = {}
    for signature, members in same.items():
        orders = _orders(members, places[signature], allowed)
        if len(orders) != 1:
            raise MismatchError(_exchangeable(members, orders))
        chosen |= dict(zip(places[signature], orders[0], strict=True))
    if len(same) < len(pieces):  # somewhere it was names that decided: then they have to tell the truth everywhere
        _check_numbers([chosen[place] for place in range(len(wanted))])
    return {
        leaf: chosen[place].arrays[does] for place, piece in enumerate(wanted) for does, leaf in piece.arrays.items()
    }


def _check_layout(pieces: Sequence[_Piece]) -> None:
    """Refuse kernels of flax and Keras that are all square: whether they are transposed, their shapes do not say."""
    kernels = [piece.arrays["kernel"] for piece in pieces if "kernel" in piece.arrays]
    shapes = [piece.shapes[piece.arrays["kernel"]] for piece in pieces if "kernel" in piece.arrays]
    if kernels and "kernel" in kernels[0].lower() and all(len(set(shape)) == 1 for shape in shapes):
        raise MismatchError(
            f"two assignments are possible: {kernels[0]} and all other kernels are square, so that nothing says "
            "whether they are transposed, as flax and Keras store them"
        )


def _orders(members: Sequence[_Piece], places: Sequence[int], allowed: Mapping[int, set[int]]) -> list[list[_Piece]]:
    """At most two orders of pieces of one shape, for ascending places, that their names and blocks allow."""
    after: dict[int, set[int]] = {i: set() for i in range(len(members))}
    for (i, one), (j, other) in combinations(enumerate(members), 2):
        before = runs_before(one.layer, other.layer)
        if before is not None:
            after[j if before else i].add(i if before else j)
    found: list[list[_Piece]] = []
    waiting: list[list[int]] = [[]]
    for _ in range(TRIED):
        if not waiting or len(found) == 2:
            return found
        order = waiting.pop()
        if len(order) == len(members):
            found.append([members[i] for i in order])
            continue
        place, done = places[len(order)], set(order)
        waiting += [
            [*order, i]
            for i in after
            if i not in done and after[i] <= done and place in allowed.get(id(members[i]), {place})
        ]
    return found if len(found) == 2 else []


def _blocks(wanted: Sequence[_Piece], pieces: Sequence[_Piece]) -> dict[int, set[int]]:
    """The places that a block allows, for pieces that share one: layers and norms of a block follow one another.

    Only where the block can be in one place alone, and by the `id` of pieces.
    """
    blocks: dict[tuple[Token, ...], list[_Piece]] = {}
    for piece in pieces:
        for length in range(1, min(len(piece.layer), DEEPEST)):
            blocks.setdefault(piece.layer[:length], []).append(piece)
        blocks.setdefault(("without", "kind", *(t for t in piece.layer if t not in _KINDS)), []).append(piece)
    signatures = [piece.signature for piece in wanted]
    allowed: dict[int, set[int]] = {}
    for block in blocks.values():
        if not {"linear", "norm"} <= {piece.kind for piece in block} or len(block) == len(pieces):
            continue
        parts = Counter(piece.signature for piece in block)
        starts = [i for i in range(len(wanted) - len(block) + 1) if Counter(signatures[i : i + len(block)]) == parts]
        if len(starts) == 1:
            for piece in block:
                room = set(range(starts[0], starts[0] + len(block)))
                allowed[id(piece)] = allowed.get(id(piece), room) & room
    return allowed


_KINDS = frozenset(("conv", "bn", "gn", "ln", "norm", "batch", "group", "layer", "batchnorm", "linear", "fc", "dense"))
"""Words of kinds of layers: `conv_stem` and `norm_stem` share a block."""


def _exchangeable(members: Sequence[_Piece], orders: Sequence[Sequence[_Piece]]) -> str:
    if len(orders) == 2:
        one, other = next((a, b) for a, b in zip(*orders, strict=True) if a is not b)
        return (
            f"two assignments are possible: {one.first[:60]} and {other.first[:60]} have the same shape, and nothing "
            "in the names says which comes first"
        )
    names = " and ".join(natural_order(piece.first[:60] for piece in members[:2]))
    return f"the numbers in its names contradict its shapes: {names} have the same shape, and no order fits both"


def _check_numbers(order: Sequence[_Piece]) -> None:
    """Raise a MismatchError if numbers in the names run otherwise than the layers, so that they say nothing."""
    for one, other in combinations(order, 2):
        if runs_before(one.layer, other.layer) is False:
            raise MismatchError(
                f"two assignments are possible: {one.first[:60]} has the shape of an earlier layer than "
                f"{other.first[:60]}, so that the numbers in its names do not say which of several like layers is which"
            )


# -- the first difference ---------------------------------------------------------------------------------------------


def first_difference(wanted: Sequence[_Piece], pieces: Sequence[_Piece], whose: str) -> str:
    """What tells a file's pieces from those that are expected, as a sentence about the first."""
    left = Counter(piece.signature for piece in pieces)
    expected = Counter(piece.signature for piece in wanted)
    order = {name: i for i, name in enumerate(natural_order(piece.first for piece in pieces))}
    over = sorted(
        (piece for piece in pieces if left[piece.signature] > expected[piece.signature]), key=lambda p: order[p.first]
    )
    layers = 0
    for piece in wanted:
        layers += piece.kind == "linear"
        if left[piece.signature]:
            left[piece.signature] -= 1
            continue
        counterpart = _counterpart(piece, over)
        if counterpart is None:
            return f"it has no array for {piece.first} {list(piece.shapes[piece.first])} of {whose}"
        return _compared(piece, counterpart, layers, whose)
    family = Counter(piece.layer[:1] for piece in pieces)
    odd = min(
        over, key=lambda piece: (family[piece.layer[:1]], -order[piece.first])
    )  # of several alike the odd one out
    return f"it also holds {odd.first[:60]} {list(odd.shapes[odd.first])}, for which {whose}'s networks have no place"


def _counterpart(piece: _Piece, over: Sequence[_Piece]) -> _Piece | None:
    """What a file has in place of a piece: of the same name, else what has most in common with it."""

    def alike(other: _Piece) -> tuple[bool, int]:
        common = set(other.signature) & set(piece.signature)
        return other.layer[-len(piece.layer) :] == piece.layer, len(common)

    of_kind = [other for other in over if other.kind == piece.kind]
    return max(of_kind, key=alike) if of_kind else None


def _compared(piece: _Piece, other: _Piece, layer: int, whose: str) -> str:
    """The first array in which two pieces differ."""
    what = f"{_ordinal(layer)} {'layer' if piece.kind == 'linear' else 'normalisation'}"
    for does in dict.fromkeys((*piece.arrays, *other.arrays)):
        mine, yours = other.arrays.get(does), piece.arrays.get(does)
        if mine is None and yours is not None:
            shape = list(piece.shapes[yours])
            return f"its {what}, {other.first[:60]}, has no {does.split()[0]}; {whose}'s, {yours}, is {shape}"
        if yours is None and mine is not None:
            shape = list(other.shapes[mine])
            return f"its {what} has a {does.split()[0]}, {mine[:60]} {shape}; {whose}'s, {piece.first}, has none"
        if mine is None or yours is None or other.shapes[mine] == piece.shapes[yours]:
            continue
        sizes = list(other.shapes[mine]), list(piece.shapes[yours])
        turned = does == "kernel" and sorted(sizes[0]) == sorted(sizes[1])
        layout = ": the axes stand in another order, as flax and Keras store them" if turned else ""
        return f"its {what}, {mine[:60]}, is {sizes[0]}; {whose}'s, {yours}, is {sizes[1]}{layout}"
    return f"its {what}, {other.first[:60]}, is put together otherwise than {whose}'s, {piece.first}"


def _ordinal(number: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
    return words[number - 1] if 1 <= number <= len(words) else f"{number}th"
