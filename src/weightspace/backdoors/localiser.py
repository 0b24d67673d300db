"""Where a backdoor sits: a value for every neuron, and the class it leads to, read off the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.errors import TaskError
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.embed import Normaliser, TokenBatch
from weightspace.metamodels.encoder import Encoder
from weightspace.metamodels.learner import epoch_batch
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.neuron_tokens import NeuronEmbedding, tokens_of
from weightspace.train.log import History
from weightspace.train.loop import train
from weightspace.weights.neurons import group_starts
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec


class _PerNeuron(nn.Module):
    """A reader of neuron tokens with two numbers for each of them: its effect, and whether it is the target class."""

    def __init__(self, config: MetaModelConfig) -> None:
        super().__init__()
        self.embedding = NeuronEmbedding(config.width)
        self.encoder = Encoder(config.width, config.depth, config.heads, False, config.dropout)
        self.head = nn.Linear(config.width, 2)

    def forward(self, tokens: TokenBatch) -> Tensor:
        """(b, t, 2)"""
        return self.head(self.encoder(self.embedding(tokens), tokens.mask if tokens.padded else None))


class Localiser:
    """Learns from networks whose neurons were removed one by one, and needs neither images nor labels afterwards.

    Args:
        config: of the reader; its training too.
        start: a meta-model of the same shape that reads neurons, whose reader it begins with; None for a fresh one.
        folder: for checkpoints.
    Raises:
        TaskError: if `config` does not read neurons, or networks have several specs.
    """

    def __init__(self, config: MetaModelConfig, *, start: MetaModel | None = None, folder: Path | None = None) -> None:
        if config.reading != "neurons":
            raise TaskError("a localiser reads neurons: give a configuration that does")
        # small enough for a CPU, where its tokens are
        self.config = replace(config, training=replace(config.training, device="cpu"))
        self.start, self.folder = start, folder
        self.history = History()

    def fit(
        self,
        training: Population,
        effects: np.ndarray,
        targets: np.ndarray,
        validation: Population,
        held_effects: np.ndarray,
        held_targets: np.ndarray,
    ) -> Localiser:
        """Learn from how much removing each neuron lowers the success of the attack.

        Args:
            effects: (n, neurons) -1 to 1, NaN for inputs and outputs; negative ones count as 0.
            targets: (n,) the attack's class.
        """
        (self.spec,) = training.specs
        self.outputs = outputs_of(self.spec)
        self.normaliser = (
            self.start.normaliser
            if self.start is not None
            else Normaliser.fit(training, True, self.config.training.seed)
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.config.training.seed)
            self.model = _PerNeuron(self.config)
        known = tokens_of(training, self.normaliser)
        if self.start is None:
            self.model.embedding.standardise(known)
        else:
            assert isinstance(self.start.model.embedding, NeuronEmbedding)
            self.model.embedding.load_state_dict(self.start.model.embedding.state_dict())
            self.model.encoder.load_state_dict(self.start.model.encoder.state_dict())
        truth, held_truth = (torch.from_numpy(e).float() for e in (effects, held_effects))
        classes, held_classes = (torch.from_numpy(t.astype(np.int64)) for t in (targets, held_targets))
        held = tokens_of(validation, self.normaliser)

        def batch(step: int) -> tuple[TokenBatch, Tensor, Tensor]:
            rows = torch.from_numpy(
                epoch_batch(len(training), self.config.training.batch_size, step, self.config.training.seed)
            )
            return known.select(rows), truth[rows], classes[rows]

        def loss(model: nn.Module, examples: tuple[TokenBatch, Tensor, Tensor]) -> Tensor:
            tokens, effect, target = examples
            said = model(tokens)
            inner = ~effect.isnan()
            wrong = F.binary_cross_entropy_with_logits(said[..., 0][inner], effect[inner].clamp(0, 1))
            return wrong + F.cross_entropy(said[:, self.outputs, 1], target) / 10

        def evaluate(model: nn.Module) -> dict[str, float]:
            return {"loss": float(loss(model, (held, held_truth, held_classes)))}

        self.history = train(
            self.model, loss, batch, self.config.training, evaluate=evaluate, folder=self.folder,
            description="training the localiser",
        )  # fmt: skip
        return self

    def locate(self, networks: Population) -> tuple[np.ndarray, np.ndarray]:
        """Expected effects (n, neurons), NaN for inputs and outputs, and probabilities of the target (n, classes)."""
        self.model.eval()
        with torch.no_grad():
            said = self.model(tokens_of(networks, self.normaliser))
        effects = said[..., 0].sigmoid().double().numpy()
        hidden = np.concatenate([np.full(group.size, group.permutable) for group in self.spec.groups])
        effects[:, ~hidden] = np.nan
        return effects, said[:, self.outputs, 1].softmax(1).double().numpy()


def outputs_of(spec: NetworkSpec) -> slice:
    """The tokens of the neurons of the last layer."""
    last = [leaf for leaf in spec.leaves if leaf.role == "kernel"][-1].axes[0].groups[0]
    number = next(i for i, group in enumerate(spec.groups) if group.name == last)
    starts = group_starts(spec)
    return slice(starts[number], starts[number + 1])
