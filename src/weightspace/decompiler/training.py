"""Transformers trained to answer as a given one does: from its compressed weights, or from scratch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from weightspace.decompiler.distortion import clean, compressed
from weightspace.decompiler.examples import Answers, answers_of, input_codes, share_right
from weightspace.decompiler.lifting.rewrite import WRITING
from weightspace.errors import RaspError
from weightspace.rasp.compiler.bare import POSITIONS, TOKENS, BareTransformer
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.threads import one_thread


@dataclass(frozen=True, kw_only=True)
class RungTraining:
    """How a rung is trained: Adam with a cosine schedule, all matrices and embeddings, no biases.

    Attributes:
        steps: at most so many; training ends sooner where every input is right, but not before `least`.
        least: at least so many, however right the network is.
        batch: inputs a step, drawn with replacement.
        rate: the first step size, as a share of each matrix's root mean square.
        check: every so many steps all inputs are tried.
        sharpness: what a categorical readout, 0 or 1 where it is compiled, is multiplied by to make logits.
    """

    steps: int = 1_500
    least: int = 300
    batch: int = 128
    rate: float = 0.01
    check: int = 100
    sharpness: float = 10.0

    def __post_init__(self) -> None:
        for name in ("steps", "least", "batch", "check"):
            if getattr(self, name) < 1:
                raise RaspError(f"{name} is at least 1, not {getattr(self, name)}")
        for name in ("rate", "sharpness"):
            if not 0 < getattr(self, name) < math.inf:
                raise RaspError(f"{name} is a positive number, not {getattr(self, name)}")


FINETUNING = RungTraining()
FROM_SCRATCH = RungTraining(steps=4_000, rate=0.02)


def finetuned(
    transformer: CompiledTransformer | BareTransformer,
    seed: int,
    share: float,
    config: RungTraining = FINETUNING,
) -> BareTransformer:
    """Compressed, and then trained to answer as the original does.

    Lindner et al. (section 5.2) train one projection of the stream, shared by all matrices and with its transpose to
    read, by SGD on the output and on every layer's activations, and keep the compiled weights as they are. Here the
    projection begins at the principal directions, and then every matrix is free and is trained on the output alone:
    nothing ties what reads a direction to what writes it, which is how a network that was pruned and trained on looks.

    Args:
        share: of the directions that are kept.
    """
    bare = clean(transformer)
    wanted = answers_of(bare, input_codes(bare, seed))
    return _fitted(compressed(transformer, seed, share), wanted, seed, config)


def trained(
    transformer: CompiledTransformer | BareTransformer,
    seed: int,
    config: RungTraining = FROM_SCRATCH,
) -> BareTransformer:
    """A transformer of the compiled one's shape, trained from scratch on what that one answers.

    It answers on the same directions; all else about it is its own.
    """
    bare = clean(transformer)
    wanted = answers_of(bare, input_codes(bare, seed))
    random = np.random.default_rng([seed, 4])
    params = {}
    for name, array in bare.params.items():
        drawn = random.standard_normal(array.shape)
        if array.ndim == 1:
            params[name] = np.zeros_like(array)
            continue
        scale = 0.5 if name in (TOKENS, POSITIONS) else 1 / math.sqrt(len(array))
        if name.rsplit("/", 1)[0].endswith(WRITING):
            scale /= math.sqrt(2 * bare.num_layers)
        params[name] = (scale * drawn).astype(np.float32)
    return _fitted(replace(bare, params=params), wanted, seed, config)


@one_thread()
def _fitted(bare: BareTransformer, wanted: Answers, seed: int, config: RungTraining) -> BareTransformer:
    """A transformer trained to answer as is wanted; the best of those that were tried on all inputs is kept."""
    import torch

    from weightspace.decompiler.trainable import TrainableTransformer, data_of

    network, data = TrainableTransformer(bare), data_of(bare, wanted)
    optimiser = torch.optim.Adam(
        [{"params": [p], "lr": config.rate * float(p.detach().square().mean().sqrt())} for p in network.trained],
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
    )
    random = np.random.default_rng([seed, 5])
    best, kept = share_right(bare, wanted), bare
    for step in range(config.steps):
        if step % config.check == 0 and step:
            found = network.bare()
            share = share_right(found, wanted)
            if share >= best:
                best, kept = share, found
            if share == 1.0 and step >= config.least:
                return kept
        rows = torch.from_numpy(random.integers(0, len(data.codes), config.batch))
        loss = network.loss(data, rows, config.sharpness)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    found = network.bare()
    return found if share_right(found, wanted) >= best else kept
