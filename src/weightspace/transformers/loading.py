"""A trained transformer out of a folder, a file or arrays: which family it is of, and whether it is whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from weightspace.errors import NetworkError, UnreadableError
from weightspace.files.checkpoints import outlines
from weightspace.transformers.families import bert, gguf, gpt2, llama, transformer_lens
from weightspace.transformers.forward import ACTIVATIONS
from weightspace.transformers.gguf_header import gguf_header
from weightspace.transformers.origin import is_trained_file
from weightspace.transformers.settings import Settings
from weightspace.transformers.shape import TransformerShape
from weightspace.transformers.source import FileSource, MemorySource, Source, check_parts, path_of
from weightspace.transformers.trained import TrainedTransformer
from weightspace.transformers.weights import Parts

CONFIG = "config.json"
FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of weights in a folder of Hugging Face's, the preferred first."""
Names = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Family:
    recognised: Callable[[Mapping[str, object]], bool]
    shape: Callable[[Settings, Names], TransformerShape]
    ends: Callable[[TransformerShape, Settings, Names], Parts]
    layer: Callable[[TransformerShape, int, Names], Parts]
    model_types: tuple[str, ...] = ()


_FAMILIES = tuple(
    _Family(module.recognised, module.shape, module.ends, module.layer, types)
    for module, types in (
        (gpt2, ("gpt2",)),
        (llama, llama.FAMILIES),
        (bert, ("bert",)),
        (transformer_lens, ()),
        (gguf, ()),
    )
)
KNOWN = (
    "gpt2, llama, mistral, qwen2 and bert as Hugging Face names them, TransformerLens state dicts, "
    "llama and qwen2 as GGUF"
)
"""The architectures that are read, in words."""


def recognised(names: Mapping[str, object]) -> bool:
    """Whether arrays are named as those of a trained transformer that is known."""
    return any(family.recognised(names) for family in _FAMILIES)


def is_trained(source: str | Path | Mapping[str, Any]) -> bool:
    """Whether there is anything but what our compiler or Tracr names so."""
    if isinstance(source, Mapping):
        return recognised(source)
    return is_trained_file(source)


def load_trained(
    source: str | Path | Mapping[str, np.ndarray | Tensor],
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    vocab: Sequence[str] | None = None,
) -> TrainedTransformer:
    """A trained transformer; nothing in a file is executed, and no weight is read before it is needed.

    Args:
        source: a folder of Hugging Face's, a file of weights or an index of shards, a GGUF file, or arrays by name.
        config: settings, or their file. Settings replace those of a config.json beside the weights one by one.
        vocab: the texts of the tokens; unless given those of a GGUF file's tokenizer.
    Raises:
        UnreadableError: if a file is missing or damaged, or layers are.
        NetworkError: if the architecture is not known, or settings and arrays do not fit.
    """
    found = _source(source)
    settings = _settings(found, config)
    family = _family(found, settings)
    shape = family.shape(settings, found.shapes)
    if shape.activation not in ACTIVATIONS:
        raise NetworkError(
            f"{settings.where} says the activation {shape.activation!r}: known are {', '.join(ACTIVATIONS)}"
        )
    ends = family.ends(shape, settings, found.shapes)
    check_parts(ends, found, "what stands before the first layer or after the last")
    layers = [family.layer(shape, number, found.shapes) for number in range(shape.layers)]
    for number, parts in enumerate(layers):
        check_parts(parts, found, f"layer {number} of {shape.layers} (counted from 0)")
    beyond = {part.name for part in family.layer(shape, shape.layers, found.shapes).values()} & set(found.shapes)
    if beyond:
        raise NetworkError(
            f"{found.where} has {sorted(beyond)[0]!r}, and {settings.where} says {shape.layers} layers, counted from 0"
        )
    if vocab is None:
        tokens = settings.said.get("tokenizer.ggml.tokens")
        vocab = tokens if isinstance(tokens, list) else None
    return TrainedTransformer(shape, found, ends, layers, None if vocab is None else tuple(vocab))


def _source(source: str | Path | Mapping[str, Any]) -> Source:
    if isinstance(source, Mapping):
        return MemorySource(source)
    path = Path(source)
    if path.is_dir():
        path = _weights_in(path)
    return FileSource(outlines(path)[0])


def _weights_in(folder: Path) -> Path:
    """The file of weights in a folder of Hugging Face's."""
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    packed = sorted(folder.glob("*.gguf"))
    if len(packed) == 1:
        return packed[0]
    if packed:
        raise UnreadableError(f"{folder} holds {len(packed)} GGUF files: name one of them")
    raise UnreadableError(
        f"{folder} holds no weights of a transformer: expected one of {', '.join(FILES)} or a GGUF file"
    )


def _settings(source: Source, config: str | Path | Mapping[str, Any] | None) -> Settings:
    """What is said of a transformer, in its GGUF header, beside it, and by the caller."""
    path = path_of(source)
    if config is not None and not isinstance(config, Mapping):
        return Settings.read(Path(config))
    said, where = {}, source.where
    if isinstance(source, FileSource) and source.outline.kind == "gguf":
        said = gguf_header(source.outline.path)
    elif path is not None and (beside := path.with_name(CONFIG)).is_file():
        read = Settings.read(beside)
        said, where = read.said, read.where
    if isinstance(config, Mapping):
        return Settings({**said, **config}, "config" if not said else f"{where} with config")
    return Settings(said, where)


def _family(source: Source, settings: Settings) -> _Family:
    """The family whose names a transformer's arrays have, which has to be what its settings say."""
    said = settings.said.get("model_type")
    found = next((family for family in _FAMILIES if family.recognised(source.shapes)), None)
    known = found is not None and (said is None or not found.model_types or said in found.model_types)
    if found is None or not known:
        named = f" of the architecture {said!r}" if isinstance(said, str) else ""
        raise NetworkError(f"{source.where} holds no transformer{named} that is read here: known are {KNOWN}")
    if not settings.said and found.model_types:
        raise NetworkError(
            f"{source.where} does not say its shape: put its {CONFIG} beside it, or give config, such as the heads of "
            f"a layer"
        )
    return found
