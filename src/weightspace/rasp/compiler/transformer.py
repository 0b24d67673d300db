"""A compiled transformer: its parameters by Tracr's names, its forward pass, its files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from weightspace import clock
from weightspace.errors import RaspError
from weightspace.notebook import card
from weightspace.rasp.functions import Value
from weightspace.rasp.language import BOS, PAD, Encoding

QUERY, KEY, VALUE, OUT, FIRST, SECOND = range(6)
"""The matrices of a layer; the fourth, `linear`, leads from the heads back to the stream."""


class Configuration(NamedTuple):
    """The shape of a compiled transformer.

    Attributes:
        num_heads: heads of each layer.
        num_layers: layers, each attention and then an MLP.
        key_size: directions of a head's queries, keys and values.
        mlp_hidden_size: hidden units of each MLP.
        causal: whether a place sees only itself and what is before it.
    """

    num_heads: int
    num_layers: int
    key_size: int
    mlp_hidden_size: int
    causal: bool = False


class Directions(NamedTuple):
    """A group of directions of the residual stream.

    Attributes:
        label: of the S-op that they hold, or what else they are for.
        start: where they begin in the stream.
        values: what each stands for, or None for a single direction that holds a number.
    """

    label: str
    start: int
    values: tuple[Value, ...] | None

    @property
    def size(self) -> int:
        return 1 if self.values is None else len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """As Tracr names them: `label:value`, or the label alone."""
        return (self.label,) if self.values is None else tuple(f"{self.label}:{value}" for value in self.values)


class Output(NamedTuple):
    """Where the answer stands in the residual stream.

    Attributes:
        label: of the S-op that it is.
        encoding: categorical (the longest direction's value) or numerical (a number).
        start: its first direction.
        values: of its directions; None if it is numerical.
        none: the direction that is 1 where a numerical answer is None, if there can be such.
        strict: whether a categorical answer is None where no direction reaches 1/2; Tracr takes the first then.
    """

    label: str
    encoding: Encoding
    start: int
    values: tuple[Value, ...] | None
    none: int | None = None
    strict: bool = True


class Layout:
    """Where every parameter stands in the flat vector: Tracr's parameters in the order of their names.

    Attributes:
        size: of the flat vector.
        width: of the residual stream.
        positions: rows of the position embedding, that of BOS among them.
    """

    def __init__(self, tokens: int, max_seq_len: int, width: int, configuration: Configuration) -> None:
        across, hidden = configuration.num_heads * configuration.key_size, configuration.mlp_hidden_size
        self.configuration, self.width, self.positions, self.tokens = configuration, width, max_seq_len + 1, tokens
        self.base = (self.positions + tokens) * width
        # each matrix stands behind its bias
        key = across
        linear = key + width * across + width
        query = linear + across * width + across
        value = query + width * across + across
        first = value + width * across + hidden
        second = first + width * hidden + width
        self.stride = second + hidden * width
        self.relative = (query, key, value, linear, first, second)
        self.size = self.base + self.stride * configuration.num_layers

    def offset(self, layer: int, matrix: int) -> int:
        """Where a matrix of a layer begins."""
        return self.base + layer * self.stride + self.relative[matrix]

    @cached_property
    def leaves(self) -> tuple[tuple[str, tuple[int, ...], int], ...]:
        """(name, shape, offset) of every array."""
        c, width = self.configuration, self.width
        across, hidden = c.num_heads * c.key_size, c.mlp_hidden_size
        matrices = (
            ("attn/key", width, across),
            ("attn/linear", across, width),
            ("attn/query", width, across),
            ("attn/value", width, across),
            ("mlp/linear_1", width, hidden),
            ("mlp/linear_2", hidden, width),
        )
        shapes = [("pos_embed/embeddings", (self.positions, width)), ("token_embed/embeddings", (self.tokens, width))]
        leaves: list[tuple[str, tuple[int, ...], int]] = []
        offset = 0
        for name, shape in shapes:
            leaves.append((name, shape, offset))
            offset += math.prod(shape)
        for layer in range(c.num_layers):
            for name, rows, columns in matrices:
                leaves.append((f"transformer/layer_{layer}/{name}/b", (columns,), offset))
                leaves.append((f"transformer/layer_{layer}/{name}/w", (rows, columns), offset + columns))
                offset += columns + rows * columns
        return tuple(leaves)


_layouts: dict[Any, Layout] = {}


_QUIET = partial(np.errstate, invalid="ignore")
"""Kernels of a product may compute on lanes that hold no data, and raise a flag: numpy then warns of finite numbers."""


def layout_of(tokens: int, max_seq_len: int, width: int, configuration: Configuration) -> Layout:
    """The layout of a transformer; layouts are kept, as many programs share one.

    Args:
        tokens: rows of the token embedding, BOS and PAD among them.
        max_seq_len: longest input, without BOS.
        width: of the residual stream.
    """
    key = (tokens, max_seq_len, width, configuration)
    known = _layouts.get(key)
    if known is None:
        if len(_layouts) > 1_000:
            _layouts.clear()
        known = _layouts[key] = Layout(tokens, max_seq_len, width, configuration)
    return known


@dataclass(frozen=True)
class Entries:
    """The entries of a compiled transformer that are not zero, as coordinates.

    Attributes:
        layer: (n,) of each; -1 for the embeddings.
        matrix: (n,) its name: token_embed, pos_embed, query, key, value, linear, linear_1 or linear_2.
        head: (n,) of attention matrices; -1 elsewhere.
        row, column: (n,) in the whole matrix, all heads side by side.
        value: (n,) float32.
    """

    layer: np.ndarray
    matrix: np.ndarray
    head: np.ndarray
    row: np.ndarray
    column: np.ndarray
    value: np.ndarray


@dataclass(frozen=True, eq=False)
class CompiledTransformer:
    """A transformer with named directions, as Tracr makes them.

    Attributes:
        configuration: heads, layers and sizes.
        layout: where each parameter stands in `flat`.
        places: (n,) int64 places in the flat vector of the entries that are not zero.
        values: (n,) float32 of these entries.
        directions: the groups of the residual stream, in order.
        vocab: the tokens, without BOS and PAD.
        max_seq_len: longest input, without BOS.
        output: where the answer stands.
        mode: how it was compiled: `fixed`, `tracr_compat`, or `loaded`.
    """

    configuration: Configuration
    layout: Layout
    places: np.ndarray
    values: np.ndarray
    directions: tuple[Directions, ...]
    vocab: tuple[Value, ...]
    max_seq_len: int
    output: Output
    mode: str

    def _repr_html_(self) -> str:
        rows = [(group.label, group.start, group.size) for group in self.directions]
        c = self.configuration
        facts = {
            "tokens": ", ".join(map(str, self.vocab)),
            "longest input": self.max_seq_len,
            "layers, heads": f"{c.num_layers}, {c.num_heads} of {c.key_size} directions",
            "residual stream": f"{self.layout.width} directions",
        }
        title = f"Compiled transformer of {len(self.flat):,} parameters"
        return card(title, facts, header=("variable", "first direction", "directions"), rows=rows)

    def __len__(self) -> int:
        """The number of its parameters."""
        return self.layout.size

    def __repr__(self) -> str:
        c = self.configuration
        return (
            f"CompiledTransformer({c.num_layers} layers, {c.num_heads} heads of {c.key_size}, "
            f"{c.mlp_hidden_size} hidden units, width {self.layout.width}, {len(self):,} parameters, {self.mode})"
        )

    @cached_property
    def flat(self) -> np.ndarray:
        """(parameters,) float32: every parameter, in the order of their names."""
        flat = np.zeros(self.layout.size, dtype=np.float32)
        flat[self.places] = self.values
        return flat

    @cached_property
    def params(self) -> dict[str, np.ndarray]:
        """Every parameter by Tracr's name, as float32 views of `flat`."""
        flat = self.flat
        return {
            name: flat[offset : offset + math.prod(shape)].reshape(shape) for name, shape, offset in self.layout.leaves
        }

    @cached_property
    def residual_labels(self) -> tuple[str, ...]:
        """The name of every direction of the residual stream."""
        return tuple(name for group in self.directions for name in group.names)

    @cached_property
    def token_values(self) -> tuple[Value, ...]:
        """What each row of the token embedding stands for."""
        return next(group.values for group in self.directions if group.label == "tokens") or ()

    def entries(self) -> Entries:
        """The parameters that are not zero, as (layer, matrix, head, row, column, value)."""
        places, values = self.places, self.values
        names, sizes, starts = [], [], []
        for name, shape, offset in self.layout.leaves:
            names.append(name)
            sizes.append(shape[-1])
            starts.append(offset)
        leaf = np.searchsorted(starts, places, side="right") - 1
        row, column = np.divmod(places - np.array(starts)[leaf], np.array(sizes)[leaf])
        parts = [name.split("/") for name in names]
        matrix = np.array([part[0] if part[0] != "transformer" else part[-2] for part in parts])[leaf]
        layer = np.array([int(part[1].removeprefix("layer_")) if len(part) > 2 else -1 for part in parts])[leaf]
        along = np.where(matrix == "linear", row, column)
        attention = np.isin(matrix, ("query", "key", "value", "linear"))
        head = np.where(attention, along // self.configuration.key_size, -1)
        return Entries(layer, matrix, head, row, column, values)

    # -- the forward pass -------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Sequence[Any]]) -> list[list[Value]]:
        """What the transformer answers at each place of each input.

        Args:
            inputs: sequences of tokens of the vocabulary, of any lengths up to `max_seq_len`; without BOS.
        Returns:
            a list for each input: values of the output for a categorical, numbers for a numerical one; None where there
            is none.
        Raises:
            RaspError: if an input is too long, or a token unknown.
        """
        codes = self.encode(inputs)
        answers: list[list[Value]] = [[] for _ in codes]
        for length in sorted({len(code) for code in codes}):
            members = [i for i, code in enumerate(codes) if len(code) == length]
            if length == 0:
                continue
            batch = np.array([codes[i] for i in members])
            decoded = self.decode(self.forward(batch))
            for i, answer in zip(members, decoded, strict=True):
                answers[i] = answer
        return answers

    def encode(self, inputs: Sequence[Sequence[Any]]) -> list[list[int]]:
        """The rows of the token embedding that inputs stand for, without BOS.

        Raises:
            RaspError: if an input is too long, or a token unknown.
        """
        index = {value: row for row, value in enumerate(self.token_values) if value not in (BOS, PAD)}
        codes = []
        for sequence in inputs:
            if len(sequence) > self.max_seq_len:
                raise RaspError(
                    f"an input of {len(sequence)} tokens is too long: this transformer takes up to {self.max_seq_len}"
                )
            try:
                codes.append([index[token] for token in sequence])
            except (KeyError, TypeError):
                wrong = next(token for token in sequence if not _is_in(token, index))
                known = ", ".join(map(repr, self.vocab[:20]))
                raise RaspError(f"the token {wrong!r} is unknown: the vocabulary is {known}") from None
        return codes

    def forward(self, codes: np.ndarray) -> np.ndarray:
        """The residual stream after the last layer.

        Args:
            codes: (batch, places) rows of the token embedding, without BOS.
        Returns:
            (batch, places, width) float32, without the place of BOS.
        """
        with _QUIET():
            *_, (_, stream) = self.stages(codes)
        return stream[:, 1:]

    def stages(self, codes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The residual stream as it grows: after the embedding, and after each half of each layer.

        Args:
            codes: (batch, places) rows of the token embedding, without BOS.
        Yields:
            a name such as `layer 0 attention`, and (batch, places + 1, width) float32 with BOS at place 0.
        """
        batch, places = codes.shape
        params, width = self.params, self.layout.width
        tokens = np.concatenate([np.full((batch, 1), self._bos, dtype=codes.dtype), codes], axis=1)
        stream = params["token_embed/embeddings"][tokens] + params["pos_embed/embeddings"][: places + 1]
        yield "embedding", stream
        flat, mask = stream.reshape(-1, width), self._mask(places + 1)
        for layer, (heads, mlp) in enumerate(self._parts):
            clock.look()
            after = flat.copy() if heads else flat
            for head in heads:
                head.add(flat, after, head.pattern(flat, batch, mask))
            yield f"layer {layer} attention", after.reshape(batch, places + 1, width)
            flat = after
            if mlp is not None:
                flat = mlp.added(flat)
            yield f"layer {layer} MLP", flat.reshape(batch, places + 1, width)

    def attention_patterns(self, codes: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
        """How much each place attends to each: (layer, head) -> (batch, places + 1, places + 1), heads in use only."""
        patterns = {}
        before = None
        for name, stream in self.stages(codes):
            if name.endswith("attention") and before is not None:
                layer = int(name.split()[1])
                batch, places, width = before.shape
                for head in self._parts[layer][0]:
                    patterns[layer, head.number] = head.pattern(before.reshape(-1, width), batch, self._mask(places))
            before = stream
        return patterns

    def hidden(self, codes: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """The hidden units of each MLP before and after ReLU: layer -> two arrays (batch, places + 1, units).

        Only MLPs and units that write something.
        """
        activations = {}
        for name, stream in self.stages(codes):
            if name.endswith("attention"):
                layer = int(name.split()[1])
                mlp = self._parts[layer][1]
                if mlp is not None:
                    batch, places, width = stream.shape
                    before = mlp.first(stream.reshape(-1, width)).reshape(batch, places, -1)
                    activations[layer] = (before, np.maximum(before, 0))
        return activations

    def decode(self, stream: np.ndarray) -> list[list[Value]]:
        """The answers that a final residual stream (batch, places, width) holds."""
        output = self.output
        if output.values is None:
            answers: list[list[Value]] = stream[..., output.start].astype(float).tolist()
            if output.none is not None:
                missing = stream[..., output.none] > 0.5
                for i, j in zip(*np.nonzero(missing), strict=True):
                    answers[i][j] = None
            return answers
        lengths = stream[..., output.start : output.start + len(output.values)]
        best = lengths.argmax(-1)
        choices: list[Value] = list(output.values)
        if output.strict:
            best = np.where(lengths.max(-1) > 0.5, best, len(choices))
            choices.append(None)
        return [[choices[place] for place in row] for row in best.tolist()]

    @cached_property
    def _bos(self) -> int:
        return self.token_values.index(BOS)

    def _mask(self, places: int) -> np.ndarray | None:
        if not self.configuration.causal:
            return None
        return np.triu(np.full((places, places), -np.inf, dtype=np.float32), 1)

    @cached_property
    def _parts(self) -> list[LayerParts]:
        return parts_of(self.params, self.configuration.num_layers, self.configuration.num_heads)


def _is_in(token: object, index: dict[Any, int]) -> bool:
    try:
        return token in index
    except TypeError:  # unhashable
        return False


# -- the parts of a layer, with their rows and columns of zeros left out: of a compiled transformer most are ---------

Affine = tuple[np.ndarray, np.ndarray]
"""A weight (inputs, outputs) and a bias (outputs,)."""


def parts_of(params: Mapping[str, np.ndarray], layers: int, heads: int) -> list[LayerParts]:
    """The heads and the MLP of each layer, without those that add nothing.

    Args:
        params: every parameter by Tracr's name.
        layers, heads: how many there are.
    """
    return [_layer_parts(params, f"transformer/layer_{layer}", heads) for layer in range(layers)]


def _layer_parts(params: Mapping[str, np.ndarray], name: str, count: int) -> LayerParts:
    attention = {which: params[f"{name}/attn/{which}/w"] for which in ("query", "key", "value", "linear")}
    biases = {which: params[f"{name}/attn/{which}/b"] for which in ("query", "key", "value", "linear")}
    size = attention["query"].shape[1] // count
    heads = []
    for number in range(count):
        own = slice(number * size, (number + 1) * size)
        # the bias behind the heads is counted to the first
        after = (attention["linear"][own], biases["linear"] * (number == 0))
        if after[0].any() or after[1].any():
            query, key, value = ((attention[which][:, own], biases[which][own]) for which in ("query", "key", "value"))
            heads.append(Head(number, query, key, value, after))
    first = (params[f"{name}/mlp/linear_1/w"], params[f"{name}/mlp/linear_1/b"])
    second = (params[f"{name}/mlp/linear_2/w"], params[f"{name}/mlp/linear_2/b"])
    return heads, Mlp(first, second) if second[0].any() or second[1].any() else None


def final_stream(parts: Sequence[LayerParts], stream: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The stream (batch, places, width) after all layers, of what the embeddings make of an input.

    Args:
        mask: (places, places) what is added to scores, or None.
    """
    batch, places, width = stream.shape
    flat = stream.reshape(-1, width)
    with _QUIET():
        for heads, mlp in parts:
            clock.look()
            after = flat.copy() if heads else flat
            for head in heads:
                head.add(flat, after, head.pattern(flat, batch, mask))
            flat = after if mlp is None else mlp.added(after)
    return flat.reshape(batch, places, width)


class _Linear:
    """An affine map of the stream, between the coordinates that it really reads and gives."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.rows = np.flatnonzero(weight.any(1))
        self.weight = np.ascontiguousarray(weight[self.rows])
        self.bias = bias if bias.any() else None
        self.all = len(self.rows) == len(weight)

    def __call__(self, flat: np.ndarray) -> np.ndarray:
        result = (flat if self.all else flat[:, self.rows]) @ self.weight
        return result if self.bias is None else result + self.bias


class Head:
    """One attention head."""

    def __init__(self, number: int, query: Affine, key: Affine, value: Affine, out: Affine) -> None:
        self.number = number
        scale = np.float32(1 / math.sqrt(query[0].shape[1]))
        compared = _columns(query) & _columns(key)
        self.query = _Linear(query[0][:, compared] * scale, query[1][compared] * scale)
        self.key = _Linear(key[0][:, compared], key[1][compared])
        moved = _columns(value) & out[0].any(1)
        self.value = _Linear(value[0][:, moved], value[1][moved])
        self.columns = np.flatnonzero(out[0][moved].any(0) | (out[1] != 0))
        self.out = _Linear(out[0][moved][:, self.columns], out[1][self.columns])

    def pattern(self, flat: np.ndarray, batch: int, mask: np.ndarray | None) -> np.ndarray:
        """(batch, places, places) how much each place attends to each."""
        query, key = (part(flat).reshape(batch, -1, part.weight.shape[1]) for part in (self.query, self.key))
        scores = query @ key.transpose(0, 2, 1)
        if mask is not None:
            scores = scores + mask
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        return scores

    def add(self, flat: np.ndarray, after: np.ndarray, pattern: np.ndarray) -> None:
        """Add what the head reads from `flat` to `after`, both (batch * places, width)."""
        values = self.value(flat).reshape(*pattern.shape[:2], -1)
        after[:, self.columns] += self.out((pattern @ values).reshape(len(flat), -1))


class Mlp:
    """One MLP."""

    def __init__(self, first: Affine, second: Affine) -> None:
        used = second[0].any(1)
        self.first = _Linear(first[0][:, used], first[1][used])
        self.columns = np.flatnonzero(second[0].any(0) | (second[1] != 0))
        self.second = _Linear(second[0][used][:, self.columns], second[1][self.columns])

    def added(self, flat: np.ndarray) -> np.ndarray:
        """The stream (batch * places, width) with the MLP's result added."""
        hidden = self.first(flat)
        np.maximum(hidden, 0, out=hidden)
        after = flat.copy()
        after[:, self.columns] += self.second(hidden)
        return after


LayerParts = tuple[list[Head], Mlp | None]
"""The heads and the MLP of a layer."""


def _columns(part: Affine) -> np.ndarray:
    return part[0].any(0) | (part[1] != 0)
