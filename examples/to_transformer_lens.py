"""A compiled program as a model of TransformerLens, with every hook of that library on weights one knows.

    pip install transformer-lens
    python examples/to_transformer_lens.py [program.rasp]

Both transformers run on the same inputs; the script fails unless their residual streams agree after every half of every
layer. Without a program it takes `sort.rasp` beside it. It runs with TransformerLens 4 and with the versions before it.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import weightspace as ws
from weightspace.decompiler.lens import answer_directions
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.functions import Value
from weightspace.rasp.language import BOS

TOLERANCE = 1e-4
"""Largest difference of two residual streams, whose entries are of the order of 1."""
INPUTS = 50
"""Random inputs of each length."""


def hook_name(stage: str) -> str:
    """Where TransformerLens keeps the residual stream that `CompiledTransformer.stages` calls `layer 0 MLP`."""
    if stage == "embedding":
        return "blocks.0.hook_resid_pre"
    _, layer, half = stage.split()
    return f"blocks.{layer}.hook_resid_{'mid' if half == 'attention' else 'post'}"


def differences(transformer: CompiledTransformer, model: Any, codes: np.ndarray) -> dict[str, float]:
    """Largest difference of the two residual streams at each stage.

    Args:
        codes: (batch, places) rows of the token embedding, without BOS.
    """
    _, cache = model.run_with_cache(with_bos(transformer, codes))
    return {
        stage: float(np.abs(stream - cache[hook_name(stage)].numpy()).max())
        for stage, stream in transformer.stages(codes)
    }


def with_bos(transformer: CompiledTransformer, codes: np.ndarray) -> torch.Tensor:
    """(batch, places + 1) tokens for TransformerLens."""
    return torch.from_numpy(np.insert(codes, 0, transformer.token_values.index(BOS), axis=1))


def print_pattern(transformer: CompiledTransformer, model: Any, codes: np.ndarray) -> None:
    """Print how much each place of one input (1, places) attends to each, in the last head in use."""
    heads = transformer.attention_patterns(codes)
    if not heads:
        print("\nno attention head is in use")
        return
    layer, head = max(heads)
    _, cache = model.run_with_cache(with_bos(transformer, codes))
    pattern = cache["pattern", layer][0, head].numpy()  # (queries, keys)
    assert np.abs(pattern - heads[layer, head][0]).max() <= TOLERANCE
    names = ["BOS", *(str(transformer.token_values[code]) for code in codes[0])]
    size = max(4, *map(len, names))
    print(f"\nlayer {layer}, head {head}: each row is a query, each column a key")
    print(" ".join(name.rjust(size) for name in ["", *names]))
    for name, row in zip(names, pattern, strict=True):
        print(" ".join([name.rjust(size), *(f"{share:{size}.2f}" for share in row)]))


def answers(transformer: CompiledTransformer, model: Any, codes: np.ndarray) -> list[list[Value]]:
    """What TransformerLens answers at each place of each input (batch, places)."""
    with torch.inference_mode():
        logits = model(with_bos(transformer, codes))[:, 1:]  # (batch, places, directions of the answer)
    directions = answer_directions(transformer)
    stream = transformer.forward(codes)
    assert np.abs(logits.numpy() - stream[..., directions]).max() <= TOLERANCE, "the logits differ"
    read = np.zeros_like(stream)
    read[..., directions] = logits.numpy()  # `decode` reads no other direction
    return transformer.decode(read)


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("sort.rasp")
    try:
        transformer = ws.compile_program(path)
    except (OSError, UnicodeDecodeError, ws.RaspError) as error:
        sys.exit(f"{path}: {error}")
    try:
        model = ws.to_transformer_lens(transformer)
    except ws.RaspError as error:
        sys.exit(str(error))
    print(f"{path.name}: {transformer}")

    generator = np.random.default_rng(0)
    vocabulary = np.ravel(transformer.encode([[token] for token in transformer.vocab]))  # without BOS and PAD
    worst: dict[str, float] = {}
    codes = np.empty((0, 0), dtype=int)
    for length in range(1, transformer.max_seq_len + 1):
        codes = generator.choice(vocabulary, size=(INPUTS, length))
        for stage, difference in differences(transformer, model, codes).items():
            assert difference <= TOLERANCE, f"the residual streams differ by {difference} after {stage}"
            worst[stage] = max(difference, worst.get(stage, 0.0))
        answer = [round(a, 4) if isinstance(a, float) else a for a in answers(transformer, model, codes)[0]]
        print(f"  {[transformer.token_values[code] for code in codes[0]]} -> {answer}")

    print(f"\nlargest difference of the residual streams, {INPUTS} inputs of each length")
    for stage, difference in worst.items():
        print(f"  {stage:20} {difference:.1e}")
    print_pattern(transformer, model, codes[:1])


if __name__ == "__main__":
    main()
