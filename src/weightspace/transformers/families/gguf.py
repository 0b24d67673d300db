"""Llama and Qwen2 as llama.cpp writes them: settings in the header, and Llama's query and key rows in another order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from weightspace.errors import NetworkError
from weightspace.transformers.families.llama import key_heads
from weightspace.transformers.settings import Settings
from weightspace.transformers.shape import Rotary, TransformerShape
from weightspace.transformers.weights import (
    Part,
    Parts,
    heads_of_bias,
    heads_of_linear_output,
    heads_of_rows,
    turned,
)

FAMILIES = ("llama", "qwen2")
Names = Mapping[str, tuple[int, ...]]


def recognised(names: Mapping[str, object]) -> bool:
    """Whether arrays are named so."""
    return "token_embd.weight" in names and "blk.0.attn_q.weight" in names


def shape(settings: Settings, names: Names) -> TransformerShape:
    """The shape that the header says."""
    family = settings.text("general.architecture")
    if family not in FAMILIES:
        raise NetworkError(
            f"{settings.where} holds a transformer of the architecture {family!r}: of GGUF files "
            f"{' and '.join(FAMILIES)} "
            "are known"
        )
    width, heads = settings.integer(f"{family}.embedding_length"), settings.integer(f"{family}.attention.head_count")
    vocabulary = names["token_embd.weight"][0]
    tokens = settings.said.get("tokenizer.ggml.tokens")
    said = settings.integer(f"{family}.vocab_size", len(tokens) if isinstance(tokens, list | tuple) else vocabulary)
    if said != vocabulary:
        raise NetworkError(f"{settings.where} says {said:,} tokens, and its token_embd.weight has {vocabulary:,} rows")
    size = settings.integer(f"{family}.attention.key_length", max(1, width // heads))
    return TransformerShape(
        family=family,
        vocabulary=vocabulary,
        outputs=vocabulary,
        positions=settings.integer(f"{family}.context_length"),
        width=width,
        layers=settings.integer(f"{family}.block_count"),
        heads=heads,
        key_heads=key_heads(heads, settings.integer(f"{family}.attention.head_count_kv", heads), settings.where),
        head_size=size,
        hidden=settings.integer(f"{family}.feed_forward_length"),
        activation="silu",
        norm="rms",
        epsilon=settings.number(f"{family}.attention.layer_norm_rms_epsilon"),
        scale=size**-0.5,
        gated=True,
        rotary=_rotary(settings, family, size, names),
    )


def _rotary(settings: Settings, family: str, size: int, names: Names) -> Rotary:
    turning = settings.integer(f"{family}.rope.dimension_count", size)
    if turning % 2 or turning > size:
        raise NetworkError(
            f"rotary sizes disagree: {settings.where} turns {turning} of a head's {size} numbers, which have to be "
            f"pairs "
            "within the head"
        )
    if names.get("rope_freqs.weight", (turning // 2,)) != (turning // 2,):
        raise NetworkError(
            f"rotary sizes disagree: rope_freqs.weight has shape {names['rope_freqs.weight']}, and {settings.where} "
            f"turns "
            f"{turning // 2} pairs"
        )
    scaling = settings.text(f"{family}.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise NetworkError(f"{settings.where} says rope.scaling.type {scaling!r}: known are none and linear")
    factor = settings.number(f"{family}.rope.scaling.factor", 1.0) if scaling == "linear" else 1.0
    return Rotary(settings.number(f"{family}.rope.freq_base", 10_000.0), turning, linear=factor)


def ends(shape: TransformerShape, settings: Settings, names: Names) -> Parts:  # noqa: ARG001 (one call for all)
    """Where the embeddings and the last norm stand; without an array of their own, the logits' weights are tied."""
    size, pairs = (shape.vocabulary, shape.width), (shape.rotary.size // 2 if shape.rotary else 0)
    return {
        "embed": Part("token_embd.weight", size),
        "final_gain": Part("output_norm.weight", (shape.width,)),
        "unembed": Part("output.weight" if "output.weight" in names else "token_embd.weight", size, turned),
        "rotary_factors": Part("rope_freqs.weight", (pairs,), optional=True),
    }


def layer(shape: TransformerShape, number: int, names: Names) -> Parts:  # noqa: ARG001 (one call for all)
    """Where the weights of a layer stand."""
    at, width, size, hidden = f"blk.{number}", shape.width, shape.head_size, shape.hidden
    parts = {
        "norm1_gain": Part(f"{at}.attn_norm.weight", (width,)),
        "norm2_gain": Part(f"{at}.ffn_norm.weight", (width,)),
        "w_o": Part(f"{at}.attn_output.weight", (width, shape.heads * size), heads_of_linear_output(shape.heads)),
        "w_gate": Part(f"{at}.ffn_gate.weight", (hidden, width), turned),
        "w_in": Part(f"{at}.ffn_up.weight", (hidden, width), turned),
        "w_out": Part(f"{at}.ffn_down.weight", (width, hidden), turned),
    }
    for letter, heads in (("q", shape.heads), ("k", shape.key_heads), ("v", shape.key_heads)):
        weight, bias = heads_of_rows(heads), heads_of_bias(heads)
        if shape.family == "llama" and letter in "qk":
            weight, bias = _halves(weight, heads), _halves(bias, heads)
        parts[f"w_{letter}"] = Part(f"{at}.attn_{letter}.weight", (heads * size, width), weight)
        parts[f"b_{letter}"] = Part(f"{at}.attn_{letter}.bias", (heads * size,), bias, optional=True)
    return parts


def _halves(made: Callable[[Tensor], Tensor], heads: int) -> Callable[[Tensor], Tensor]:
    """Rows back from llama.cpp's order, in which rotary pairs are neighbours, to Hugging Face's, where halves pair."""

    def undone(array: Tensor) -> Tensor:
        pairs = array.unflatten(0, (heads, -1, 2))  # (heads, size / 2, 2, ...)
        return made(pairs.transpose(1, 2).reshape(array.shape))

    return undone
