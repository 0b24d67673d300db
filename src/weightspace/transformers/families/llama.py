"""Llama and its kin (Mistral, Qwen2) in Hugging Face's form: RMSNorm, rotary positions, grouped queries, gated MLP."""

from __future__ import annotations

from collections.abc import Mapping

from weightspace.errors import NetworkError
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

FAMILIES = ("llama", "mistral", "qwen2")


def prefix(names: Mapping[str, object]) -> str:
    """What stands before `embed_tokens.weight`."""
    return "model." if "model.embed_tokens.weight" in names else ""


def recognised(names: Mapping[str, object]) -> bool:
    """Whether arrays are named so."""
    begin = prefix(names)
    return f"{begin}embed_tokens.weight" in names and f"{begin}layers.0.self_attn.q_proj.weight" in names


def shape(settings: Settings, names: Mapping[str, tuple[int, ...]]) -> TransformerShape:
    """The shape that config.json says."""
    family = settings.text("model_type", "llama")
    width, heads = settings.integer("hidden_size"), settings.integer("num_attention_heads")
    positions = settings.integer("max_position_embeddings", 2048)
    _check_window(settings, family, positions)
    vocabulary = settings.integer("vocab_size")
    size = settings.integer("head_dim", max(1, width // heads))
    return TransformerShape(
        family=family,
        vocabulary=vocabulary,
        outputs=vocabulary if _has_logits(settings, names) else 0,
        positions=positions,
        width=width,
        layers=settings.integer("num_hidden_layers"),
        heads=heads,
        key_heads=key_heads(heads, settings.integer("num_key_value_heads", heads), settings.where),
        head_size=size,
        hidden=settings.integer("intermediate_size"),
        activation=settings.text("hidden_act", "silu"),
        norm="rms",
        epsilon=settings.number("rms_norm_eps", 1e-6),
        scale=size**-0.5,
        gated=True,
        rotary=_rotary(settings, size, names),
    )


def _has_logits(settings: Settings, names: Mapping[str, object]) -> bool:
    """Whether there is a head for logits, or has to be one; a bare model is saved without."""
    said = settings.said.get("architectures")
    wanted = isinstance(said, list) and any(str(name).endswith("ForCausalLM") for name in said)
    return wanted or settings.flag("tie_word_embeddings", False) or "lm_head.weight" in names


def key_heads(heads: int, key_heads: int, where: str) -> int:
    """Key-value heads, which have to share the query heads evenly."""
    if heads % key_heads:
        raise NetworkError(f"{where} says {heads} query heads and {key_heads} key-value heads: groups are of one size")
    return key_heads


def _check_window(settings: Settings, family: str, positions: int) -> None:
    """A window that an input can be longer than would change the pattern, and is not done here."""
    window = settings.integer("sliding_window", positions)
    if window < positions and settings.flag("use_sliding_window", family == "mistral"):
        raise NetworkError(
            f"{settings.where} says sliding_window {window} of {positions} positions: sliding windows are not read; "
            f"give "
            f"config with max_position_embeddings {window}, within which the window changes nothing"
        )


def _rotary(settings: Settings, size: int, names: Mapping[str, tuple[int, ...]]) -> Rotary:
    """Rotary positions as settings of transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters) say."""
    said = settings.inner("rope_parameters") if "rope_parameters" in settings else settings.inner("rope_scaling")
    base = said.number("rope_theta", settings.number("rope_theta", 10_000.0))
    share = settings.number("partial_rotary_factor", said.number("partial_rotary_factor", 1.0))
    turning = int(size * share)
    if turning % 2 or not 0 < turning <= size:
        raise NetworkError(
            f"{settings.where} turns {turning} of a head's {size} numbers: rotary pairs need an even number"
        )
    at = f"{prefix(names)}layers.0.self_attn.rotary_emb.inv_freq"
    if at in names and names[at] != (turning // 2,):
        raise NetworkError(
            f"rotary sizes disagree: {at} has {names[at][0]} frequencies, and {settings.where} makes {turning // 2} "
            f"pairs "
            f"of a head of {size}"
        )
    kind = said.text("rope_type", said.text("type", "default"))
    if kind == "linear":
        return Rotary(base, turning, linear=said.number("factor"))
    if kind == "llama3":
        named = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        factor, low, high, original = (said.number(name) for name in named)
        if not low < high:
            raise NetworkError(
                f"{said.where} says low_freq_factor {low} and high_freq_factor {high}: the low one is less"
            )
        return Rotary(base, turning, llama3=(factor, low, high, original))
    if kind != "default":
        raise NetworkError(f"{said.where} says rope_type {kind!r}: known are default, linear and llama3")
    return Rotary(base, turning)


def ends(shape: TransformerShape, settings: Settings, names: Mapping[str, tuple[int, ...]]) -> Parts:
    """Where the embeddings and the last norm stand."""
    begin, size = prefix(names), (shape.vocabulary, shape.width)
    tied = settings.flag("tie_word_embeddings", False)
    parts = {
        "embed": Part(f"{begin}embed_tokens.weight", size),
        "final_gain": Part(f"{begin}norm.weight", (shape.width,)),
    }
    if shape.outputs:
        parts["unembed"] = Part(f"{begin}embed_tokens.weight" if tied else "lm_head.weight", size, turned)
    return parts


def layer(shape: TransformerShape, number: int, names: Mapping[str, tuple[int, ...]]) -> Parts:
    """Where the weights of a layer stand."""
    at, width, size = f"{prefix(names)}layers.{number}", shape.width, shape.head_size
    parts = {
        "norm1_gain": Part(f"{at}.input_layernorm.weight", (width,)),
        "norm2_gain": Part(f"{at}.post_attention_layernorm.weight", (width,)),
        "w_o": Part(f"{at}.self_attn.o_proj.weight", (width, shape.heads * size), heads_of_linear_output(shape.heads)),
        "b_o": Part(f"{at}.self_attn.o_proj.bias", (width,), optional=True),
    }
    for letter, heads in (("q", shape.heads), ("k", shape.key_heads), ("v", shape.key_heads)):
        name = f"{at}.self_attn.{letter}_proj"
        parts[f"w_{letter}"] = Part(f"{name}.weight", (heads * size, width), heads_of_rows(heads))
        parts[f"b_{letter}"] = Part(f"{name}.bias", (heads * size,), heads_of_bias(heads), optional=True)
    for ours, theirs, wide in (
        ("gate", "gate", (shape.hidden, width)),
        ("in", "up", (shape.hidden, width)),
        ("out", "down", (width, shape.hidden)),
    ):
        parts[f"w_{ours}"] = Part(f"{at}.mlp.{theirs}_proj.weight", wide, turned)
        parts[f"b_{ours}"] = Part(f"{at}.mlp.{theirs}_proj.bias", wide[:1], optional=True)
    return parts
