"""Tracr's parameters under their names, out of whatever holds them: nested dictionaries, an assembled model, a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weightspace.errors import RaspError, UnreadableError
from weightspace.files.constructors import CALLS, NumpyArray, build, passed_over
from weightspace.files.pickles import Call, PickleError, Reader

TOKENS, POSITIONS = "token_embed/embeddings", "pos_embed/embeddings"
DEEPEST = 16
"""Dictionaries inside each other that are looked through."""
_UNEMBEDDING = re.compile(r"unembed\b.*")


# -- dictionaries ----------------------------------------------------------------------------------------------------


def flattened(params: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """Arrays by name out of dictionaries in each other, whose keys are joined by "/"; Haiku's are two deep.

    Raises:
        RaspError: if something in them is no array of numbers, or two have one name.
    """
    found: dict[str, np.ndarray] = {}

    def walk(inside: Mapping[Any, Any], before: tuple[str, ...]) -> None:
        if len(before) > DEEPEST:
            raise RaspError(f"the parameters stand more than {DEEPEST} dictionaries deep: give arrays by Tracr's names")
        for key, value in inside.items():
            name = "/".join((*before, str(key)))
            if isinstance(value, Mapping):
                walk(value, (*before, str(key)))
            elif name in found:
                raise RaspError(f"two parameters are called {name!r}")
            else:
                found[name] = _array(name, value)

    walk(params, ())
    return found


def _array(name: str, value: Any) -> np.ndarray:
    """An array of whatever library: numpy's, JAX's, PyTorch's."""
    try:
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        raise RaspError(f"{name!r} is a {type(value).__name__}: expected an array of numbers") from None
    if array.dtype.kind in "OUSV":
        raise RaspError(f"{name!r} is a {type(value).__name__} of {array.dtype}: expected an array of numbers")
    return array


