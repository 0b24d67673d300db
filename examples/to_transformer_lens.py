"""A compiled program as TransformerLens's `HookedTransformer`, with every hook of that library on weights one knows.

    pip install 'transformer-lens<4'
    python examples/to_transformer_lens.py [program.rasp]

Both transformers run on the same inputs; the script fails unless their residual streams agree after every half of every
layer. Without a program it takes `sort.rasp` beside it. TransformerLens 4 has no `HookedTransformer` any more: there,
`convert_tl_checkpoint(weights(transformer), config)` is what `TransformerBridge.boot_native(config)` can load.
"""

import math
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.functions import Value
from weightspace.rasp.language import BOS
from weightspace.rasp.program import Program

try:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
except ImportError as error:
    if error.name not in ("transformer_lens", "HookedTransformer"):  # the library is there, but something else is not
        raise
    sys.exit("this example needs TransformerLens before version 4: pip install 'transformer-lens<4'")

TOLERANCE = 1e-4
"""Largest difference of two residual streams, whose entries are of the order of 1."""
INPUTS = 50
"""Random inputs of each length."""


def hooked(transformer: CompiledTransformer) -> HookedTransformer:
    """The same transformer in TransformerLens.

    Its tokens are rows of the token embedding, and each input begins with BOS; its logits are the residual stream along
    the directions that hold the answer, so that the unembedding's columns are unit vectors.
    """
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


def hook_name(stage: str) -> str:
    """Where TransformerLens keeps the residual stream that `CompiledTransformer.stages` calls `layer 0 MLP`."""
    if stage == "embedding":
        return "blocks.0.hook_resid_pre"
    _, layer, half = stage.split()
    return f"blocks.{layer}.hook_resid_{'mid' if half == 'attention' else 'post'}"


def differences(transformer: CompiledTransformer, model: HookedTransformer, codes: np.ndarray) -> dict[str, float]:
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


def print_pattern(transformer: CompiledTransformer, model: HookedTransformer, codes: np.ndarray) -> None:
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


def answers(transformer: CompiledTransformer, model: HookedTransformer, codes: np.ndarray) -> list[list[Value]]:
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
        transformer = compile_program(Program.parse(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, RaspError) as error:
        sys.exit(f"{path}: {error}")
    model = hooked(transformer)
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
