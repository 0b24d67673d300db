"""A compiled transformer as TransformerLens's `HookedTransformer`, with its hooks on weights one knows."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch

from weightspace.errors import RaspError
from weightspace.rasp.compiler.transformer import CompiledTransformer


def to_transformer_lens(transformer: CompiledTransformer) -> Any:
    """The same transformer in TransformerLens.

    Its tokens are rows of the token embedding, and each input begins with BOS; its logits are the residual stream along
    the directions that hold the answer, so that the unembedding's columns are unit vectors.

    Args:
        transformer: what `compile_program` gives.
    Returns:
        a `HookedTransformer` on the CPU, in evaluation mode.
    Raises:
        RaspError: if TransformerLens before version 4 is not installed.
    """
    try:
        from transformer_lens import HookedTransformer, HookedTransformerConfig  # type: ignore[import-not-found]
    except ImportError as error:
        raise RaspError("this needs TransformerLens before version 4: pip install 'transformer-lens<4'") from error
    c, layout = transformer.configuration, transformer.layout
    config = HookedTransformerConfig(
        n_layers=c.num_layers,
        n_heads=c.num_heads,
        d_head=c.key_size,
        d_mlp=c.mlp_hidden_size,
        d_model=layout.width,
        n_ctx=layout.positions,
        d_vocab=layout.tokens,
        d_vocab_out=len(answer_directions(transformer)),
        act_fn="relu",
        attn_only=False,
        normalization_type=None,
        positional_embedding_type="standard",
        attention_dir="causal" if c.causal else "bidirectional",
        use_attn_scale=True,
        attn_scale=math.sqrt(c.key_size),
        init_weights=False,
        device="cpu",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # version 3 announces that the class goes
        model = HookedTransformer(config)
    given = weights(transformer)
    kept = model.load_state_dict(given, strict=False)
    # what is left over are buffers that the configuration has set: the causal mask and what is put in its place
    assert not kept.unexpected_keys and not {name for name, _ in model.named_parameters()} - given.keys()
    return model.eval()


def answer_directions(transformer: CompiledTransformer) -> list[int]:
    """The directions of the residual stream from which the answer is read."""
    output = transformer.output
    directions = list(range(output.start, output.start + len(output.values or (None,))))
    return directions if output.none is None else [*directions, output.none]


def weights(transformer: CompiledTransformer) -> dict[str, torch.Tensor]:
    """Every parameter by TransformerLens's name, with an axis of its own for the heads."""
    c, width = transformer.configuration, transformer.layout.width
    params = {name: torch.from_numpy(value.copy()) for name, value in transformer.params.items()}
    directions = answer_directions(transformer)
    given = {
        "embed.W_E": params["token_embed/embeddings"],
        "pos_embed.W_pos": params["pos_embed/embeddings"],
        "unembed.W_U": torch.eye(width)[:, directions],
        "unembed.b_U": torch.zeros(len(directions)),
    }
    for layer in range(c.num_layers):
        ours, theirs = f"transformer/layer_{layer}", f"blocks.{layer}"
        for which, letter in (("query", "Q"), ("key", "K"), ("value", "V")):
            side_by_side = params[f"{ours}/attn/{which}/w"]  # (width, heads * key size)
            given[f"{theirs}.attn.W_{letter}"] = side_by_side.reshape(width, c.num_heads, c.key_size).transpose(0, 1)
            given[f"{theirs}.attn.b_{letter}"] = params[f"{ours}/attn/{which}/b"].reshape(c.num_heads, c.key_size)
        given[f"{theirs}.attn.W_O"] = params[f"{ours}/attn/linear/w"].reshape(c.num_heads, c.key_size, width)
        given[f"{theirs}.attn.b_O"] = params[f"{ours}/attn/linear/b"]
        for which, name in (("linear_1", "in"), ("linear_2", "out")):
            given[f"{theirs}.mlp.W_{name}"] = params[f"{ours}/mlp/{which}/w"]
            given[f"{theirs}.mlp.b_{name}"] = params[f"{ours}/mlp/{which}/b"]
    return given
