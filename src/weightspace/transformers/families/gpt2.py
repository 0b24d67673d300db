"""GPT-2 in Hugging Face's form: learned positions, LayerNorm, one fused projection for queries, keys and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from weightspace.errors import NetworkError
from weightspace.transformers.settings import Settings
from weightspace.transformers.shape import TransformerShape
from weightspace.transformers.weights import Part, Parts, heads_of_output, turned


def prefix(names: Mapping[str, object]) -> str:
    """What stands before `wte.weight`: `transformer.` with a head for logits, nothing without one."""
    return "transformer." if "transformer.wte.weight" in names else ""


def recognised(names: Mapping[str, object]) -> bool:
    """Whether arrays are named so."""
    return f"{prefix(names)}wte.weight" in names and f"{prefix(names)}h.0.attn.c_attn.weight" in names


def shape(settings: Settings, names: Mapping[str, tuple[int, ...]]) -> TransformerShape:  # noqa: ARG001 (one call for all)
    """The shape that config.json says."""
    settings.refuse("add_cross_attention", "cross-attention is not read")
    width, heads = settings.integer("n_embd"), settings.integer("n_head")
    if width % heads:
        raise NetworkError(f"{settings.where} says n_embd {width} and n_head {heads}: heads share the width evenly")
    vocabulary = settings.integer("vocab_size")
    return TransformerShape(
        family="gpt2",
        vocabulary=vocabulary,
        outputs=vocabulary,
        positions=settings.integer("n_positions"),
        width=width,
        layers=settings.integer("n_layer"),
        heads=heads,
        key_heads=heads,
        head_size=width // heads,
        hidden=settings.integer("n_inner", 4 * width),
        activation=settings.text("activation_function", "gelu_new"),
        norm="layer",
        epsilon=settings.number("layer_norm_epsilon", 1e-5),
        scale=(width // heads) ** -0.5 if settings.flag("scale_attn_weights", True) else 1.0,
        scale_by_layer=settings.flag("scale_attn_by_inverse_layer_idx", False),
    )


def ends(shape: TransformerShape, settings: Settings, names: Mapping[str, tuple[int, ...]]) -> Parts:
    """Where the embeddings and the last norm stand."""
    begin, width, vocabulary = prefix(names), shape.width, shape.vocabulary
    tied = settings.flag("tie_word_embeddings", True)
    return {
        "embed": Part(f"{begin}wte.weight", (vocabulary, width)),
        "positions": Part(f"{begin}wpe.weight", (shape.positions, width)),
        "final_gain": Part(f"{begin}ln_f.weight", (width,)),
        "final_shift": Part(f"{begin}ln_f.bias", (width,)),
        "unembed": Part(f"{begin}wte.weight" if tied else "lm_head.weight", (vocabulary, width), turned),
    }


def layer(shape: TransformerShape, number: int, names: Mapping[str, tuple[int, ...]]) -> Parts:
    """Where the weights of a layer stand."""
    at = f"{prefix(names)}h.{number}"
    width, heads, hidden = shape.width, shape.heads, shape.hidden
    parts = {
        "w_o": Part(f"{at}.attn.c_proj.weight", (width, width), heads_of_output(heads)),
        "b_o": Part(f"{at}.attn.c_proj.bias", (width,)),
        "w_in": Part(f"{at}.mlp.c_fc.weight", (width, hidden)),
        "b_in": Part(f"{at}.mlp.c_fc.bias", (hidden,)),
        "w_out": Part(f"{at}.mlp.c_proj.weight", (hidden, width)),
        "b_out": Part(f"{at}.mlp.c_proj.bias", (width,)),
    }
    for ours, theirs in (("norm1", "ln_1"), ("norm2", "ln_2")):
        parts[f"{ours}_gain"] = Part(f"{at}.{theirs}.weight", (width,))
        parts[f"{ours}_shift"] = Part(f"{at}.{theirs}.bias", (width,))
    for place, letter in enumerate("qkv"):
        parts[f"w_{letter}"] = Part(f"{at}.attn.c_attn.weight", (width, 3 * width), _third(place, heads))
        parts[f"b_{letter}"] = Part(f"{at}.attn.c_attn.bias", (3 * width,), _third(place, heads))
    return parts


def _third(place: int, heads: int) -> Callable[[Tensor], Tensor]:
    """Queries, keys or values of the fused projection or of its bias, by head."""

    def made(array: Tensor) -> Tensor:
        each = array.unflatten(-1, (3, heads, -1)).select(-3, place)  # (..., heads, size)
        return each.movedim(-2, 0)

    return made
