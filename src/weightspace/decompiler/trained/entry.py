"""Decompiling a trained transformer as a person calls it: a folder or a file, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from weightspace.decompiler.trained.asked import KINDS, Kind
from weightspace.decompiler.trained.decompile import Settings, decompile_trained, settings_for
from weightspace.decompiler.trained.inputs import Given
from weightspace.decompiler.trained.opening import opened
from weightspace.decompiler.trained.result import TrainedDecompilation
from weightspace.errors import NetworkError
from weightspace.transformers.loading import load_trained
from weightspace.transformers.trained import TrainedTransformer

INPUTS = "inputs.jsonl"
"""Inputs that stand in a model's folder."""


def decompile_file(
    source: str | Path | TrainedTransformer,
    *,
    vocab: Sequence[str] | None = None,
    inputs: Path | Given | None = None,
    kind: Kind | None = None,
    offset: int = 0,
    seconds: float = 30.0,
    settings: Settings | None = None,
) -> TrainedDecompilation:
    """The program of a trained transformer in a folder or file; see `opened` and `decompile_trained`.

    Args:
        seconds: for each of the proofs, and for looking inside four times as much.
        settings: all of them, instead of `seconds`.
    Raises:
        NetworkError: if the transformer, its vocabulary or its inputs cannot be used.
    """
    if kind is not None and kind not in KINDS:
        raise NetworkError(f"a task is one of {', '.join(KINDS)}, not {kind!r}")
    if offset < 0:
        raise NetworkError(f"positions are counted from 0, so that an offset is not {offset}")
    transformer = source if isinstance(source, TrainedTransformer) else load_trained(Path(source))
    folder = None if isinstance(source, TrainedTransformer) else Path(source)
    folder = folder.parent if folder is not None and folder.is_file() else folder
    if inputs is None and kind is None and folder is not None and (folder / INPUTS).is_file():
        inputs = folder / INPUTS
    settings = settings or settings_for(seconds)
    asked, strings, wanted, notes = opened(
        transformer, folder=folder, vocab=vocab, inputs=inputs, kind=kind, offset=offset, seed=settings.seed
    )
    found = decompile_trained(asked, strings, settings, wanted)
    return replace(found, notes=(*notes, *found.notes))
