"""What heads do when a model runs: a score of each behaviour for each head, on inputs that are stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from weightspace.errors import NetworkError
from weightspace.heads.folded import check_heads
from weightspace.transformers.places import Place
from weightspace.transformers.trained import TrainedTransformer

Behaviour = Literal["previous", "induction", "duplicate", "current", "local", "sink", "punctuation", "copying"]
BEHAVIOURS: tuple[Behaviour, ...] = get_args(Behaviour)
"""Of each head, means over inputs and over places from the ninth on:

- `previous`, `current`: attention to the place before, to the place itself
- `local`: attention to the four places before
- `sink`: attention to the first place
- `punctuation`: attention to tokens of punctuation alone; needs their texts
- `duplicate`: in a random text that is said twice, the second time: attention to the same place of the first time
- `induction`: there, attention to a place a fixed number of places beside it, for the number at which it is largest.
  The textbook's is one place after it; heads of small models are found that take another
- `copying`: how far the logit that a value adds to its own token lies above those it adds to the other tokens of the
  text, in standard deviations of them
"""
THRESHOLDS: dict[Behaviour, float] = {
    "previous": 0.4,
    "induction": 0.2,
    "duplicate": 0.15,
    "current": 0.2,
    "local": 0.4,
    "sink": 0.5,
    "punctuation": 0.4,
    "copying": 1.0,
}
"""From which score on a head is called by a behaviour."""
FIRST = 8
BESIDE = 8
"""Most places beside the textbook's that an induction head may attend to."""


@dataclass(frozen=True)
class HeadInputs:
    """On what behaviours are measured.

    Attributes:
        texts: ordinary texts, (count, places).
        repeated: random texts, each said twice, (count, 2 * period).
        punctuation: of each token of the vocabulary, whether it is punctuation alone; None where texts are not known.
        stated: what they are, in words.
    """

    texts: Int[Tensor, "texts places"]
    repeated: Int[Tensor, "repeated twice"]
    punctuation: Bool[Tensor, " vocabulary"] | None
    stated: str


@dataclass(frozen=True, eq=False)
class HeadBehaviour:
    """Scores of behaviours.

    Attributes:
        scores: (layers, heads, behaviours), in the order of `BEHAVIOURS`; NaN where one cannot be measured.
        beside: of each head, how many places beside the same token its induction score is measured; 1 in the textbook.
        stated: the inputs, in words.
    """

    scores: Float[Tensor, "layers heads behaviours"]
    beside: Int[Tensor, "layers heads"]
    stated: str

    def of(self, behaviour: Behaviour) -> Float[Tensor, "layers heads"]:
        """The scores of one behaviour."""
        return self.scores[..., BEHAVIOURS.index(behaviour)]


def repeated_texts(vocabulary: int, count: int, period: int, seed: int) -> Int[Tensor, "count twice"]:
    """Random tokens, all of one text different where there are enough of them, each text said twice."""
    random = torch.Generator().manual_seed(seed)
    if vocabulary < 2 * period:
        once = torch.randint(0, vocabulary, (count, period), generator=random)
    else:
        once = torch.stack([torch.randperm(vocabulary, generator=random)[:period] for _ in range(count)])
    return torch.cat((once, once), 1)


def head_behaviour(transformer: TrainedTransformer, inputs: HeadInputs, *, batch: int = 4) -> HeadBehaviour:
    """Run a model and score each of its heads.

    Args:
        batch: inputs that are run at a time; all patterns of a batch are in memory.
    Raises:
        NetworkError: if it is an encoder, or an input is too long or holds unknown tokens.
    """
    check_heads(transformer.shape, transformer.where)
    shape = transformer.shape
    found = torch.full((shape.layers, shape.heads, len(BEHAVIOURS)), torch.nan)
    found[..., [0, 3, 4, 5, 6]] = _of_texts(transformer, inputs, batch)
    induction, duplicate, copying, beside = _of_repeated(transformer, inputs.repeated, batch)
    found[..., 1], found[..., 2], found[..., 7] = induction, duplicate, copying
    return HeadBehaviour(found, beside, inputs.stated)


def _of_texts(transformer: TrainedTransformer, inputs: HeadInputs, batch: int) -> Float[Tensor, "layers heads 5"]:
    """previous, current, local, sink, punctuation."""
    if inputs.texts.shape[1] <= FIRST + 1:
        raise NetworkError(f"texts of {inputs.texts.shape[1]} tokens are too short: give more than {FIRST + 1}")
    parts = []
    for tokens in inputs.texts.split(batch):
        run = transformer.run(tokens, read=transformer.places("pattern"), logits=False)
        each = []
        for number in range(transformer.shape.layers):
            pattern = run[Place("pattern", number)][:, :, FIRST:]  # (b, heads, query, key)
            back = [_diagonal(pattern, FIRST - step) for step in range(5)]
            marks = torch.full_like(back[0], torch.nan)
            if inputs.punctuation is not None:
                marks = (pattern * inputs.punctuation[tokens][:, None, None].float()).sum(-1)
            scores = (back[1], back[0], torch.stack(back[1:]).sum(0), pattern[..., 0], marks)
            each.append(torch.stack([score.mean((0, 2)) for score in scores], -1))
        parts.append(torch.stack(each) * len(tokens))
    return torch.stack(parts).sum(0) / len(inputs.texts)


def _diagonal(pattern: Tensor, offset: int) -> Tensor:
    """Entries (query, query + offset) of (b, heads, query, key), as (b, heads, query)."""
    return pattern.diagonal(offset, -2, -1)


def _of_repeated(
    transformer: TrainedTransformer, repeated: Tensor, batch: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """induction, duplicate and copying, and how many places beside induction is largest."""
    shape, period = transformer.shape, repeated.shape[1] // 2
    reach = min(BESIDE, period - 2)
    steps = range(-reach, reach + 1)
    beside = torch.zeros(len(steps), shape.layers, shape.heads)
    copying = torch.zeros(shape.layers, shape.heads)
    for tokens in repeated.split(batch):
        run = transformer.run(tokens, read=transformer.places("pattern", "v"), logits=False)
        for number in range(shape.layers):
            second = run[Place("pattern", number)][:, :, period + reach :]  # queries whose places beside are all there
            for place, step in enumerate(steps):
                attended = _diagonal(second, reach + step)[..., : period - reach - max(step, 0)]
                beside[place, number] += attended.mean(2).sum(0)
            copying[number] += _copied(transformer, number, run[Place("v", number)][:, :period], tokens[:, :period])
    beside, copying = beside / len(repeated), copying / len(repeated)
    duplicate = beside[reach].clone()
    beside[reach] = -1.0
    induction, at = beside.max(0)
    return induction, duplicate, copying, at - reach


def _copied(transformer: TrainedTransformer, number: int, values: Tensor, tokens: Tensor) -> Float[Tensor, " heads"]:
    """The copying score, summed over texts.

    Args:
        values: (b, period, key heads, size).
    """
    ends, shape = transformer.ends, transformer.shape
    if ends.unembed is None:
        return torch.full((shape.heads,), torch.nan)
    rows = ends.unembed.T[tokens]  # (b, period, width)
    rows = rows if ends.final_gain is None else rows * ends.final_gain
    whole = values.repeat_interleave(shape.group, 2)
    w_o = transformer.weights(number, "w_o")["w_o"]
    logits = torch.einsum("bphs,hsw,bkw->bhpk", whole, w_o, rows)
    own = (logits.diagonal(0, -2, -1) - logits.mean(-1)) / logits.std(-1).clamp(min=1e-9)
    return own.mean(-1).sum(0)


def loss_on(transformer: TrainedTransformer, repeated: Tensor, ablated: Sequence[tuple[int, int]] = ()) -> float:
    """Loss of the second time in repeated texts, nats a token, with some heads put to zero.

    Args:
        ablated: (layer, head) of each.
    """
    replace = {Place("z", layer, head): torch.zeros(1) for layer, head in ablated}
    period, total = repeated.shape[1] // 2, 0.0
    for tokens in repeated.split(4):
        logits = transformer.run(tokens, replace=replace).logits[:, period - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, period:].flatten())) * len(
            tokens
        )
    return total / len(repeated)
