"""Transformers on disk: safetensors with or without a description, and Tracr's own parameters as npz."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import RaspError, UnreadableError
from weightspace.files.kinds import Kind, kinds_of
from weightspace.rasp.compiler.bare import TOKENS, BareTransformer
from weightspace.rasp.compiler.parameters import (
    flattened,
    from_transformer_lens,
    is_transformer_lens,
    pickled_arrays,
    read_parameters,
    what_else,
)
from weightspace.rasp.compiler.transformer import (
    CompiledTransformer,
    Configuration,
    Directions,
    Output,
    layout_of,
)
from weightspace.rasp.functions import Value, counted
from weightspace.rasp.language import BOS, PAD
from weightspace.rasp.validate import check_vocab

METADATA_KEY = "weightspace.rasp"
FORMAT = 1
LARGEST_PICKLE = 512 * 2**20
"""Bytes of the longest pickle that is read."""
OBJECT_HEADER = 1024
"""Bytes in which the header of an array of objects stands, and more."""
LARGEST_FILE = 1 << 31
"""Bytes that an npz may hold when it is unpacked: what a transformer of 500 million parameters takes."""


def save_transformer(transformer: CompiledTransformer, path: str | Path) -> None:
    """Write a transformer as safetensors: the parameters by Tracr's names, and all else as JSON in the metadata.

    It appears whole or not at all.
    """
    from safetensors.numpy import save as to_bytes

    from weightspace.files.atomic import write_atomically

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


def load_compiled(path: str | Path) -> CompiledTransformer:
    """Read what `save` has written. Nothing in the file is executed.

    Raises:
        RaspError: if the file is missing, damaged, or holds something else.
    """
    from weightspace.errors import NetworkError
    from weightspace.files.tensors import read_safetensors

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
            kinds = sorted({str(array.dtype) for array in params.values()} - {"float32"})
            if kinds:
                raise RaspError(
                    f"its parameters are {' and '.join(kinds)}, and its description is of a file in float32: give the "
                    "original, or write the copy without the description"
                )
            raise RaspError("it differs from its checksum: write it again")
        return loaded
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, RaspError):
            raise RaspError(f"{path}: {error}") from None
        what = f"it lacks {error}" if isinstance(error, KeyError) else "what it says is of another form"
        raise RaspError(f"{path} has a damaged description ({what}): write it again") from None


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


def load_bare(
    path: str | Path,
    *,
    vocab: Sequence[Any] | None = None,
    num_heads: int | None = None,
    causal: bool = False,
    identifier: str | None = None,
    bos: str | None = None,
    pad: str | None = None,
) -> BareTransformer:
    """A transformer by its weights alone, out of a file of any kind that we know; nothing in it is executed.

    Args:
        path: safetensors that `save` has written (the names of directions are forgotten, where the answer stands is
            kept), other safetensors, an npz, or any other checkpoint, with Tracr's parameters under their own names,
            which may be joined or as Haiku nests them; or TransformerLens' state dict of such a model. They may stand
            under `ID/`.
        vocab: the tokens without BOS and PAD, in any order; needed unless the file says them.
        num_heads: heads of each layer; unless given as the file says, or read off the weights.
        causal: whether a place sees only itself and what is before it, unless the file says.
        identifier: which of several transformers in one file.
        bos, pad: what the two are called, where that cannot be read off the weights.
    Raises:
        RaspError: if the file is missing, damaged, or holds no such transformer, in a sentence that names it and says
            what it is instead.
    """
    where = Path(path)
    if where.is_dir():
        raise RaspError(f"{path} is a folder: name the file in it that holds the weights")
    if not where.is_file():
        raise RaspError(f"{path} is no regular file: save it as one" if where.exists() else f"there is no file {path}")
    kinds = _kinds(where)
    try:
        if "npz" in kinds or where.suffix == ".npz":
            params = _read_npz(where, identifier)
        elif kinds and not {"safetensors", "index"} & set(kinds):
            params = _read_other(where, identifier)
        else:
            params, metadata = _read_safetensors(where, identifier)
            if METADATA_KEY in metadata:
                return _described(where, vocab, num_heads, causal)
    except UnreadableError as error:
        raise RaspError(str(error)) from None
    try:
        return bare_of(params, vocab, num_heads=num_heads, causal=causal, bos=bos, pad=pad)
    except RaspError as error:
        raise RaspError(f"{path}: {error}") from None


def _kinds(path: Path) -> tuple[Kind, ...]:
    try:
        return kinds_of(path)
    except UnreadableError as error:
        raise RaspError(str(error)) from None


def _read_safetensors(path: Path, identifier: str | None) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from weightspace.errors import NetworkError
    from weightspace.files.tensors import METADATA_KEY as OWN_KEY
    from weightspace.files.tensors import read_safetensors

    if identifier is not None:
        raise RaspError(f"{path} holds one transformer: leave out the identifier {identifier!r}")
    try:
        params, metadata = read_safetensors(path)
    except NetworkError as error:
        instead = _text_instead(path)
        raise RaspError(f"{path} {instead}" if instead else str(error)) from None
    if OWN_KEY in metadata and TOKENS not in params:
        raise RaspError(
            f"{path} was written by weightspace, but it is no transformer: `weightspace predict` asks a meta-model "
            "about networks, and `weightspace scan` looks for backdoors in them"
        )
    return params, metadata


def _text_instead(path: Path) -> str:
    """What a file of text is, as the end of a sentence; nothing if it is no text."""
    try:
        start = path.read_bytes()[:4096].decode()
    except (OSError, UnicodeDecodeError):
        return ""
    if not start.strip() or any(letter < " " and letter not in "\t\n\r" for letter in start):
        return ""
    if re.search(r"\b(Select|Map|Aggregate|SelectorWidth|SequenceMap|LinearSequenceMap)\(", start):
        return "is the text of a RASP program, no weights: `weightspace rasp compile` reads it"
    return "is a text, no weights: give the file that holds the transformer"


def _read_other(path: Path, identifier: str | None) -> dict[str, np.ndarray]:
    """The arrays of one transformer in a file that is neither npz nor safetensors."""
    params = None
    if "pickle" in kinds_of(path) and path.stat().st_size <= LARGEST_PICKLE:
        params = pickled_arrays(path.read_bytes())
    if params is None:
        params = read_parameters(path)
    return _one_of(path, params, identifier)


def _one_of(path: Path, params: Mapping[str, np.ndarray], identifier: str | None) -> dict[str, np.ndarray]:
    prefix = _prefix(path, list(params), identifier)
    return {name.removeprefix(prefix): array for name, array in params.items() if name.startswith(prefix)}


def _described(path: Path, vocab: Sequence[Any] | None, num_heads: int | None, causal: bool) -> BareTransformer:
    """What `save` has written, without its names. What is said of it again must be true."""
    bare = BareTransformer.of(load_compiled(path))
    if vocab is not None and check_vocab(tuple(vocab)) != bare.vocab:
        known = ", ".join(map(repr, bare.vocab[:20]))
        raise RaspError(f"{path} says that its vocabulary is {known}: give the same, or none")
    if num_heads not in (None, bare.num_heads):
        raise RaspError(
            f"{path} says that it has {counted(bare.num_heads, 'head')}, not {num_heads}: give the same, or none"
        )
    if causal and not bare.causal:
        raise RaspError(f"{path} says that each place sees all others: leave out that it is causal")
    return bare


def bare_of(
    params: Mapping[str, Any],
    vocab: Sequence[Any] | None,
    *,
    num_heads: int | None = None,
    causal: bool = False,
    bos: str | None = None,
    pad: str | None = None,
) -> BareTransformer:
    """A transformer out of parameters by Tracr's names, nested or not, or by TransformerLens'.

    Args:
        vocab, num_heads, causal, bos, pad: see `load_bare`.
    Raises:
        RaspError: if the tokens are not said, or these are no such parameters.
    """
    params = flattened(params)
    lens = from_transformer_lens(params)
    if lens is not None:
        params, found = lens
        num_heads = num_heads or found
    if vocab is None:
        rows = len(params[TOKENS]) - 2 if TOKENS in params and params[TOKENS].ndim == 2 else 0
        if rows > 0:
            raise RaspError(f"the weights do not say which tokens they are for: give a vocabulary of {rows} (--vocab)")
        vocab = (0,)  # what else is wrong is said below
    bare = BareTransformer.of_params(params, vocab, num_heads=num_heads, causal=causal, bos=bos, pad=pad)
    with np.errstate(all="ignore"):
        longest = bare.encode([(bare.vocab[0],) * bare.max_seq_len])
        if not np.isfinite(bare.forward(longest)).all():
            raise RaspError("its weights are so large that its forward pass overflows: nothing can be read from it")
    return bare


def _read_npz(path: Path, identifier: str | None) -> dict[str, np.ndarray]:
    """The arrays of one transformer in an npz, by Tracr's names.

    Raises:
        RaspError: if it is damaged, needs unpickling, or does not hold just one that can be meant.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST_FILE:
            raise RaspError(f"{path} holds {size:,} bytes when it is unpacked: at most {LARGEST_FILE:,} are read")
        objects = _nested(path)
        if objects is not None:
            return _one_of(path, objects, identifier)
        with np.load(path, allow_pickle=False) as archive:
            prefix = _prefix(path, archive.files, identifier)
            names = [name for name in archive.files if name.startswith(prefix)]
            return {name.removeprefix(prefix): archive[name] for name in names}
    except RaspError:
        raise
    except ValueError as error:
        if "Object arrays" in str(error):
            raise RaspError(
                f"{path} holds pickled objects, which are never read unless they are dictionaries of arrays: save "
                "plain arrays"
            ) from None
        raise RaspError(f"{path} is not a whole npz: {error}") from None
    except (OSError, zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise RaspError(f"{path} is not a whole npz: {error}") from None
    except (MemoryError, OverflowError):
        raise RaspError(
            f"{path} says that it holds more than fits into memory: it is damaged or not what it seems"
        ) from None


def _nested(path: Path) -> dict[str, np.ndarray] | None:
    """Haiku's dictionaries in an npz, as `np.savez(file, **params)` writes them; None if an array is anything else.

    numpy pickles a dictionary. The pickle is read as data, and nothing that it names is called.
    """
    found: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                raw = file.read(OBJECT_HEADER)
                match = re.match(rb"\x93NUMPY..(?:..|....)\{'descr': '\|O'[^}]*\} *\n", raw, re.DOTALL)
                if match is None or entry.file_size > LARGEST_PICKLE:
                    return None
                arrays = pickled_arrays(raw[match.end() :] + file.read())
            if arrays is None:
                return None
            name = entry.filename.removesuffix(".npy")
            found |= {f"{name}/{inner}": array for inner, array in arrays.items()}
    return found or None


def _prefix(path: Path, names: Sequence[str], identifier: str | None) -> str:
    """What stands before Tracr's names: "" or `ID/`."""
    if is_transformer_lens(names):
        return ""
    ends = f"/{TOKENS}"
    found = sorted(name.removesuffix(TOKENS) for name in names if name == TOKENS or name.endswith(ends))
    if not found:
        raise RaspError(f"{path} holds no {TOKENS!r}: {what_else(names)}")
    if identifier is not None and found == [""]:
        raise RaspError(f"{path} holds one transformer: leave out the identifier {identifier!r}")
    known = ", ".join(prefix.removesuffix("/") or "(no name)" for prefix in found[:10])
    known += f" and {len(found) - 10} more" if len(found) > 10 else ""
    if identifier is not None:
        if f"{identifier}/" not in found:
            raise RaspError(f"{path} holds no transformer {identifier!r}: there are {known}")
        return f"{identifier}/"
    if len(found) > 1:
        raise RaspError(f"{path} holds {len(found)} transformers: say which by its identifier; there are {known}")
    return found[0]


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
