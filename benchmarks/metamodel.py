"""A training step of the meta-model at width 256, as a share of a plain matrix product's rate on this machine."""

import torch

from benchmarks.record import keep, seconds
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.contract import Target
from weightspace.metamodels.embed import TokenBatch
from weightspace.metamodels.learner import Answering
from weightspace.metamodels.metamodel import Transformer
from weightspace.train.config import TrainingConfig
from weightspace.train.optimiser import adamw
from weightspace.weights.slots import Room

BATCH, TOKENS, WIDTH, DEPTH, CHUNK = 32, 64, 256, 6, 128


def flops_a_step() -> float:
    """Multiply-adds counted as two, forward and twice that backward: matrices of every layer, and attention."""
    matrices = DEPTH * 12 * WIDTH * WIDTH + CHUNK * WIDTH
    attention = DEPTH * 2 * TOKENS * WIDTH
    return 3 * 2 * BATCH * TOKENS * (matrices + attention)


def main() -> None:
    torch.manual_seed(0)
    config = MetaModelConfig(chunk_size=CHUNK, width=WIDTH, depth=DEPTH, heads=4, pooling="mean")
    targets = [Target(name, tuple(name + c for c in "abcd"[:k])) for name, k in (("x", 4), ("y", 4), ("z", 3))]
    answering = Answering(tuple(targets), ((0.0, 1.0),) * 3)
    model = Transformer(config, TOKENS, sum(answering.sizes), Room(0))
    optimiser = adamw(model, TrainingConfig())
    mask = torch.ones(BATCH, TOKENS, dtype=torch.bool)
    tokens = TokenBatch(torch.randn(BATCH, TOKENS, CHUNK), mask, torch.rand(BATCH, TOKENS, 72))
    labels = torch.randint(3, (BATCH, 3)).float()

    def step() -> None:
        answering.loss(model(tokens), labels).backward()
        optimiser.step()
        optimiser.zero_grad()

    a, b = torch.randn(BATCH * TOKENS, 4 * WIDTH), torch.randn(4 * WIDTH, WIDTH)
    product = seconds(lambda: [a @ b for _ in range(20)], 9, 2) / 20
    step_s = seconds(step, 9, 2)
    product = min(product, seconds(lambda: [a @ b for _ in range(20)], 9, 2) / 20)  # before and after: noise
    peak = 2 * BATCH * TOKENS * 4 * WIDTH * WIDTH / product
    keep(
        "metamodel",
        {
            "tokens_per_s": round(BATCH * TOKENS / step_s),
            "step_ms": round(1000 * step_s, 1),
            "gflops": round(flops_a_step() / step_s / 1e9, 1),
            "plain_product_gflops": round(peak / 1e9, 1),
            "share": round(flops_a_step() / step_s / peak, 3),
            "targets": "a share of 0.5 at width 256",
        },
    )


if __name__ == "__main__":
    main()
