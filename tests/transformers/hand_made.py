"""Transformers made by hand or at random from arrays, without anybody else's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 3, "n_positions": 10, "vocab_size": 7}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 12,
    "vocab_size": 7,
    "max_position_embeddings": 10,
}


def gpt2_arrays(config: dict[str, Any], seed: int = 0, size: float = 0.4) -> dict[str, np.ndarray]:
    """Random weights of a GPT-2 by Hugging Face's names; gains are about one."""
    width, layers = config["n_embd"], config["n_layer"]
    shapes = {
        "wte.weight": (config["vocab_size"], width),
        "wpe.weight": (config["n_positions"], width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }
    for number in range(layers):
        at = f"h.{number}"
        shapes |= {f"{at}.ln_{which}.{kind}": (width,) for which in (1, 2) for kind in ("weight", "bias")}
        for name, rows, columns in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            shapes |= {f"{at}.{name}.weight": (rows, columns), f"{at}.{name}.bias": (columns,)}
    return _drawn({f"transformer.{name}": shape for name, shape in shapes.items()}, seed, size)


def llama_arrays(config: dict[str, Any], seed: int = 0, size: float = 0.4) -> dict[str, np.ndarray]:
    """Random weights of a Llama by Hugging Face's names."""
    width, hidden = config["hidden_size"], config["intermediate_size"]
    each = width // config["num_attention_heads"]
    keys = each * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], width),
        "model.norm.weight": (width,),
        "lm_head.weight": (config["vocab_size"], width),
    }
    for number in range(config["num_hidden_layers"]):
        at = f"model.layers.{number}"
        shapes |= {f"{at}.{name}.weight": (width,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{at}.self_attn.{name}_proj.weight": (width, width) for name in "qo"}
        shapes |= {f"{at}.self_attn.{name}_proj.weight": (keys, width) for name in "kv"}
        shapes |= {f"{at}.mlp.{name}_proj.weight": (hidden, width) for name in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (width, hidden)
    return _drawn(shapes, seed, size)


def _drawn(shapes: dict[str, tuple[int, ...]], seed: int, size: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {name: (size * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    gains = [name for name in made if name.endswith("weight") and made[name].ndim == 1]
    return made | {name: 1 + made[name] for name in gains}


def written(arrays: dict[str, np.ndarray], config: dict[str, Any], folder: Path) -> Path:
    """A folder as Hugging Face writes it."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder
