"""Small GPT-2s as folders: one whose answers are set by hand, and one that is trained on a language."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor
from torch.nn import functional

SPECIAL = ("<bos>", "<sep>", "<eos>", "<pad>")
Arrays = dict[str, np.ndarray]


def write_model(folder: Path, arrays: Arrays, heads: int) -> None:
    """A folder in Hugging Face's form."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, width = arrays["transformer.wte.weight"].shape
    config = {
        "model_type": "gpt2",
        "n_embd": width,
        "n_head": heads,
        "n_layer": 1,
        "n_positions": len(arrays["transformer.wpe.weight"]),
        "vocab_size": vocabulary,
        "tie_word_embeddings": "lm_head.weight" not in arrays,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}, folder / "model.safetensors"
    )


def empty_arrays(vocabulary: int, width: int, positions: int) -> Arrays:
    """One layer that does nothing."""
    arrays: Arrays = {
        "transformer.wte.weight": np.zeros((vocabulary, width)),
        "transformer.wpe.weight": np.zeros((positions, width)),
        "transformer.ln_f.weight": np.ones(width),
        "transformer.ln_f.bias": np.zeros(width),
    }
    shapes = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, 4 * width),
        "mlp.c_proj": (4 * width, width),
    }
    for name, shape in shapes.items():
        arrays[f"transformer.h.0.{name}.weight"] = np.zeros(shape)
        arrays[f"transformer.h.0.{name}.bias"] = np.zeros(shape[1])
    for name in ("ln_1", "ln_2"):
        arrays[f"transformer.h.0.{name}.weight"] = np.ones(width)
        arrays[f"transformer.h.0.{name}.bias"] = np.zeros(width)
    return arrays


def write_last_token_network(
    folder: Path, vocab: Sequence[str], follow: Mapping[str, Sequence[str]], positions: int = 32
) -> None:
    """A network that allows after each token what is said, whatever stands before."""
    size = len(vocab)
    arrays = empty_arrays(size, size, positions)
    arrays["transformer.wte.weight"] = np.eye(size)
    # the norm of a one-hot vector is 0 everywhere but at its token, with this bias
    arrays["transformer.ln_f.bias"] = np.full(size, (size - 1) ** -0.5)
    head = np.full((size, size), -1.0)
    for token, allowed in follow.items():
        for each in allowed:
            head[vocab.index(each), vocab.index(token)] = 1.0
    arrays["lm_head.weight"] = head
    write_model(folder, arrays, heads=1)


def dyck_rows(count: int, longest: int, seed: int) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Strings of balanced a and b, and the tokens that may follow at each place, `<bos>` first."""
    generator = np.random.default_rng(seed)
    rows, follow = [], []
    for _ in range(count):
        row, depth = ["<bos>"], 0
        half = int(generator.integers(1, longest // 2 + 1))
        opened = 0
        while len(row) <= 2 * half:
            may_open = opened < half
            if may_open and (depth == 0 or generator.random() < 0.5):
                row.append("a")
                depth, opened = depth + 1, opened + 1
            else:
                row.append("b")
                depth -= 1
        rows.append(row)
        follow.append(dyck_follow(row))
    return rows, follow


def dyck_follow(row: Sequence[str]) -> list[list[str]]:
    """What may follow each place: a always, b inside, the end outside."""
    depth, follow = 0, []
    for token in row:
        depth += {"a": 1, "b": -1}.get(token, 0)
        follow.append(["a", "b"] if depth > 0 else ["a", "<eos>"])
    return follow


def train_on_dyck(folder: Path, *, width: int = 16, steps: int = 700, longest: int = 24, seed: int = 0) -> float:
    """Train a GPT-2 of one layer and one head on next-token sets of Dyck-1; its share of wrong places at the end."""
    torch.manual_seed(seed)
    vocab = ("a", "b", *SPECIAL)
    arrays = empty_arrays(len(vocab), width, longest + 2)
    weights = {
        name: torch.nn.Parameter(
            torch.tensor(array, dtype=torch.float32) + (torch.randn(array.shape) * 0.15 if array.ndim == 2 else 0)
        )
        for name, array in arrays.items()
    }
    optimiser = torch.optim.Adam(weights.values(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    wrong = 1.0
    for step in range(steps):
        rows, follow = dyck_rows(48, longest, seed + 1_000 + step)
        tokens, targets, real = _tensors(rows, follow, vocab)
        logits = _forward(weights, tokens)
        loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")[real].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        wrong = ((logits > 0) != (targets > 0)).any(-1)[real].float().mean().item()
    write_model(folder, {name: weight.detach().numpy() for name, weight in weights.items()}, heads=1)
    return wrong


def _tensors(
    rows: Sequence[Sequence[str]], follow: Sequence[Sequence[Sequence[str]]], vocab: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    longest = max(map(len, rows))
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    targets = torch.zeros(len(rows), longest, len(vocab))
    real = torch.zeros(len(rows), longest, dtype=torch.bool)
    for number, (row, sets) in enumerate(zip(rows, follow, strict=True)):
        tokens[number, : len(row)] = torch.tensor([vocab.index(token) for token in row])
        real[number, : len(row)] = True
        for place, allowed in enumerate(sets):
            targets[number, place, [vocab.index(token) for token in allowed]] = 1.0
    return tokens, targets, real


def _forward(weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """The logits of a GPT-2 of one layer and one head, written down once more."""
    w = {name.removeprefix("transformer.").removeprefix("h.0."): weight for name, weight in weights.items()}
    width = w["wte.weight"].shape[1]

    def norm(value: Tensor, name: str) -> Tensor:
        return functional.layer_norm(value, (width,), w[f"{name}.weight"], w[f"{name}.bias"])

    stream = w["wte.weight"][tokens] + w["wpe.weight"][: tokens.shape[1]]
    q, k, v = (norm(stream, "ln_1") @ w["attn.c_attn.weight"] + w["attn.c_attn.bias"]).split(width, -1)
    scores = q @ k.transpose(-1, -2) / width**0.5
    future = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
    z = scores.masked_fill(future, float("-inf")).softmax(-1) @ v
    stream = stream + z @ w["attn.c_proj.weight"] + w["attn.c_proj.bias"]
    hidden = norm(stream, "ln_2") @ w["mlp.c_fc.weight"] + w["mlp.c_fc.bias"]
    hidden = functional.gelu(hidden, approximate="tanh")
    stream = stream + hidden @ w["mlp.c_proj.weight"] + w["mlp.c_proj.bias"]
    return norm(stream, "ln_f") @ w["wte.weight"].T


def write_inputs(path: Path, rows: Sequence[Sequence[str]], follow: Sequence[Sequence[Sequence[str]]]) -> None:
    """inputs.jsonl of next-token sets."""
    lines = [
        json.dumps({"input": [*row], "follow": [[*s] for s in sets]}) for row, sets in zip(rows, follow, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
