"""A trained transformer, its vocabulary and its inputs, out of what a person has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.decompiler.trained.asked import BOS, EOS, SEP, Asked, Kind, Strings, same
from weightspace.decompiler.trained.drawing import Questions, answered, walked
from weightspace.decompiler.trained.inputs import Given, guessed_vocab, read_inputs
from weightspace.errors import NetworkError
from weightspace.files.json_text import json_object
from weightspace.transformers.loading import CONFIG
from weightspace.transformers.trained import TrainedTransformer

INDEX = "index.json"
"""A list of models beside their folders, of which each has `model`, its folder, and `vocab`."""
DRAWN = 300


def opened(
    transformer: TrainedTransformer,
    *,
    folder: Path | None = None,
    vocab: Sequence[str] | None = None,
    inputs: Path | Given | None = None,
    kind: Kind | None = None,
    offset: int = 0,
    seed: int = 0,
) -> tuple[Asked, Strings, np.ndarray | None, tuple[str, ...]]:
    """A transformer as it is asked, inputs for it, their right answers if known, and sentences on what was taken so.

    Args:
        folder: where it was read from, in which a vocabulary and inputs.jsonl are looked for.
        vocab: the texts of the tokens, if they are known.
        inputs: with the answers wanted, or their file; without them inputs are drawn.
        kind: what is asked, where there are no inputs.
        offset: position of the first place.
        seed: of drawn inputs.
    Raises:
        NetworkError: if the vocabulary is not known, or inputs do not fit the transformer.
    """
    notes: list[str] = []
    given = read_inputs(inputs) if isinstance(inputs, Path) else inputs
    if vocab is None:
        vocab, said = _vocabulary(transformer, folder, given)
        notes += [said] if said else []
    if given is None and kind is None:
        raise NetworkError(
            "what is the network asked? give inputs, lines with input and follow or next, or the task, sets or answers"
        )
    asked = Asked(transformer, tuple(vocab), given.kind if given is not None else kind or "sets", offset)
    if given is None:
        notes.append("Inputs were drawn: strings that the network itself allows, or questions of letters.")
        return asked, _drawn(asked, seed), None, tuple(notes)
    if len(given.rows) < 20:
        raise NetworkError(f"{len(given.rows)} inputs are too few: give at least 20, better 300")
    strings = given.strings(asked.vocab)
    _check(asked, strings)
    wanted = given.wanted_of(asked.vocab)
    share = same(asked.kind, strings, asked.given(strings), wanted).all(1).mean()
    notes.append(f"The network gives the wanted answers on {share:.3f} of the inputs.")
    return asked, strings, wanted, tuple(notes)


def _check(asked: Asked, strings: Strings) -> None:
    longest = int(strings.lengths.max())
    if longest > asked.positions:
        begins = f" from position {asked.offset}" if asked.offset else ""
        raise NetworkError(
            f"an input of {longest:,} tokens{begins} is longer than the {asked.transformer.shape.positions:,} "
            f"positions of {asked.transformer.where}: leave such inputs out"
        )
    if not (strings.codes[:, 0] == asked.number(BOS)).all():
        raise NetworkError(f"an input does not begin with {BOS!r}: every input does, as the network was trained so")
    if not strings.asked.any(1).all():
        raise NetworkError("nothing is asked of one of the inputs: leave out those whose next is null everywhere")


def _vocabulary(transformer: TrainedTransformer, folder: Path | None, given: Given | None) -> tuple[Sequence[str], str]:
    """The vocabulary that is found, and a sentence if it was guessed."""
    if transformer.vocab is not None:
        return transformer.vocab, ""
    if folder is not None:
        for index in (folder.parent / INDEX, folder / INDEX):
            found = _listed(index, folder.name)
            if found is not None:
                return found, ""
    if given is not None:
        bos = _bos(folder)
        guess = guessed_vocab(given, transformer.shape.vocabulary, bos)
        if guess is not None:
            shown = ", ".join(guess if len(guess) <= 8 else (*guess[:3], "...", *guess[-4:]))
            return guess, f"The vocabulary was taken from the inputs: {shown}."
    raise NetworkError(
        f"the vocabulary of {transformer.where} is not known: give its {transformer.shape.vocabulary:,} tokens in "
        "their order"
    )


def _listed(index: Path, name: str) -> Sequence[str] | None:
    """The vocabulary of a model in an index of several."""
    try:
        entries: Any = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("model") == name:
            vocab = entry.get("vocab")
            if isinstance(vocab, list) and all(isinstance(token, str) for token in vocab):
                return vocab
    return None


def _bos(folder: Path | None) -> int | None:
    """The number of `<bos>` that settings say."""
    try:
        said = json_object((folder / CONFIG).read_bytes()) if folder is not None else {}
    except (OSError, ValueError):
        return None
    bos = said.get("bos_token_id")
    return bos if isinstance(bos, int) else None


def _drawn(asked: Asked, seed: int) -> Strings:
    """Inputs that the network's own answers make: strings that it allows, or random questions with its answers."""
    generator = np.random.default_rng(seed)
    if asked.kind == "sets":
        longest = min(50, asked.positions - 1)
        strings = walked(asked, asked.given, generator.integers(1, longest + 1, DRAWN).tolist(), seed)
        if len(strings) < 20:
            raise NetworkError(f"the network hardly allows anything after {BOS!r}: give inputs")
        return strings
    if SEP not in asked.vocab or EOS not in asked.vocab:
        raise NetworkError(f"to draw questions the vocabulary needs {SEP!r} and {EOS!r}: give inputs instead")
    longest = max(1, min(50, (asked.positions - 3) // 2))
    like = Questions(asked.letters, tuple(range(1, longest + 1)), False, False, False, (), None, 1)
    questions = [like.draw(int(length), generator) for length in generator.integers(1, longest + 1, DRAWN)]
    return answered(asked, [question for question in questions if question], asked.given, None)
