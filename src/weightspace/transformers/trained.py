"""A transformer that somebody trained: its weights read layer by layer when they are needed, and one way to run it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from weightspace.errors import NetworkError
from weightspace.transformers.forward import allowed_keys, angles_of, embedded, layer_forward, logits_of
from weightspace.transformers.places import ENDS, HEAD_AXIS, KEY_KINDS, Kind, Place, Replacement, Visits
from weightspace.transformers.shape import TransformerShape
from weightspace.transformers.source import Source, weights_of
from weightspace.transformers.weights import EndWeights, LayerWeights, Parts

Inputs = Tensor | Sequence[Any]
"""Numbers of tokens (batch, place) or (place,); or lists of numbers or of the vocabulary's texts, of any lengths."""


@dataclass(frozen=True)
class Run:
    """What came out of a run.

    Attributes:
        values: what was read, by place.
        mask: which places of the inputs are real, (batch, place); the others only fill up shorter inputs.
    """

    tokens: Int[Tensor, "batch place"]
    mask: Bool[Tensor, "batch place"]
    values: Mapping[Place, Tensor]
    found: Float[Tensor, "batch place outputs"] | None

    def __getitem__(self, place: Place) -> Tensor:
        if place not in self.values:
            raise NetworkError(f"{place} was not read in this run: name it in read=[...]")
        return self.values[place]

    @property
    def logits(self) -> Float[Tensor, "batch place outputs"]:
        """A row of logits at each place.

        Raises:
            NetworkError: if the transformer has none, or they were not asked for.
        """
        if self.found is None:
            raise NetworkError("this run has no logits: the transformer has none, or it was run with logits=False")
        return self.found


