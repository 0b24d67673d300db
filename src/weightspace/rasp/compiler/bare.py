"""A transformer as a decompiler gets it: Tracr's parameters without the names of directions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from weightspace import clock
from weightspace.errors import RaspError
from weightspace.rasp.compiler.parameters import POSITIONS, TOKENS, flattened, what_else, without_unembedding
from weightspace.rasp.compiler.token_rows import row_order, special_rows
from weightspace.rasp.compiler.transformer import CompiledTransformer, LayerParts, final_stream, parts_of
from weightspace.rasp.functions import Value
from weightspace.rasp.language import BOS, PAD
from weightspace.rasp.validate import check_vocab
from weightspace.rasp.values import token_space

MATRICES = ("attn/query", "attn/key", "attn/value", "attn/linear", "mlp/linear_1", "mlp/linear_2")
_LAYER = re.compile(r"transformer/layer_(\d+)/(.+)/([wb])")


class Readout(NamedTuple):
    """Where an answer is read in the stream.

    Attributes:
        directions: (width, values) of a categorical answer, (width, 1) of a number; the stream is projected on them.
        values: what each stands for; None if it is a number, and `()` if what they stand for is not known.
        none: (width,) the direction that is 1 where a numerical answer is None, or None.
        strict: whether a categorical answer is None where no direction reaches 1/2.
    """

    directions: np.ndarray
    values: tuple[Value, ...] | None
    none: np.ndarray | None = None
    strict: bool = False


class Activations(NamedTuple):
    """What happens inside a transformer on a batch, with the place of BOS.

    Attributes:
        stream: at each half-layer the stream before it, and last the final one: (batch, places, width) each.
        heads: for each layer, what each head adds: (heads, batch, places, width).
        hidden: for each layer the hidden units after ReLU: (batch, places, hidden).
    """

    stream: list[np.ndarray]
    heads: list[np.ndarray]
    hidden: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class BareTransformer:
    """A transformer by its parameters alone; what its directions stand for is not said.

    Attributes:
        params: every parameter by Tracr's name.
        num_heads: heads of each layer.
        vocab: the tokens without BOS and PAD; rows of the token embedding are `token_space(vocab)`.
        causal: whether a place sees only itself and what is before it; not written in the parameters.
        mode: `fixed` or `tracr_compat`, by which compiler it was made, or None where that is not known.
        readout: where the answer stands, or None where that is not known.
        notes: how it was read, where that is not plain, a sentence each.
    """

    params: Mapping[str, np.ndarray]
    num_heads: int
    vocab: tuple[Value, ...]
    causal: bool = False
    mode: str | None = None
    readout: Readout | None = None
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(transformer: CompiledTransformer) -> BareTransformer:
        """What is left of a compiled transformer when its names are forgotten; where the answer stands is kept."""
        o, width = transformer.output, transformer.layout.width
        eye = np.eye(width, dtype=np.float32)
        count = 1 if o.values is None else len(o.values)
        none = None if o.none is None else eye[o.none]
        return BareTransformer(
            transformer.params,
            transformer.configuration.num_heads,
            transformer.vocab,
            transformer.configuration.causal,
            transformer.mode if transformer.mode in ("fixed", "tracr_compat") else None,
            Readout(eye[:, o.start : o.start + count], o.values, none, o.strict),
        )

    @staticmethod
    def of_params(
        params: Mapping[str, Any],
        vocab: Sequence[Any],
        *,
        num_heads: int | None = None,
        causal: bool = False,
        mode: str | None = None,
        readout: Readout | None = None,
        bos: str | None = None,
        pad: str | None = None,
    ) -> BareTransformer:
        """A transformer out of arrays by Tracr's names.

        Args:
            params: `token_embed/embeddings`, `pos_embed/embeddings` and `transformer/layer_I/...`, or as Haiku
                nests them; missing biases are zero, and an `unembed` beside them is not read.
            vocab: the tokens without BOS and PAD, in any order.
            num_heads: unless given, read off the weights: each head of Tracr's has one column that looks to BOS.
            bos, pad: what the two are called, which decides where their rows stand; unless given that is read off the
                weights.
        Raises:
            RaspError: if something is missing, of a wrong shape, or not finite, or if several rows could be BOS or PAD;
                the message names it.
        """
        chosen = check_vocab(tuple(vocab))
        flat, notes = without_unembedding(flattened(params))
        arrays = _checked(flat, chosen)
        made = BareTransformer(arrays, 1, chosen, causal, mode, readout, notes)
        made = made._with_rows_in_order(bos, pad)
        count = made.query.shape[2]
        if num_heads is not None:
            if num_heads < 1 or count % num_heads:
                raise RaspError(f"{num_heads} heads cannot share the {count} columns of the query matrices evenly")
            return replace(made, num_heads=num_heads)
        with np.errstate(all="ignore"):  # weights that overflow are refused where they are to be run
            return replace(made, num_heads=_heads_of(made))

    def _with_rows_in_order(self, bos: str | None, pad: str | None) -> BareTransformer:
        """The same with the rows of the token embedding in our order, whatever BOS and PAD were called."""
        readers = {
            which: list(stacked)
            for which, stacked in (
                ("query", self.query),
                ("key", self.key),
                ("value", self.value),
                ("first", self.first),
            )
        }
        with np.errstate(all="ignore"):
            found = special_rows(self.tokens, readers, self.vocab, bos=bos, pad=pad)
        order = row_order(self.vocab, found)
        if np.array_equal(order, np.arange(len(order))):
            return self
        note = f"Row {found.bos} of the token embedding was taken for BOS and row {found.pad} for PAD"
        note += ", as they are usually called." if found.guessed else ", as the weights read them."
        params = {**self.params, TOKENS: self.tokens[order]}
        return replace(self, params=params, notes=(*self.notes, note))

    # -- shapes -----------------------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        return self.params[TOKENS].shape[1]

    @property
    def size(self) -> int:
        """The number of its parameters."""
        return sum(array.size for array in self.params.values())

    @property
    def num_layers(self) -> int:
        return len(self.query)

    @property
    def key_size(self) -> int:
        return self.query.shape[2] // self.num_heads

    @property
    def hidden_size(self) -> int:
        return self.first.shape[2]

    @property
    def max_seq_len(self) -> int:
        return len(self.params[POSITIONS]) - 1

    @cached_property
    def space(self) -> tuple[Value, ...]:
        """What each row of the token embedding stands for."""
        return token_space(self.vocab)

    # -- matrices, layer by layer -----------------------------------------------------------------------------------

    @property
    def tokens(self) -> np.ndarray:
        """(rows, width) the token embedding."""
        return self.params[TOKENS]

    @property
    def positions(self) -> np.ndarray:
        """(max_seq_len + 1, width) the position embedding, BOS first."""
        return self.params[POSITIONS]

    def _stacked(self, matrix: str, kind: str = "w") -> np.ndarray:
        layers = len({name.split("/")[1] for name in self.params if name.startswith("transformer/")})
        return np.stack([self.params[f"transformer/layer_{i}/{matrix}/{kind}"] for i in range(layers)])

    @cached_property
    def query(self) -> np.ndarray:
        """(layers, width, heads * key_size); heads side by side."""
        return self._stacked("attn/query")

    @cached_property
    def key(self) -> np.ndarray:
        """(layers, width, heads * key_size)"""
        return self._stacked("attn/key")

    @cached_property
    def value(self) -> np.ndarray:
        """(layers, width, heads * key_size)"""
        return self._stacked("attn/value")

    @cached_property
    def linear(self) -> np.ndarray:
        """(layers, heads * key_size, width): from the heads back to the stream."""
        return self._stacked("attn/linear")

    @cached_property
    def first(self) -> np.ndarray:
        """(layers, width, hidden)"""
        return self._stacked("mlp/linear_1")

    @cached_property
    def second(self) -> np.ndarray:
        """(layers, hidden, width)"""
        return self._stacked("mlp/linear_2")

    @cached_property
    def biases(self) -> dict[str, np.ndarray]:
        """(layers, size) of each matrix of `MATRICES`."""
        return {matrix: self._stacked(matrix, "b") for matrix in MATRICES}

    def head(self, number: int) -> slice:
        """The columns of a head."""
        return slice(number * self.key_size, (number + 1) * self.key_size)

    # -- the forward pass -------------------------------------------------------------------------------------------

    def encode(self, inputs: Sequence[Sequence[Any]]) -> np.ndarray:
        """(batch, places + 1) rows of the token embedding, BOS first, of inputs of one length."""
        index = {value: row for row, value in enumerate(self.space)}
        return np.array([[index[BOS], *(index[token] for token in entry)] for entry in inputs])

    def activations(self, codes: np.ndarray) -> Activations:
        """Everything inside, on inputs of one length.

        Args:
            codes: (batch, places + 1) as `encode` gives them.
        """
        steps = list(self._steps(codes))
        return Activations([s for s, _, _ in steps], [h for _, h, _ in steps if h is not None],
                           [u for _, _, u in steps if u is not None])  # fmt: skip

    def forward(self, codes: np.ndarray) -> np.ndarray:
        """(batch, places, width) the final stream, with the place of BOS."""
        places = codes.shape[1]
        return final_stream(self._parts, self.tokens[codes] + self.positions[:places], self._mask(places))

    @cached_property
    def _parts(self) -> list[LayerParts]:
        return parts_of(self.params, self.num_layers, self.num_heads)

    def _mask(self, places: int) -> np.ndarray | None:
        return np.triu(np.full((places, places), -np.inf, np.float32), 1) if self.causal else None

    def _steps(self, codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray | None]]:
        batch, places = codes.shape
        stream = self.tokens[codes] + self.positions[:places]
        heads, size = self.num_heads, self.key_size
        mask = self._mask(places)
        b = self.biases
        for layer in range(self.num_layers):
            clock.look()
            before = stream
            query, key, value = (
                (stream @ w[layer] + b[f"attn/{which}"][layer])
                .reshape(batch, places, heads, size)
                .transpose(2, 0, 1, 3)
                for which, w in (("query", self.query), ("key", self.key), ("value", self.value))
            )
            scores = query @ key.swapaxes(2, 3) / np.float32(math.sqrt(size))
            if mask is not None:
                scores = scores + mask
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            added = (scores @ value) @ self.linear[layer].reshape(heads, 1, size, -1)
            added[0] += b["attn/linear"][layer]  # the bias behind the heads is counted to the first
            yield before, added, None
            stream = stream + added.sum(0)
            hidden = np.maximum(stream @ self.first[layer] + b["mlp/linear_1"][layer], 0)
            yield stream, None, hidden
            stream = stream + hidden @ self.second[layer] + b["mlp/linear_2"][layer]
        yield stream, None, None

    def decode(self, stream: np.ndarray, readout: Readout | None = None) -> list[list[Value]]:
        """The answers in a final stream (batch, places, width); the place of BOS is read too, if it is there.

        Raises:
            RaspError: if it is not known where the answer stands, or what its directions mean.
        """
        readout = readout or self.readout
        if readout is None or readout.values == ():
            raise RaspError("it is not known where in the stream the answer stands, or what its directions mean")
        read = stream @ readout.directions
        if readout.values is None:
            answers: list[list[Value]] = read[..., 0].astype(float).tolist()
            if readout.none is not None:
                for i, j in zip(*np.nonzero(stream @ readout.none > 0.5), strict=True):
                    answers[i][j] = None
            return answers
        best = read.argmax(-1)
        choices: list[Value] = [*readout.values, None]
        if readout.strict:
            best = np.where(read.max(-1) > 0.5, best, len(readout.values))
        return [[choices[place] for place in row] for row in best.tolist()]


def _checked(params: Mapping[str, np.ndarray], vocab: tuple[Value, ...]) -> dict[str, np.ndarray]:
    """The parameters as float32, biases that are missing as zeros.

    Raises:
        RaspError: as `of_params` does.
    """
    for name in (TOKENS, POSITIONS):
        if name not in params:
            raise RaspError(f"there is no {name!r}: {what_else(params)}")
    unknown = [n for n in params if n not in (TOKENS, POSITIONS) and not _is_known(n)]
    if unknown:
        raise RaspError(f"the parameter {sorted(unknown)[0]!r} is none of Tracr's")
    layers = sorted({int(m[1]) for name in params if (m := _LAYER.fullmatch(name))})
    if not layers:
        raise RaspError("there is no layer: expected parameters such as 'transformer/layer_0/attn/query/w'")
    if layers != list(range(len(layers))):
        raise RaspError(f"the layers are numbered {layers}: expected transformer/layer_0, layer_1, ... without gaps")
    for name, array in params.items():
        wanted = 1 if name.endswith("/b") else 2
        if array.ndim != wanted or array.dtype.kind != "f" or array.size == 0:
            raise RaspError(
                f"{name!r} is {array.dtype} of shape {array.shape}: expected {wanted} "
                f"{'axis' if wanted == 1 else 'axes'} of floating-point numbers"
            )
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype(np.float32))
        if not finite.all():
            raise RaspError(f"{name!r} holds NaN, infinity or what float32 cannot: a transformer's weights are finite")
    width = params[TOKENS].shape[1]
    if params[TOKENS].shape[0] != len(vocab) + 2:
        raise RaspError(
            f"the token embedding has {params[TOKENS].shape[0]} rows: expected {len(vocab) + 2}, one for each of the "
            f"{len(vocab)} tokens of the vocabulary, BOS and PAD"
        )
    if len(params[POSITIONS]) < 2 or params[POSITIONS].shape[1] != width:
        raise RaspError(f"{POSITIONS!r} has shape {params[POSITIONS].shape}: expected (2 or more, {width})")
    for name in (f"transformer/layer_0/{matrix}/w" for matrix in ("attn/query", "mlp/linear_1")):
        if name not in params:
            raise RaspError(f"the parameter {name!r} is missing")
    across = params["transformer/layer_0/attn/query/w"].shape[1]
    hidden = params["transformer/layer_0/mlp/linear_1/w"].shape[1]
    shapes = ((width, across),) * 3 + ((across, width), (width, hidden), (hidden, width))
    found = {name: np.asarray(params[name], np.float32) for name in (TOKENS, POSITIONS)}
    for layer in layers:
        for matrix, shape in zip(MATRICES, shapes, strict=True):
            weight, bias = (f"transformer/layer_{layer}/{matrix}/{kind}" for kind in "wb")
            if weight not in params:
                raise RaspError(f"the parameter {weight!r} is missing")
            for name, wanted in ((weight, shape), (bias, shape[1:])):
                array = params.get(name, np.zeros(wanted, np.float32))
                if array.shape != wanted:
                    raise RaspError(f"the parameter {name!r} has shape {array.shape}: expected {wanted}")
                found[name] = np.asarray(array, np.float32)
    return found


def _is_known(name: str) -> bool:
    match = _LAYER.fullmatch(name)
    return match is not None and match[2] in MATRICES


def _heads_of(bare: BareTransformer) -> int:
    """The number of heads, from how many columns look from everywhere to BOS; 1 if that does not come out even.

    Where heads were changed inside by invertible maps, no column stands for BOS: then as many as there can be that each
    look from every token to BOS alike.
    """
    bos = bare.tokens[bare.space.index(BOS)] - bare.tokens[bare.space.index(PAD)]  # `one` goes out
    most, across = 0, bare.query.shape[2]
    for layer in range(bare.num_layers):
        looks = np.abs(bos @ bare.key[layer]) > 0.5 * max(1e-9, float(np.abs(bare.key[layer]).max()))
        used = np.abs(bare.query[layer]).max(0) > 1e-3
        most = max(most, int((looks & used).sum()))
    most = most if most and across % most == 0 else 1
    if _look_alike(bare, most):
        return most
    others = (count for count in range(across, 0, -1) if across % count == 0)
    return next((count for count in others if _look_alike(bare, count)), most)


def _look_alike(bare: BareTransformer, heads: int) -> bool:
    """Whether each of so many heads that are used lets `one` alone look to BOS, as a compiler does.

    What looks to BOS is, summed over all columns of a layer, `one` however heads are cut; of half a head it is not.
    """
    size = bare.query.shape[2] // heads
    bos = bare.tokens[bare.space.index(BOS)].astype(float)
    for query, key in zip(bare.query, bare.key, strict=True):
        looks = np.einsum(
            "whs,hs->hw", query.reshape(len(query), heads, size).astype(float), (bos @ key).reshape(heads, size)
        )
        one = looks.sum(0)
        along = looks @ one / max(float(one @ one), 1e-30)
        aside = np.linalg.norm(looks - along[:, None] * one, axis=1) / max(float(np.linalg.norm(one)), 1e-30)
        used = (np.abs(query) > 1e-3).any(0).reshape(heads, size).any(1)
        used |= (np.abs(key) > 1e-3).any(0).reshape(heads, size).any(1)
        if (used & ((along <= 1e-3) | (aside > 0.2 * along))).any():
            return False
    return True
