"""A compiled transformer in TransformerLens, with its hooks on weights one knows: as a model, or as a file."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weightspace.decompiler.examples import readout_of
from weightspace.errors import RaspError
from weightspace.files.atomic import write_atomically
from weightspace.files.extras import install_command
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.transformer import CompiledTransformer


def model(transformer: CompiledTransformer) -> Any:
    """A compiled transformer as a model of TransformerLens, see `ws.to_transformer_lens`.

    Raises:
        RaspError: if TransformerLens is not installed.
    """
    try:
        import transformer_lens  # type: ignore[import-not-found]
    except ImportError as error:
        raise RaspError(f"this needs TransformerLens: {install_command('lens')}") from error
    said, given = configuration(transformer), weights(transformer)
    if not hasattr(transformer_lens, "TransformerBridgeConfig"):
        return _hooked_transformer(transformer_lens, said, given).eval()
    from transformer_lens.conversion_utils import convert_tl_checkpoint  # type: ignore[import-not-found]

    config = transformer_lens.TransformerBridgeConfig(**said)
    bridge = transformer_lens.TransformerBridge.boot_native(config)
    bridge.load_state_dict(convert_tl_checkpoint(given, config), strict=True)
    return bridge.eval()


def _hooked_transformer(transformer_lens: Any, said: dict[str, Any], given: dict[str, torch.Tensor]) -> Any:
    """The model before version 4."""
    config = transformer_lens.HookedTransformerConfig(**said, attn_scale=math.sqrt(said["d_head"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # version 3 announces that the class goes
        hooked = transformer_lens.HookedTransformer(config)
    kept = hooked.load_state_dict(given, strict=False)
    # what is left over are buffers that the configuration has set: the causal mask and what is put in its place
    assert not kept.unexpected_keys and not {name for name, _ in hooked.named_parameters()} - given.keys()
    return hooked


def configuration(transformer: CompiledTransformer) -> dict[str, Any]:
    """What TransformerLens wants to know of the transformer, by the names of its configuration."""
    c, layout = transformer.configuration, transformer.layout
    return {
        "n_layers": c.num_layers,
        "n_heads": c.num_heads,
        "d_head": c.key_size,
        "d_mlp": c.mlp_hidden_size,
        "d_model": layout.width,
        "n_ctx": layout.positions,
        "d_vocab": layout.tokens,
        "d_vocab_out": len(answer_directions(transformer)),
        "act_fn": "relu",
        "attn_only": False,
        "normalization_type": None,
        "positional_embedding_type": "standard",
        "attention_dir": "causal" if c.causal else "bidirectional",
        "use_attn_scale": True,
        "init_weights": False,
        "device": "cpu",
    }


def save_for_transformer_lens(transformer: CompiledTransformer, path: str | Path) -> None:
    """Write the weights by TransformerLens's names, for which it need not be installed.

    Args:
        path: a safetensors file. Its metadata are JSON: `config` (see `configuration`), `tokens` (what each row of the
            token embedding stands for) and `answers`: its `encoding`, the `values` of the logits, which are null where
            the first logit is the answer as a number, and whether the last logit is 1 where there is none (`none`).
    Raises:
        RaspError: if the name ends otherwise.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise RaspError(f"{path.name}: weights are written as safetensors: choose a name that ends in .safetensors")
    output = transformer.output
    tensors = {name: tensor.contiguous() for name, tensor in weights(transformer).items()}
    facts = {
        "config": configuration(transformer),
        "tokens": list(transformer.token_values),
        "answers": {
            "encoding": output.encoding,
            "values": None if output.values is None else list(output.values),
            "none": output.none is not None,
        },
    }
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    write_atomically(path, save(tensors, metadata))


def answer_directions(transformer: CompiledTransformer) -> list[int]:
    """The directions of the residual stream from which the answer is read."""
    output = transformer.output
    directions = list(range(output.start, output.start + len(output.values or (None,))))
    return directions if output.none is None else [*directions, output.none]


def weights(transformer: CompiledTransformer | BareTransformer) -> dict[str, torch.Tensor]:
    """Every parameter by TransformerLens's name, with an axis of its own for the heads.

    The logits are what stands along the directions of the answer, and last that which says None, if there is one.

    Raises:
        RaspError: if it is not known where the answer stands.
    """
    bare = transformer if isinstance(transformer, BareTransformer) else BareTransformer.of(transformer)
    width, heads, size = bare.width, bare.num_heads, bare.key_size
    params = {name: torch.from_numpy(value.copy()) for name, value in bare.params.items()}
    readout = readout_of(bare)
    columns = readout.directions if readout.none is None else np.column_stack([readout.directions, readout.none])
    given = {
        "embed.W_E": params["token_embed/embeddings"],
        "pos_embed.W_pos": params["pos_embed/embeddings"],
        "unembed.W_U": torch.from_numpy(columns.astype(np.float32)),
        "unembed.b_U": torch.zeros(columns.shape[1]),
    }
    for layer in range(bare.num_layers):
        ours, theirs = f"transformer/layer_{layer}", f"blocks.{layer}"
        for which, letter in (("query", "Q"), ("key", "K"), ("value", "V")):
            side_by_side = params[f"{ours}/attn/{which}/w"]  # (width, heads * key size)
            given[f"{theirs}.attn.W_{letter}"] = side_by_side.reshape(width, heads, size).transpose(0, 1)
            given[f"{theirs}.attn.b_{letter}"] = params[f"{ours}/attn/{which}/b"].reshape(heads, size)
        given[f"{theirs}.attn.W_O"] = params[f"{ours}/attn/linear/w"].reshape(heads, size, width)
        given[f"{theirs}.attn.b_O"] = params[f"{ours}/attn/linear/b"]
        for which, name in (("linear_1", "in"), ("linear_2", "out")):
            given[f"{theirs}.mlp.W_{name}"] = params[f"{ours}/mlp/{which}/w"]
            given[f"{theirs}.mlp.b_{name}"] = params[f"{ours}/mlp/{which}/b"]
    return given
