"""A compiled program in nnsight: a variable of one input is put into another, and the answer follows.

    pip install nnsight
    python examples/interchange_in_nnsight.py

`sort.rasp` gives every token the place that belongs to it, `target_pos`, and then fetches what belongs to each place.
Here the target places of one input are put into the run of another: its tokens come out in the order of the first. The
script fails unless every answer is the one that the program then gives.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import weightspace as ws
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.language import BOS

try:
    from nnsight import NNsight
except ImportError as error:
    if error.name != "nnsight":  # the library is there, but something else is not
        raise
    sys.exit("this example needs nnsight: pip install nnsight")

VARIABLE = "selector_width_02"
"""The label of `target_pos`; `weightspace rasp show examples/sort.rasp` prints the label of every variable."""
LAYER = 1
"""The layer after which it stands in the residual stream."""


class Layer(nn.Module):
    """One layer of one head: attention, then an MLP, each added to the stream (batch, places, width)."""

    def __init__(self, transformer: CompiledTransformer, layer: int) -> None:
        super().__init__()
        at = f"transformer/layer_{layer}"
        names = {"query": "attn/query", "key": "attn/key", "value": "attn/value", "linear": "attn/linear"}
        for name, place in {**names, "hidden": "mlp/linear_1", "back": "mlp/linear_2"}.items():
            weight, bias = (torch.from_numpy(transformer.params[f"{at}/{place}/{part}"].copy()) for part in "wb")
            linear = nn.Linear(*weight.shape)
            linear.weight.data, linear.bias.data = weight.T, bias
            self.add_module(name, linear)

    def forward(self, stream: Tensor) -> Tensor:
        scores = self.query(stream) @ self.key(stream).mT / self.query.out_features**0.5
        stream = stream + self.linear(scores.softmax(-1) @ self.value(stream))
        return stream + self.back(self.hidden(stream).relu())


class Transformer(nn.Module):
    """A compiled transformer of one head that sees all places, as a module of torch."""

    def __init__(self, transformer: CompiledTransformer) -> None:
        super().__init__()
        self.embeddings = nn.Embedding.from_pretrained(torch.from_numpy(transformer.params["token_embed/embeddings"]))
        self.places = nn.Embedding.from_pretrained(torch.from_numpy(transformer.params["pos_embed/embeddings"]))
        layers = range(transformer.configuration.num_layers)
        self.layers = nn.ModuleList([Layer(transformer, layer) for layer in layers])

    def forward(self, codes: Tensor) -> Tensor:
        stream = self.embeddings(codes) + self.places(torch.arange(codes.shape[1]))
        for layer in self.layers:
            stream = layer(stream)
        return stream


def with_bos(transformer: CompiledTransformer, tokens: list[int]) -> Tensor:
    """(1, places + 1) rows of the token embedding."""
    return torch.tensor([[transformer.token_values.index(BOS), *transformer.encode([tokens])[0]]])


def interchanged(transformer: CompiledTransformer, model: NNsight, tokens: list[int], source: list[int]) -> list[int]:
    """What comes out for `tokens` when the variable has its values on `source`."""
    group = next(group for group in transformer.directions if group.label == VARIABLE)
    variable = slice(group.start, group.start + group.size)
    with torch.no_grad(), model.trace(with_bos(transformer, source)):
        there = model.layers[LAYER].output[:, :, variable].save()
    with torch.no_grad(), model.trace(with_bos(transformer, tokens)):
        model.layers[LAYER].output[:, :, variable] = there
        stream = model.output.save()
    return transformer.decode(stream.numpy()[:, 1:])[0]


def main() -> None:
    transformer = ws.compile_program(Path(__file__).with_name("sort.rasp"))
    model = NNsight(Transformer(transformer))
    generator = np.random.default_rng(0)
    for _ in range(10):
        tokens, source = generator.integers(1, 6, 5).tolist(), generator.permutation(5).tolist()
        source = [token + 1 for token in source]
        found = interchanged(transformer, model, tokens, source)
        expected = [tokens[source.index(place)] for place in range(1, 6)]
        assert found == expected, f"{found} came out, and the program gives {expected}"
        assert interchanged(transformer, model, tokens, tokens) == sorted(tokens)
        print(f"{tokens} sorted as if it were {source} -> {found}")


if __name__ == "__main__":
    main()
