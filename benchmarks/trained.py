"""How fast answers of a trained transformer are enumerated: 100,000 inputs of length 16, two layers of width 64."""

from time import process_time

import numpy as np
import torch

from benchmarks.record import keep
from weightspace.transformers.loading import load_trained
from weightspace.transformers.places import Place
from weightspace.transformers.trained import TrainedTransformer

BLOCKS = (("attn.c_attn", 1, 3), ("attn.c_proj", 1, 1), ("mlp.c_fc", 1, 4), ("mlp.c_proj", 4, 1))
"""Name, and widths in and out, of each map of a layer."""
INPUTS, LENGTH, LAYERS, WIDTH, HEADS, VOCABULARY = 100_000, 16, 2, 64, 2, 8


def random_gpt2() -> TrainedTransformer:
    """A GPT-2 of these sizes with random weights."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (VOCABULARY, WIDTH),
        "wpe.weight": (LENGTH, WIDTH),
        "ln_f.weight": (WIDTH,),
        "ln_f.bias": (WIDTH,),
    }
    for at in (f"h.{number}" for number in range(LAYERS)):
        shapes |= {f"{at}.ln_{which}.{kind}": (WIDTH,) for which in (1, 2) for kind in ("weight", "bias")}
        for name, rows, columns in BLOCKS:
            shapes |= {f"{at}.{name}.weight": (rows * WIDTH, columns * WIDTH), f"{at}.{name}.bias": (columns * WIDTH,)}
    arrays = {name: (0.1 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    sizes = {"n_embd": WIDTH, "n_head": HEADS, "n_layer": LAYERS, "n_positions": LENGTH, "vocab_size": VOCABULARY}
    return load_trained(arrays, config=sizes)


def main() -> None:
    transformer = random_gpt2()
    tokens = torch.randint(0, VOCABULARY, (INPUTS, LENGTH), generator=torch.Generator().manual_seed(0))
    transformer.logits(tokens[:64])
    spent = process_time()
    transformer.logits(tokens)
    spent = process_time() - spent
    read = [Place("pattern", layer) for layer in range(LAYERS)] + [Place("z", layer) for layer in range(LAYERS)]
    part = tokens[: INPUTS // 10]
    began = process_time()
    for batch in part.split(1024):
        transformer.run(batch, read=read)
    keep(
        "trained",
        {
            "inputs": INPUTS,
            "length": LENGTH,
            "threads": torch.get_num_threads(),
            "cpu_s": round(spent, 2),
            "inputs_per_cpu_s": round(INPUTS / spent),
            "inputs_per_cpu_s_with_patterns_and_values_read": round(len(part) / (process_time() - began)),
            "targets": "under 60 s on two cores, so under 120 s of CPU time",
        },
    )


if __name__ == "__main__":
    main()
