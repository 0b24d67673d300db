"""Names of arrays as frameworks write them: the layer that an array belongs to, and what it does there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from weightspace.weights.spec import Role

Token = str | int
"""A part of a name: a word in small letters, or a number."""
Word = Literal["weight", "bias", "scale", "shift", "mean", "variance"]
"""What a name says that its array is."""

_WORDS: dict[tuple[str, ...], Word] = {
    **{(word,): "weight" for word in ("weight", "weights", "kernel", "w")},
    **{(word,): "bias" for word in ("bias", "biases", "b")},
    **{(word,): "scale" for word in ("gamma", "scale")},
    **{(word,): "shift" for word in ("beta", "shift", "offset")},
    **dict.fromkeys((("running", "mean"), ("moving", "mean"), ("mean",)), "mean"),
    **{(moving, word): "variance" for moving in ("running", "moving") for word in ("var", "variance")},
    **{(word,): "variance" for word in ("var", "variance")},
}
_CARDINALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_NUMBERS = {
    **{word: number for number, word in enumerate(_CARDINALS)},
    **{word: number for number, word in enumerate(_ORDINALS, 1)},
}
_TOKEN = re.compile(r"[0-9]{1,18}|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")


@dataclass(frozen=True)
class ArrayName:
    """A name, taken apart.

    Attributes:
        layer: the words and numbers of the layer's name, outermost first: `blocks.2.conv1.weight` is of the layer
            (blocks, 2, conv, 1).
        word: what it says that the array is; None where it says nothing that is known.
    """

    layer: tuple[Token, ...]
    word: Word | None


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a name between dots, slashes or brackets: `a.b/kernel:0` and `['a']['b']['kernel']` alike."""
    return tuple(part for part in re.split(r"[./\[\]'\"]+", re.sub(r":\d+$", "", name)) if part)


def taken_apart(name: str) -> ArrayName:
    """A name as its layer and its word, whichever way it is written.

    `conv1.weight`, `conv1_w`, `Conv1Kernel`, `w1` and `features.3.weight` all have the word "weight". The word is
    looked for in the last part of the name alone.
    """
    *outer, last = parts_of(name) or ("",)
    tokens = _tokens(last)
    found: Word | None = None
    for length, end in ((length, end) for end in range(len(tokens), 0, -1) for length in (2, 1) if end >= length):
        words = tuple(str(token) for token in tokens[end - length : end])
        if words in _WORDS:
            found = _WORDS[words]
            tokens = tokens[: end - length] + tokens[end:]
            break
    return ArrayName((*(token for part in outer for token in _tokens(part)), *tokens), found)


def _tokens(part: str) -> tuple[Token, ...]:
    tokens: list[Token] = []
    for word in map(str.lower, _TOKEN.findall(part)):
        tokens.append(int(word) if word.isdecimal() else _NUMBERS.get(word, word))
    return tuple(tokens)


def roles_in_layer(arrays: Mapping[str, tuple[Word | None, tuple[int, ...]]]) -> dict[str, Role]:
    """What each of a layer's arrays does, from its word and its shape; "other" where its word is not known.

    Args:
        arrays: of one layer, by name.
    """
    linear = any(word == "weight" and len(shape) > 1 for word, shape in arrays.values())
    scaled = any(word == "scale" or (word == "weight" and len(shape) < 2) for word, shape in arrays.values())
    roles: dict[str, Role] = {}
    for name, (word, shape) in arrays.items():
        if word == "weight":
            embeds = len(shape) == 2 and re.search(r"emb|wte|wpe|(^|[._])pos", name.lower())
            roles[name] = "scale" if len(shape) < 2 else "embedding" if embeds else "kernel"
        elif word == "bias":
            roles[name] = "shift" if scaled and not linear else "bias"
        elif word is None:
            roles[name] = "other"
        else:
            named: dict[Word, Role] = {"mean": "running_mean", "variance": "running_variance"}
            roles[name] = named.get(word, "scale" if word == "scale" else "shift")
    return roles


def runs_before(one: tuple[Token, ...], other: tuple[Token, ...]) -> bool | None:
    """Whether one layer's name says that it runs before another: where they differ first, both have a number there.

    `conv2d` is before `conv2d_1`, as Keras counts. None where names say nothing, such as `stem` and `blocks`.
    """
    for mine, yours in zip(one, other, strict=False):
        if mine != yours:
            return mine < yours if isinstance(mine, int) and isinstance(yours, int) else None
    shorter = min(len(one), len(other))
    if len(one) == len(other) or not isinstance(max(one, other, key=len)[shorter], int):
        return None
    return len(one) < len(other)
