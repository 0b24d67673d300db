"""BERT and MiniLM in Hugging Face's form: every place sees all, and the stream is normalised after each half-layer."""

from __future__ import annotations

from collections.abc import Mapping

from weightspace.errors import NetworkError
from weightspace.transformers.settings import Settings
from weightspace.transformers.shape import TransformerShape
from weightspace.transformers.weights import (
    Part,
    Parts,
    heads_of_bias,
    heads_of_linear_output,
    heads_of_rows,
    turned,
)


def prefix(names: Mapping[str, object]) -> str:
    """What stands before `embeddings.word_embeddings.weight`."""
    return "bert." if "bert.embeddings.word_embeddings.weight" in names else ""


def recognised(names: Mapping[str, object]) -> bool:
    """Whether arrays are named so."""
    begin = prefix(names)
    first = f"{begin}encoder.layer.0.attention.self.query.weight"
    return f"{begin}embeddings.word_embeddings.weight" in names and first in names


def shape(settings: Settings, names: Mapping[str, tuple[int, ...]]) -> TransformerShape:  # noqa: ARG001 (one call for all)
    """The shape that config.json says."""
    settings.refuse("is_decoder", "BERT as a decoder is not read")
    kind = settings.text("position_embedding_type", "absolute")
    if kind != "absolute":
        raise NetworkError(f"{settings.where} says position_embedding_type {kind!r}: only absolute is read")
    width, heads = settings.integer("hidden_size"), settings.integer("num_attention_heads")
    if width % heads:
        raise NetworkError(
            f"{settings.where} says hidden_size {width} and num_attention_heads {heads}: heads share the width evenly"
        )
    return TransformerShape(
        family="bert",
        vocabulary=settings.integer("vocab_size"),
        outputs=0,
        positions=settings.integer("max_position_embeddings"),
        width=width,
        layers=settings.integer("num_hidden_layers"),
        heads=heads,
        key_heads=heads,
        head_size=width // heads,
        hidden=settings.integer("intermediate_size"),
        activation=settings.text("hidden_act", "gelu"),
        norm="layer",
        epsilon=settings.number("layer_norm_eps", 1e-12),
        scale=(width // heads) ** -0.5,
        norm_first=False,
        causal=False,
    )


def ends(shape: TransformerShape, settings: Settings, names: Mapping[str, tuple[int, ...]]) -> Parts:
    """Where the embeddings stand; the head of a masked language model is not read."""
    at, width = f"{prefix(names)}embeddings", shape.width
    types = settings.integer("type_vocab_size", 2)
    return {
        "embed": Part(f"{at}.word_embeddings.weight", (shape.vocabulary, width)),
        "positions": Part(f"{at}.position_embeddings.weight", (shape.positions, width)),
        "types": Part(f"{at}.token_type_embeddings.weight", (types, width), lambda array: array[0]),
        "embed_gain": Part(f"{at}.LayerNorm.weight", (width,)),
        "embed_shift": Part(f"{at}.LayerNorm.bias", (width,)),
    }


def layer(shape: TransformerShape, number: int, names: Mapping[str, tuple[int, ...]]) -> Parts:
    """Where the weights of a layer stand."""
    at, width, heads, hidden = f"{prefix(names)}encoder.layer.{number}", shape.width, shape.heads, shape.hidden
    parts = {
        "w_o": Part(f"{at}.attention.output.dense.weight", (width, width), heads_of_linear_output(heads)),
        "b_o": Part(f"{at}.attention.output.dense.bias", (width,)),
        "norm1_gain": Part(f"{at}.attention.output.LayerNorm.weight", (width,)),
        "norm1_shift": Part(f"{at}.attention.output.LayerNorm.bias", (width,)),
        "w_in": Part(f"{at}.intermediate.dense.weight", (hidden, width), turned),
        "b_in": Part(f"{at}.intermediate.dense.bias", (hidden,)),
        "w_out": Part(f"{at}.output.dense.weight", (width, hidden), turned),
        "b_out": Part(f"{at}.output.dense.bias", (width,)),
        "norm2_gain": Part(f"{at}.output.LayerNorm.weight", (width,)),
        "norm2_shift": Part(f"{at}.output.LayerNorm.bias", (width,)),
    }
    for letter, name in (("q", "query"), ("k", "key"), ("v", "value")):
        parts[f"w_{letter}"] = Part(f"{at}.attention.self.{name}.weight", (width, width), heads_of_rows(heads))
        parts[f"b_{letter}"] = Part(f"{at}.attention.self.{name}.bias", (width,), heads_of_bias(heads))
    return parts
