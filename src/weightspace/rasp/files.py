"""Compiled transformers on disk: safetensors with a description, and Tracr's own parameters as npz."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.rasp.functions import RaspError, Value
from weightspace.rasp.language import BOS, PAD
from weightspace.rasp.transformer import CompiledTransformer, Configuration, Directions, Output, layout_of
from weightspace.rasp.validate import check_vocab

METADATA_KEY = "weightspace.rasp"
FORMAT = 1


def save(transformer: CompiledTransformer, path: str | Path) -> None:
    """Write a transformer as safetensors: the parameters by Tracr's names, and all else as JSON in the metadata.

    It appears whole or not at all.
    """
    from safetensors.numpy import save as to_bytes

    from weightspace.weights.network import write_atomically

    c, o = transformer.configuration, transformer.output
    about = {
        "format": FORMAT,
        "configuration": {
            "num_heads": c.num_heads,
            "num_layers": c.num_layers,
            "key_size": c.key_size,
            "mlp_hidden_size": c.mlp_hidden_size,
            "causal": c.causal,
        },
        "directions": [[g.label, None if g.values is None else list(g.values)] for g in transformer.directions],
        "vocab": list(transformer.vocab),
        "max_seq_len": transformer.max_seq_len,
        "output": {"label": o.label, "encoding": o.encoding, "none": o.none, "strict": o.strict},
        "mode": transformer.mode,
    }
    about["checksum"] = _checksum(about, transformer.flat)
    params = {name: np.ascontiguousarray(value) for name, value in transformer.params.items()}
    write_atomically(Path(path), to_bytes(params, {METADATA_KEY: json.dumps(about)}))


def load(path: str | Path) -> CompiledTransformer:
    """Read what `save` has written. Nothing in the file is executed.

    Raises:
        RaspError: if the file is missing, damaged, or holds something else.
    """
    from weightspace.weights.network import NetworkError, read_safetensors

    try:
        params, metadata = read_safetensors(path)
    except NetworkError as error:
        raise RaspError(str(error)) from None
    if METADATA_KEY not in metadata:
        raise RaspError(f"{path} holds no compiled transformer: it was not written by `weightspace rasp compile`")
    try:
        about = json.loads(metadata[METADATA_KEY])
        if about["format"] != FORMAT:
            raise RaspError(f"{path} is of format {about['format']!r}, this version reads {FORMAT}")
        configuration = Configuration(**about["configuration"])
        groups = [(label, None if values is None else tuple(values)) for label, values in about["directions"]]
        for label, values in groups:
            if not isinstance(label, str) or not all(_is_value(value) for value in values or ()):
                raise RaspError(f"the directions of {label!r} are damaged")
        if about["max_seq_len"] != len(dict(groups)["indices"] or ()) or not isinstance(
            about["output"]["strict"], bool
        ):
            raise RaspError("its description contradicts itself")
        loaded = from_parameters(
            params,
            configuration,
            groups,
            vocab=tuple(about["vocab"]),
            output=about["output"]["label"],
            none=about["output"]["none"],
            strict=about["output"]["strict"],
            mode=about["mode"],
        )
        if about["checksum"] != _checksum(about, loaded.flat):
            raise RaspError("it differs from its checksum: write it again")
        return loaded
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, RaspError):
            raise RaspError(f"{path}: {error}") from None
        raise RaspError(f"{path} has a damaged description ({error!r}): write it again") from None


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _checksum(about: Mapping[str, Any], flat: np.ndarray) -> str:
    """Of the description but for the checksum itself, and of every parameter."""
    content = json.dumps({name: value for name, value in about.items() if name != "checksum"}, sort_keys=True)
    return hashlib.blake2b(content.encode() + flat.tobytes(), digest_size=16).hexdigest()


def from_parameters(
    params: Mapping[str, np.ndarray],
    configuration: Configuration,
    groups: list[tuple[str, tuple[Value, ...] | None]],
    *,
    vocab: tuple[Value, ...],
    output: str,
    none: int | None = None,
    strict: bool = False,
    mode: str = "loaded",
) -> CompiledTransformer:
    """A transformer of given parameters and named directions.

    Args:
        params: every parameter by Tracr's name.
        groups: (label, values or None) of the residual stream, in order; `tokens` and `indices` among them.
        output: label of the group that holds the answer.
    Raises:
        RaspError: if names, shapes or numbers are not those of such a transformer.
    """
    c = configuration
    layers = len({name.split("/")[1] for name in params if name.startswith("transformer/layer_")})
    if c.num_layers != layers or not isinstance(c.causal, bool):
        raise RaspError(f"a configuration of {c.num_layers!r} layers, causal {c.causal!r}, over parameters of {layers}")
    sizes = (c.num_heads, c.num_layers, c.key_size, c.mlp_hidden_size)
    if any(isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 1_000_000 for size in sizes):
        raise RaspError(f"a configuration's sizes are positive whole numbers, not {sizes}")
    directions, start = [], 0
    for label, values in groups:
        directions.append(Directions(label, start, values))
        start += directions[-1].size
    by_label = {group.label: group for group in directions}
    tokens, indices = by_label.get("tokens"), by_label.get("indices")
    if tokens is None or indices is None or tokens.values is None or BOS not in tokens.values:
        raise RaspError("a compiled transformer has directions for tokens (BOS among them) and for indices")
    if tuple(value for value in tokens.values if value not in (BOS, PAD)) != check_vocab(vocab):
        raise RaspError("the vocabulary and the directions of the tokens differ")
    if none is not None and not any(group.values is None and group.start == none for group in directions):
        raise RaspError(f"no single direction stands at {none!r}, where it is said that None does")
    if len(by_label) < len(directions):
        raise RaspError("two groups of directions have one label")
    if output not in by_label:
        raise RaspError(f"the output {output!r} is none of the directions {', '.join(by_label)}")
    layout = layout_of(len(tokens.values), indices.size, start, configuration)
    wanted = {name: shape for name, shape, _ in layout.leaves}
    if wanted.keys() != params.keys():
        odd = sorted(wanted.keys() ^ params.keys())[0]
        raise RaspError(f"the parameter {odd!r} is {'missing' if odd in wanted else 'not known'}")
    flat = np.zeros(layout.size, dtype=np.float32)
    for name, shape, offset in layout.leaves:
        array = params[name]
        if array.shape != shape:
            raise RaspError(f"the parameter {name!r} has shape {array.shape}, not {shape}")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise RaspError(f"the parameter {name!r} does not hold finite numbers")
        flat[offset : offset + array.size] = array.ravel()
    places = np.flatnonzero(flat)
    answer = by_label[output]
    encoding = "numerical" if answer.values is None else "categorical"
    return CompiledTransformer(
        configuration=configuration,
        layout=layout,
        places=places,
        values=flat[places],
        directions=tuple(directions),
        vocab=vocab,
        max_seq_len=indices.size,
        output=Output(answer.label, encoding, answer.start, answer.values, none, strict),
        mode=mode,
    )


def load_npz(path: str | Path, record: Mapping[str, Any]) -> CompiledTransformer:
    """A transformer that Tracr itself has compiled, out of an npz of `ID/PARAMETER` arrays.

    Args:
        path: the npz; pickled arrays in it are refused.
        record: what belongs to it, as in the golden files: `id`, `config`, `residual_labels`, `vocab`, `max_seq_len`,
            `causal`, and `output` with `ops`, or `output_label`.
    Raises:
        RaspError: if the file is missing, damaged, or does not go with the record.
    """
    try:
        prefix = f"{record['id']}/"
        with np.load(Path(path), allow_pickle=False) as archive:
            params = {name.removeprefix(prefix): archive[name] for name in archive.files if name.startswith(prefix)}
        output = record.get("output_label")
        if output is None:
            output = next(op["label"] for op in record["ops"] if op["var"] == record["output"])
        configuration = Configuration(**record["config"], causal=bool(record["causal"]))
        groups = _groups(record["residual_labels"], [*record["vocab"], BOS, PAD])
        return from_parameters(params, configuration, groups, vocab=tuple(record["vocab"]), output=output)
    except (
        OSError,
        zipfile.BadZipFile,
        KeyError,
        TypeError,
        ValueError,
        StopIteration,
        EOFError,
        MemoryError,
    ) as error:
        if isinstance(error, RaspError):
            raise RaspError(f"{path}: {error}") from None
        raise RaspError(f"{path} does not hold the transformer of this record: {error!r}") from None


def _groups(names: list[str], tokens: list[Value]) -> list[tuple[str, tuple[Value, ...] | None]]:
    """The groups of directions that Tracr's names `label:value` describe; values other than tokens are read as text."""
    groups: list[tuple[str, list[Value] | None]] = []
    written = {str(token): token for token in tokens}
    for name in names:
        label, colon, text = name.partition(":")
        if not colon:
            groups.append((label, None))
            continue
        value: Value = written[text] if label == "tokens" else _value(text)
        if groups and groups[-1][0] == label and groups[-1][1] is not None:
            groups[-1][1].append(value)
        else:
            groups.append((label, [value]))
    return [(label, None if values is None else tuple(values)) for label, values in groups]


def _value(text: str) -> Value:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