class TrainedTransformer:
    """A transformer's shape, vocabulary and weights, and its forward pass.

    Attributes:
        shape: sizes and settings.
        vocab: the texts of the tokens, or None.
        where: what it was read from.
    """

    def __init__(
        self,
        shape: TransformerShape,
        source: Source,
        ends: Parts,
        layers: Sequence[Parts],
        vocab: tuple[str, ...] | None = None,
    ) -> None:
        if vocab is not None and len(vocab) != shape.vocabulary:
            raise NetworkError(
                f"a vocabulary of another size: {len(vocab):,} tokens were given, and {source.where} embeds "
                f"{shape.vocabulary:,}"
            )
        self.shape, self.vocab, self.where = shape, vocab, source.where
        self._source, self._end_parts, self._layer_parts = source, ends, tuple(layers)
        self._layers: dict[int, LayerWeights] = {}

    def __repr__(self) -> str:
        s = self.shape
        return f"<TrainedTransformer: {s.family}, {s.layers} layers of {s.heads} heads, width {s.width}, {self.where}>"

    # -- weights ------------------------------------------------------------------------------------------------------

    @cached_property
    def ends(self) -> EndWeights:
        """Embeddings, last norm, unembedding; read on first use."""
        return EndWeights(**weights_of(self._end_parts, self._source))

    def layer(self, number: int) -> LayerWeights:
        """The weights of a layer, read on first use.

        Raises:
            NetworkError: if there is no such layer, or it holds numbers that are not finite.
        """
        if not 0 <= number < self.shape.layers:
            raise NetworkError(f"there is no layer {number}: the transformer has {self.shape.layers}, counted from 0")
        if number not in self._layers:
            self._layers[number] = LayerWeights(**weights_of(self._layer_parts[number], self._source))
        return self._layers[number]

    def weights(self, number: int, *names: str) -> dict[str, Tensor]:
        """Some weights of a layer by the names of `LayerWeights`, read now and not kept; what it lacks is left out.

        Raises:
            NetworkError: if there is no such layer, or it holds numbers that are not finite.
        """
        if not 0 <= number < self.shape.layers or number in self._layers:
            whole = self.layer(number)
            return {name: getattr(whole, name) for name in names if getattr(whole, name) is not None}
        parts = {name: part for name, part in self._layer_parts[number].items() if name in names}
        return weights_of(parts, self._source)

    @property
    def loaded_layers(self) -> tuple[int, ...]:
        """The layers that have been read so far."""
        return tuple(sorted(self._layers))

    @cached_property
    def _token_numbers(self) -> dict[str, int]:
        return {} if self.vocab is None else {text: number for number, text in reversed(list(enumerate(self.vocab)))}

    # -- inputs -------------------------------------------------------------------------------------------------------

    def encode(self, inputs: Inputs) -> tuple[Int[Tensor, "batch place"], Bool[Tensor, "batch place"]]:
        """Inputs as numbers of tokens, shorter ones filled up at their end, and which places are real.

        Raises:
            NetworkError: if there is none, or a token is not in the vocabulary.
        """
        if isinstance(inputs, Tensor):
            tokens = inputs if inputs.dim() == 2 else inputs.unsqueeze(0)
            if tokens.dim() != 2 or tokens.dtype.is_floating_point or not tokens.numel():
                raise NetworkError(
                    f"inputs have shape {tuple(inputs.shape)}, {inputs.dtype}: expected whole numbers, (b, p)"
                )
            self._check_tokens(int(tokens.min()), int(tokens.max()))
            return tokens.long(), torch.ones(tokens.shape, dtype=torch.bool)
        rows = [inputs] if inputs and isinstance(inputs[0], int | str) else list(inputs)
        if not rows or not all(isinstance(row, Sequence | Tensor) and len(row) for row in rows):
            raise NetworkError("an input is a list of at least one token, and there has to be at least one input")
        numbers = [[self._number(token) for token in row] for row in rows]
        self._check_tokens(min(map(min, numbers)), max(map(max, numbers)))
        longest = max(map(len, numbers))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in numbers])
        lengths = torch.tensor([len(row) for row in numbers])
        return tokens, torch.arange(longest)[None] < lengths[:, None]

    def _number(self, token: Any) -> int:
        if isinstance(token, str):
            if token not in self._token_numbers:
                raise NetworkError(
                    f"token {token!r} is not in the vocabulary"
                    + ("" if self.vocab else ": none is known, so give numbers, or vocab when it is loaded")
                )
            return self._token_numbers[token]
        return int(token)

    def _check_tokens(self, least: int, largest: int) -> None:
        if least < 0 or largest >= self.shape.vocabulary:
            odd = least if least < 0 else largest
            raise NetworkError(
                f"token {odd} is outside the vocabulary: {self.shape.vocabulary:,} tokens, counted from 0"
            )

    # -- runs ---------------------------------------------------------------------------------------------------------

    def run(
        self,
        inputs: Inputs,
        *,
        read: Iterable[Place] = (),
        replace: Mapping[Place, Replacement] | None = None,
        mask: Bool[Tensor, "batch place"] | None = None,
        offset: int = 0,
        logits: bool = True,
        gradients: bool = False,
    ) -> Run:
        """One forward pass over a batch, in float32.

        Args:
            inputs: see `Inputs`.
            read: places whose values are kept.
            replace: what is put at a place, before it is read: a tensor that can be laid over its shape, or a function
                of what stood there. Functions are called in the order of the pass.
            mask: which places are real, where tokens are given as a tensor; no place sees one that is not.
            offset: position of the first place.
            logits: whether they are needed; if not, the pass ends behind the last place that is read.
            gradients: whether the values carry gradients, as for attribution.
        Raises:
            NetworkError: if an input is too long or holds an unknown token, or there is no such place.
        """
        tokens, real = self.encode(inputs)
        if mask is not None and mask.shape != tokens.shape:
            raise NetworkError(f"the mask has shape {tuple(mask.shape)} and the inputs {tuple(tokens.shape)}")
        self._check_length(tokens.shape[1], offset)
        wanted, put = tuple(read), dict(replace or {})
        for place in (*wanted, *put):
            place.check(self.shape)
        visit = Visits(wanted, put)
        # causal places never see what fills up the end, so that no mask is needed for it
        seen = mask if mask is not None or self.shape.causal or bool(real.all()) else real
        with torch.set_grad_enabled(gradients):
            found = self._pass(tokens, seen, offset, visit, _last_layer(wanted, logits, self.shape.layers), logits)
        return Run(tokens, real if mask is None else mask, visit.values, found)

    def _pass(
        self, tokens: Tensor, mask: Tensor | None, offset: int, visit: Visits, layers: int, logits: bool
    ) -> Tensor | None:
        shape, ends, places = self.shape, self.ends, tokens.shape[1]
        stream = embedded(shape, ends, tokens, offset, visit)
        allowed = allowed_keys(mask, places, shape.causal)
        angles = None if shape.rotary is None else angles_of(shape.rotary, ends.rotary_factors, places, offset)
        for number in range(layers):
            stream = layer_forward(shape, self.layer(number), number, stream, allowed, angles, visit)
        if layers < shape.layers or not (logits or visit.wants("final", "final_scale", "logits")):
            return None
        return logits_of(shape, ends, stream, visit)

    def _check_length(self, places: int, offset: int) -> None:
        if offset < 0 or offset + places > self.shape.positions:
            begins = f" from position {offset}" if offset else ""
            raise NetworkError(
                f"an input of {places:,} tokens{begins} is longer than the {self.shape.positions:,} positions of "
                f"{self.where}"
            )

    def logits(self, inputs: Inputs, *, batch_size: int = 1024) -> Float[Tensor, "batch place outputs"]:
        """The logits of many inputs, some at a time."""
        tokens, real = self.encode(inputs)
        masks = [None] * len(tokens) if self.shape.causal or bool(real.all()) else real.split(batch_size)
        parts = zip(tokens.split(batch_size), masks, strict=False)
        return torch.cat([self.run(part, mask=mask).logits for part, mask in parts])

    def places(self, *kinds: Kind, heads: bool = False) -> list[Place]:
        """All places of some kinds, layer by layer.

        Args:
            heads: a place for each head where a kind has heads; else one for all of them.
        """
        found = []
        for layer in (None, *range(self.shape.layers)):
            for kind in kinds:
                if (layer is None) != (kind in ENDS):
                    continue
                number = self.shape.key_heads if kind in KEY_KINDS else self.shape.heads
                split = range(number) if heads and kind in HEAD_AXIS else (None,)
                found += [Place(kind, layer, head) for head in split]
        for place in found:
            place.check(self.shape)
        return found

    def norm_scales(self, inputs: Inputs, **options: Any) -> dict[Place, Tensor]:
        """What each norm divides by on some inputs: in `replace` of another run, it makes every norm a linear map."""
        kinds: tuple[Kind, ...] = ("norm1_scale", "norm2_scale") if self.shape.hidden else ("norm1_scale",)
        if self.shape.norm == "none":
            return {}
        if self.shape.norm_first:
            kinds = (*kinds, "final_scale")
        return dict(self.run(inputs, read=self.places(*kinds), **options).values)


def _last_layer(read: Sequence[Place], logits: bool, layers: int) -> int:
    """How many layers have to be run for what is wanted."""
    if logits or any(place.kind in ("final", "final_scale", "logits") for place in read):
        return layers
    return max((place.layer + 1 for place in read if place.layer is not None), default=0)
