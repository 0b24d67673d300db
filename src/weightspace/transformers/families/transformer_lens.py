"""TransformerLens's state dicts: an axis of its own for heads; sizes are read off the arrays."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from weightspace.errors import NetworkError
from weightspace.transformers.families.llama import key_heads
from weightspace.transformers.settings import Settings
from weightspace.transformers.shape import NormKind, Rotary, TransformerShape
from weightspace.transformers.weights import Part, Parts

_NORMS: dict[str, NormKind] = {"LN": "layer", "LNPre": "scale", "RMS": "rms", "none": "none"}
_NOT_READ = ("use_local_attn", "parallel_attn_mlp", "use_qk_norm", "attn_scores_soft_cap", "output_logits_soft_cap")
Names = Mapping[str, tuple[int, ...]]


def recognised(names: Mapping[str, object]) -> bool:
    """Whether arrays are named so."""
    return "embed.W_E" in names and "blocks.0.attn.W_Q" in names


def shape(settings: Settings, names: Names) -> TransformerShape:
    """The shape of the arrays, with what they do not say from settings by TransformerLens's names.

    `act_fn` is needed where there is an MLP; `normalization_type` where arrays have no gains; `eps` (1e-5), `n_layers`,
    `attention_dir` (causal), `use_attn_scale`, `attn_scale`, and of rotary positions `rotary_base`, `rotary_dim`,
    `rotary_adjacent_pairs` and `n_ctx`.
    """
    numbers = {int(parts[1]) for name in names if (parts := name.split("."))[0] == "blocks" and parts[1].isdigit()}
    heads, width, size = _axes(names, "blocks.0.attn.W_Q", 3)
    keys = names.get("blocks.0.attn._W_K", (heads,))[0]
    hidden = _axes(names, "blocks.0.mlp.W_in", 2)[1] if "blocks.0.mlp.W_in" in names else 0
    kind = settings.text("positional_embedding_type", "standard" if "pos_embed.W_pos" in names else "rotary")
    if kind not in ("standard", "rotary"):
        raise NetworkError(f"{settings.where} says positional_embedding_type {kind!r}: known are standard and rotary")
    for name in _NOT_READ:
        if settings.said.get(name) not in (None, False, -1, -1.0):
            raise NetworkError(f"{settings.where} says {name} {settings.said[name]!r}, which is not read")
    learned = kind == "standard"
    scale = settings.number("attn_scale", size**0.5) if settings.said.get("attn_scale") not in (-1, -1.0) else size**0.5
    direction = settings.text("attention_dir", "causal")
    if direction not in ("causal", "bidirectional"):
        raise NetworkError(f"{settings.where} says attention_dir {direction!r}: known are causal and bidirectional")
    return TransformerShape(
        family="transformer_lens",
        vocabulary=_axes(names, "embed.W_E", 2)[0],
        outputs=_axes(names, "unembed.W_U", 2)[1] if "unembed.W_U" in names else 0,
        positions=_axes(names, "pos_embed.W_pos", 2)[0] if learned else settings.integer("n_ctx"),
        width=width,
        layers=settings.integer("n_layers", max(numbers) + 1),
        heads=heads,
        key_heads=key_heads(heads, keys, settings.where),
        head_size=size,
        hidden=hidden,
        activation=settings.text("act_fn") if hidden else "relu",
        norm=_norm(settings, names),
        epsilon=settings.number("eps", 1e-5),
        scale=1 / scale if settings.flag("use_attn_scale", True) else 1.0,
        gated="blocks.0.mlp.W_gate" in names,
        causal=direction == "causal",
        rotary=None if learned else _rotary(settings, size),
        scale_by_layer=settings.flag("scale_attn_by_inverse_layer_idx", False),
    )


def _norm(settings: Settings, names: Names) -> NormKind:
    """Gains and shifts tell the norm; without them they may have been folded, or there was none."""
    if "blocks.0.ln1.w" in names:
        return "layer" if "blocks.0.ln1.b" in names else "rms"
    if "normalization_type" not in settings.said:
        raise NetworkError(
            f"{settings.where} has no ln1.w and does not say normalization_type: give it in config, LNPre where "
            f"LayerNorm "
            "was folded into the weights, or none"
        )
    said = settings.said["normalization_type"] or "none"
    if said not in _NORMS or said == "LN" or said == "RMS":
        raise NetworkError(
            f"{settings.where} has no ln1.w and says normalization_type {said!r}: expected LNPre or none"
        )
    return _NORMS[said]


def _rotary(settings: Settings, size: int) -> Rotary:
    turning = settings.integer("rotary_dim", size)
    if turning % 2 or turning > size:
        raise NetworkError(
            f"{settings.where} turns {turning} of a head's {size} numbers: rotary pairs need an even number"
        )
    settings.refuse("use_NTK_by_parts_rope", "this scaling of rotary positions is not read")
    return Rotary(settings.number("rotary_base", 10_000.0), turning, settings.flag("rotary_adjacent_pairs", False))


def _axes(names: Names, name: str, axes: int) -> tuple[int, ...]:
    found = names.get(name)
    if found is None or len(found) != axes:
        raise NetworkError(
            f"{name} has shape {found}: expected {axes} axes" if found else f"there is no array {name!r}"
        )
    return found


def ends(shape: TransformerShape, settings: Settings, names: Names) -> Parts:  # noqa: ARG001 (one call for all)
    """Where the embeddings and the last norm stand."""
    width = shape.width
    parts = {"embed": Part("embed.W_E", (shape.vocabulary, width))}
    if shape.rotary is None:
        parts["positions"] = Part("pos_embed.W_pos", (shape.positions, width))
    parts |= _norms(shape, "final", "ln_final")
    if shape.outputs:
        parts["unembed"] = Part("unembed.W_U", (width, shape.outputs))
        parts["unembed_shift"] = Part("unembed.b_U", (shape.outputs,), optional=True)
    return parts


def _norms(shape: TransformerShape, ours: str, theirs: str) -> dict[str, Part]:
    parts = {}
    if shape.norm in ("layer", "rms"):
        parts[f"{ours}_gain"] = Part(f"{theirs}.w", (shape.width,))
    if shape.norm == "layer":
        parts[f"{ours}_shift"] = Part(f"{theirs}.b", (shape.width,))
    return parts


def layer(shape: TransformerShape, number: int, names: Names) -> Parts:
    """Where the weights of a layer stand."""
    at, width, size, hidden = f"blocks.{number}", shape.width, shape.head_size, shape.hidden
    parts = _norms(shape, "norm1", f"{at}.ln1")
    for letter, heads in (("q", shape.heads), ("k", shape.key_heads), ("v", shape.key_heads)):
        mark = "_" if f"{at}.attn._W_{letter.upper()}" in names else ""
        parts[f"w_{letter}"] = Part(f"{at}.attn.{mark}W_{letter.upper()}", (heads, width, size), _beside)
        parts[f"b_{letter}"] = Part(f"{at}.attn.{mark}b_{letter.upper()}", (heads, size), optional=True)
    parts["w_o"] = Part(f"{at}.attn.W_O", (shape.heads, size, width))
    parts["b_o"] = Part(f"{at}.attn.b_O", (width,), optional=True)
    if not hidden:
        return parts
    parts |= _norms(shape, "norm2", f"{at}.ln2")
    parts["w_in"] = Part(f"{at}.mlp.W_in", (width, hidden))
    parts["w_out"] = Part(f"{at}.mlp.W_out", (hidden, width))
    parts["b_out"] = Part(f"{at}.mlp.b_out", (width,), optional=True)
    # TransformerLens adds b_in of a gated MLP behind the product, where no model has one
    parts["b_in"] = Part(f"{at}.mlp.b_in", (hidden,), _nothing if shape.gated else _same, optional=True)
    if shape.gated:
        parts["w_gate"] = Part(f"{at}.mlp.W_gate", (width, hidden))
    return parts


def _same(array: Tensor) -> Tensor:
    return array


def _nothing(array: Tensor) -> Tensor:
    if array.any():
        raise NetworkError("mlp.b_in of a gated MLP is not zero, which no model that is known has")
    return array


def _beside(array: Tensor) -> Tensor:
    """Heads side by side in memory, so that all of them are one product."""
    return array.permute(1, 0, 2).contiguous().permute(1, 0, 2)