def without_unembedding(params: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Parameters without what leads from the stream to tokens, which is no part of what Tracr compiles; and notes."""
    beside = sorted(name for name in params if _UNEMBEDDING.fullmatch(name))
    kept = {name: array for name, array in params.items() if name not in beside}
    return kept, (f"{', '.join(beside)} was not read: the program ends in the stream.",) if beside else ()


# -- an assembled model ----------------------------------------------------------------------------------------------


class Assembled(NamedTuple):
    """What a model that Tracr has assembled says of itself; None where it says nothing."""

    params: dict[str, np.ndarray]
    num_heads: int | None
    causal: bool | None
    vocab: tuple[Any, ...] | None
    bos: str | None
    pad: str | None


def of_assembled(model: Any) -> Assembled:
    """Tracr's `AssembledTransformerModel` by its attributes, without Tracr.

    Versions differ: only `params` must be there. Heads and `causal` stand in `model_config`, the tokens and the names
    of BOS and PAD in `input_encoder`.

    Raises:
        RaspError: if it is no such model, or its parameters are no dictionaries of arrays.
    """
    name = type(model).__name__
    params = getattr(model, "params", None)
    if not isinstance(params, Mapping):
        raise RaspError(
            f"a {name} holds no transformer: give a path, arrays by Tracr's names (flat or as Haiku nests them), "
            "Tracr's assembled model, or a compiled transformer"
        )
    config, encoder = getattr(model, "model_config", None), getattr(model, "input_encoder", None)
    heads, causal = getattr(config, "num_heads", None), getattr(config, "causal", None)
    bos, pad = (getattr(encoder, which, None) for which in ("bos_token", "pad_token"))
    mapping = getattr(encoder, "encoding_map", None)
    vocab = None
    if isinstance(mapping, Mapping):
        vocab = tuple(token for token in mapping if token not in (bos, pad))
    return Assembled(
        flattened(params),
        heads if isinstance(heads, int) else None,
        causal if isinstance(causal, bool) else None,
        vocab,
        bos if isinstance(bos, str) else None,
        pad if isinstance(pad, str) else None,
    )


# -- other libraries -------------------------------------------------------------------------------------------------

_LENS = re.compile(r"blocks\.(\d+)\.(attn|mlp)\.(\w+)")
_LENS_PLACES = {
    ("attn", "W_Q"): "attn/query/w",
    ("attn", "W_K"): "attn/key/w",
    ("attn", "W_V"): "attn/value/w",
    ("attn", "W_O"): "attn/linear/w",
    ("attn", "b_Q"): "attn/query/b",
    ("attn", "b_K"): "attn/key/b",
    ("attn", "b_V"): "attn/value/b",
    ("attn", "b_O"): "attn/linear/b",
    ("mlp", "W_in"): "mlp/linear_1/w",
    ("mlp", "b_in"): "mlp/linear_1/b",
    ("mlp", "W_out"): "mlp/linear_2/w",
    ("mlp", "b_out"): "mlp/linear_2/b",
}
"""TransformerLens' names, and Tracr's for the same."""


def is_transformer_lens(names: Iterable[str]) -> bool:
    """Whether names are those of TransformerLens' state dict."""
    return {"embed.W_E", "pos_embed.W_pos", "blocks.0.attn.W_Q"} <= set(names)


def from_transformer_lens(params: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int] | None:
    """Tracr's parameters, and the number of heads, out of TransformerLens' state dict; None if it is none.

    Raises:
        RaspError: if it has layer norms, which nothing that is compiled has, or arrays of other shapes.
    """
    if not is_transformer_lens(params):
        return None
    norms = [name for name in params if re.search(r"\bln\d?(_\w+)?\.", name)]
    if norms:
        raise RaspError(
            f"it is a state dict of TransformerLens with layer norms ({norms[0]!r}), which no compiled program has; "
            "`weightspace scan` reads such networks"
        )
    found = {TOKENS: params["embed.W_E"], POSITIONS: params["pos_embed.W_pos"]}
    heads = 1
    for name, array in params.items():
        match = _LENS.fullmatch(name)
        place = _LENS_PLACES.get((match[2], match[3])) if match else None
        if match is None or place is None:  # masks, and what leads to tokens
            continue
        if match[3] in ("W_Q", "W_K", "W_V", "W_O") and array.ndim != 3:
            raise RaspError(
                f"{name!r} has shape {array.shape}: expected (heads, width, size) as TransformerLens has it"
            )
        if match[3] in ("W_Q", "W_K", "W_V"):  # (heads, width, size) -> (width, heads * size)
            heads = len(array)
            array = array.transpose(1, 0, 2).reshape(array.shape[1], -1)
        elif match[3] == "W_O":  # (heads, size, width) -> (heads * size, width)
            array = array.reshape(-1, array.shape[2])
        elif match[3] in ("b_Q", "b_K", "b_V"):
            array = array.reshape(-1)
        found[f"transformer/layer_{match[1]}/{place}"] = array
    return found, heads


_KNOWN = (
    (r"(transformer\.)?h\.0\.attn\.c_attn\.weight", "a GPT-2 of Hugging Face's"),
    (r"(model\.)?layers\.0\.self_attn\.q_proj\.weight", "a language model of Hugging Face's, as Llama is"),
    (r"(bert\.)?encoder\.layer\.0\.attention\.self\.query\.weight", "a BERT of Hugging Face's"),
    (r"blocks\.0\.attn\.W_Q", "a state dict of TransformerLens"),
    (r"(.*\.)?layer1\.0\.conv1\.weight", "a ResNet"),
    (r"(.*\.)?conv\w*\.\w*weight", "a convolutional network of PyTorch's"),
    (r".*\.weight", "a network of PyTorch's"),
)
"""Names of parameters that tell what a network is, the narrowest first."""


def what_else(names: Iterable[str]) -> str:
    """What parameters are that are not Tracr's, and which verb reads them, as the end of a sentence."""
    known = list(names)
    if TOKENS in known or POSITIONS in known or any(name.startswith("transformer/layer_") for name in known):
        return "these are not all of a transformer's parameters under Tracr's names"
    for pattern, what in _KNOWN:
        if any(re.fullmatch(pattern, name) for name in known):
            return f"it is {what}, not a compiled program; `weightspace scan` reads it"
    some = ", ".join(map(repr, known[:3])) or "nothing"
    return f"it is no transformer under Tracr's names, but {some}{' and more' if len(known) > 3 else ''}"


# -- files -----------------------------------------------------------------------------------------------------------


def read_parameters(path: Path) -> dict[str, np.ndarray]:
    """Every floating-point array of a checkpoint of any usual kind but safetensors, dictionaries in it joined by "/".

    Raises:
        RaspError: if it cannot be read, would run code, or is no checkpoint; a sentence that names the file.
    """
    from weightspace.files.checkpoints import outlines, read

    try:
        found: dict[str, np.ndarray] = {}
        for outline in outlines(path):
            arrays = read(outline, list(outline.floating))
            found |= {"/".join((*outline.part, name)): array for name, array in arrays.items()}
        return found
    except UnreadableError as error:
        raise RaspError(str(error)) from None


def pickled_arrays(raw: bytes) -> dict[str, np.ndarray] | None:
    """The arrays of a pickle of dictionaries, such as Haiku's, by names joined by "/"; nothing in it is called.

    Returns:
        None if it is anything else, or would call what only makes arrays does not.
    """
    reader = Reader(_CALLS, passed_over, lambda _: None, build)
    try:
        value, end = reader.read(raw)
    except (PickleError, EOFError):
        return None
    if isinstance(value, NumpyArray) and len(value.opaque) == 1:  # numpy's array of one object
        (value,) = value.opaque
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if reader.strange or reader.passed or end != len(raw) or not isinstance(value, dict) or not value:
        return None
    found: dict[str, np.ndarray] = {}
    waiting: list[tuple[tuple[str, ...], dict[Any, Any]]] = [((), value)]
    while waiting:
        before, inside = waiting.pop()
        for key, one in inside.items():
            part = (*before, str(key))
            if isinstance(one, dict) and len(part) < DEEPEST:
                waiting.append((part, one))
            elif isinstance(one, NumpyArray) and one.raw is not None and one.dtype in _WIDTHS:
                code = (">" if one.swapped else "<") + _WIDTHS[one.dtype]
                order = "F" if one.columns else "C"
                found["/".join(part)] = np.frombuffer(one.raw, code).reshape(one.shape, order=order).astype(np.float32)
            else:
                return None
    return found


_WIDTHS = {"F64": "f8", "F32": "f4", "F16": "f2"}


def _of_jax(arguments: tuple[Any, ...]) -> NumpyArray:
    """jax._src.array._reconstruct_array: numpy's own way to make the array, its arguments, its state, and a type."""
    _, _, state, _ = arguments
    made = NumpyArray()
    build(made, state)
    return made


_CALLS: dict[str, Call] = {**CALLS, "jax._src.array._reconstruct_array": _of_jax}
