"""The meta-model: a transformer that reads a network's weights and answers every target at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weightspace import __version__
from weightspace.models.config import MetaModelConfig
from weightspace.models.embed import Embedding, Normaliser, Tokens, gather_tokens, tokenise
from weightspace.models.encoder import Encoder
from weightspace.models.heads import Head
from weightspace.models.neuron_tokens import BLOCK, NeuronEmbedding, neuron_count, neuron_tokens
from weightspace.models.summary import Room, Shortcut, leaf_summary
from weightspace.tasks.base import Examples, Predictions, Target, TaskError, check_learnable
from weightspace.tasks.learner import Answering, epoch_batch
from weightspace.train.checkpoint import bind
from weightspace.train.config import MAY_CHANGE_ON_RESUME, TrainingConfig
from weightspace.train.log import History
from weightspace.train.loop import choose_device, mix, to_device, train
from weightspace.weights.augment import Permuter
from weightspace.weights.network import METADATA_KEY, Network, NetworkError, read_safetensors, write_atomically
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec
from weightspace.weights.tokens import token_count

FORMAT = 1
MODEL_FILE = "model.safetensors"


class ScopeError(ValueError):
    """A network that the meta-model was not made for."""


class Transformer(nn.Module):
    """Embedding, encoder and head (Langosco et al., Figure 1): tokens of a network in, logits of every target out."""

    def __init__(self, config: MetaModelConfig, tokens: int, outputs: Sequence[int], room: Room) -> None:
        super().__init__()
        self.config = config
        self.embedding: NeuronEmbedding | Embedding
        if config.reading == "neurons":
            self.embedding = NeuronEmbedding(config.width, config.scale)
        else:
            self.embedding = Embedding(config.chunk_size, config.width, tokens, config.layer_encoding, config.embedding)
        self.first = nn.Parameter(torch.randn(config.width) * 0.02)
        self.encoder = Encoder(config.width, config.depth, config.heads, config.causal, config.dropout)
        self.shortcut = Shortcut(room.size, config.scale) if config.summary else None
        size = config.width * (1 + (config.pooling == "extremes"))
        self.head = Head(size + (room.size if config.summary else 0), outputs, config.hidden)

    def forward(self, tokens: Tokens) -> tuple[Tensor, ...]:
        """Logits of each target, (b, classes), or (b, 1) of a quantity."""
        x = self._pooled(tokens)
        if self.shortcut is not None:
            assert tokens.summary is not None
            x = torch.cat([x, self.shortcut(tokens.summary)], 1)
        return self.head(x)

    def _pooled(self, tokens: Tokens) -> Tensor:
        x, mask = self.embedding(tokens), tokens.mask  # (b, t, d), (b, t)
        if self.config.pooling != "first":
            x = self.encoder(x, mask if tokens.padded else None)
            mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            if self.config.pooling == "mean":
                return mean
            return torch.cat([mean, x.masked_fill(~mask[..., None], -torch.inf).amax(1)], 1)
        learnt = self.first.expand(len(x), 1, -1)
        seen = torch.ones_like(mask[:, :1])
        if self.config.causal:
            x, mask = torch.cat([x, learnt], 1), torch.cat([mask, seen], 1)
            return self.encoder(x, mask if tokens.padded else None)[:, -1]
        x, mask = torch.cat([learnt, x], 1), torch.cat([seen, mask], 1)
        return self.encoder(x, mask if tokens.padded else None)[:, 0]


class MetaModel:
    """The paper's meta-model as a `Predictor`.

    Args:
        config: its shape, its reading of weights and its training.
        folder: where checkpoints and logs go, so that a killed `fit` goes on when it is called again; None for nowhere.
        show: whether to show a progress line.
    """

    name = "meta-model"

    def __init__(
        self, config: MetaModelConfig | None = None, *, folder: str | Path | None = None, show: bool = False
    ) -> None:
        self.config = config or MetaModelConfig()
        self.folder = Path(folder) if folder is not None else None
        self.show = show
        self.history = History()
        self.answering = Answering((), ())
        self.specs: tuple[NetworkSpec, ...] = ()
        self.tokens = 0
        self.standardised = True
        self.facts: Mapping[str, Any] = {}

    # -- learning -----------------------------------------------------------------------------------------------------

    def fit(self, training: Examples, validation: Examples) -> MetaModel:
        """Train on `training`, keep the weights with the lowest loss on `validation`.

        Networks of which no label is known teach nothing, but a meta-model that is pretrained learns from them first.

        Raises:
            NetworkError: if a weight is NaN or infinite.
            TaskError: if there is nothing to learn, or the folder holds another run.
        """
        check_learnable(training, validation)
        training.networks.check_finite()
        validation.networks.check_finite()
        config = self.config
        specs = self.specs = training.networks.specs
        answering = self.answering = Answering.of(training)
        read = (*specs, *validation.networks.specs)
        self.tokens = max(map(self._count, read))
        self.normaliser = Normaliser.fit(training.networks, config.normalisation == "layer", config.training.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.training.seed)
            self.model = Transformer(config, self.tokens, answering.sizes, self.room)
        chunks = config.reading == "chunks"
        permuter = Permuter(specs, config.permutations, config.training.seed) if config.permute and chunks else None
        # Statistics of neurons take longer than a step, and no order of neurons changes them
        self.standardised = False
        known = None if chunks else self._tokens(training.networks)
        if known is not None and isinstance(self.model.embedding, NeuronEmbedding):
            self.model.embedding.standardise(known)
            known = self.model.embedding.ranked(known)
        self.standardised = True
        if self.model.shortcut is not None:
            some = known or self._tokens(training.networks)
            assert some.summary is not None
            self.model.shortcut.standardise(some.summary)
        labels = answering.labels(training)  # (n, targets)
        taught = np.flatnonzero(labels.isfinite().any(1).numpy())  # of the others `prepare` may make use
        held_labels = answering.labels(validation)

        self._bind(labels, held_labels)

        self.prepare(training, known)

        def batch(step: int) -> tuple[Tokens, Tensor]:
            chosen = taught[epoch_batch(len(taught), config.training.batch_size, step, config.training.seed)]
            generator = torch.Generator().manual_seed(mix(config.training.seed, step))
            rows = torch.from_numpy(chosen)
            if known is not None:
                return known.select(rows), labels[rows]
            return self._tokens(training.networks.select(chosen), permuter, generator), labels[rows]

        def loss(model: nn.Module, examples: tuple[Tokens, Tensor]) -> Tensor:
            return answering.loss(model(examples[0]), examples[1])

        def evaluate(model: nn.Module) -> dict[str, float]:
            outputs = self._outputs(model, validation.networks)
            return answering.measures(outputs, held_labels.to(outputs[0].device))

        self.history = train(
            self.model,
            loss,
            batch,
            config.training,
            evaluate=evaluate,
            folder=self.folder,
            description="training the meta-model",
            progress=self.show,
        )
        return self

    def prepare(self, training: Examples, known: Tokens | None) -> None:
        """What a subclass does with the new model before it learns from labels; nothing here.

        Args:
            known: all training networks as tokens, where these are kept.
        """

    def _bind(self, labels: Tensor, held_labels: Tensor) -> None:
        """Tie the folder to these networks, targets and settings: its checkpoint must not go on with others."""
        if self.folder is None:
            return
        settings = asdict(self.config)
        for name in MAY_CHANGE_ON_RESUME:
            del settings["training"][name]
        facts = [self.normaliser.to_json(), [spec.signature for spec in self.specs], settings]
        content = json.dumps(facts, sort_keys=True).encode() + labels.numpy().tobytes() + held_labels.numpy().tobytes()
        if not bind(self.folder, content):
            raise TaskError(
                f"{self.folder} holds a meta-model of other networks, targets or settings: choose another folder, or "
                "delete that one"
            )

    @property
    def targets(self) -> tuple[Target, ...]:
        """What it answers."""
        return self.answering.targets

    # -- answering ----------------------------------------------------------------------------------------------------

    def predict(self, networks: Sequence[Network]) -> Predictions:
        """Probabilities (n, classes) for each target, estimates (n,) for each quantity.

        Raises:
            NetworkError: if a weight is NaN or infinite.
            ScopeError: if a network's arrays are not such as it was trained on.
        """
        population = Population.of(networks)
        population.check_finite()
        for spec in population.specs:
            self.check_scope(spec)
        device = choose_device(self.config.training.device)
        self.model.to(device).eval()
        with torch.no_grad():
            return self.answering.predictions(self._outputs(self.model, population))

    def check_scope(self, spec: NetworkSpec) -> None:
        """Raise a ScopeError unless networks with this spec can be judged.

        A meta-model trained on one spec judges that one alone: the place of a weight is what tells it apart. One
        trained on several judges every network that is no larger than the largest of them.
        """
        if spec in self.specs or (self.config.other_widths and layers_of(spec) in map(layers_of, self.specs)):
            return
        if len(self.specs) == 1 or not 0 < self._count(spec) <= self.tokens:
            chunks = self.config.reading == "chunks"
            most = f"{self.tokens * self.config.chunk_size} weights" if chunks else f"{self.tokens} neurons"
            raise ScopeError(
                f"a network with arrays {describe(spec)} is out of scope: this meta-model was trained on "
                f"{len(self.specs)} other architecture(s) of at most {most}; train one on such networks"
            )

    def _count(self, spec: NetworkSpec) -> int:
        """Tokens of a network."""
        chunks = self.config.reading == "chunks"
        return token_count(spec.size, self.config.chunk_size) if chunks else neuron_count(spec)

    def _outputs(self, model: nn.Module, population: Population) -> tuple[Tensor, ...]:
        device = next(self.model.parameters()).device
        size = max(1, self.config.training.batch_size)
        blocks = [np.arange(i, min(i + size, len(population))) for i in range(0, len(population), size)]
        parts = [model(to_device(self._tokens(population.select(block)), device)) for block in blocks]
        if not parts:
            return tuple(torch.zeros(0, size) for size in self.answering.sizes)
        return tuple(torch.cat([part[i].float() for part in parts]) for i in range(len(self.targets)))

    def _tokens(
        self, networks: Population, permuter: Permuter | None = None, generator: torch.Generator | None = None
    ) -> Tokens:
        """Networks as one batch, each in a random order of neurons where there is a permuter."""
        parts = []
        for spec, positions in networks.groups():
            for block in np.array_split(positions, -(-len(positions) * spec.size // BLOCK)):
                weights = torch.from_numpy(networks.read(block))
                if permuter is not None and generator is not None:
                    weights = permuter.permute(spec, weights, generator)
                parts.append((block, self.read(weights, spec)))
        return gather_tokens(parts)

    def read(self, weights: Tensor, spec: NetworkSpec) -> Tokens:
        """Flat weights (b, spec.size) as the tokens that the model reads, with gradients."""
        if self.config.reading == "neurons":
            tokens = neuron_tokens(weights, spec, self.normaliser)
            if self.standardised:
                assert isinstance(self.model.embedding, NeuronEmbedding)
                tokens = self.model.embedding.ranked(tokens)
        else:
            tokens = tokenise(weights, spec, self.normaliser, self.config.chunk_size)
        if not self.config.summary:
            return tokens
        return replace(tokens, summary=leaf_summary(weights, spec, self.normaliser, self.room))

    @property
    def room(self) -> Room:
        """Arrays that a summary has room for."""
        return Room.of(self.specs)

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, facts: Mapping[str, Any] | None = None) -> Path:
        """Write `model.safetensors` into a folder: tensors, and as metadata everything needed to use them.

        Args:
            folder: or the path of the file, if it ends so.
            facts: what else to keep, such as the zoo it was trained on; JSON-serialisable.
        """
        from safetensors.torch import save

        record = {
            "format": FORMAT,
            "version": __version__,
            "config": asdict(self.config),
            "targets": [{"name": target.name, "classes": list(target.classes)} for target in self.targets],
            "scales": [list(scale) for scale in self.answering.scales],
            "specs": [spec.to_json() for spec in self.specs],
            "tokens": self.tokens,
            "normaliser": self.normaliser.to_json(),
            "history": self.history.to_json(),
            "facts": dict(facts or {}),
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        path = Path(folder) if Path(folder).suffix == ".safetensors" else Path(folder) / MODEL_FILE
        write_atomically(path, save(tensors, {METADATA_KEY: json.dumps(record, sort_keys=True)}))
        return path

    @staticmethod
    def load(folder: str | Path) -> MetaModel:
        """Read a meta-model that `save` wrote; nothing in the file is executed.

        Raises:
            NetworkError: if there is none, or it is damaged.
        """
        path = Path(folder) / MODEL_FILE if Path(folder).is_dir() else Path(folder)
        if not path.is_file():
            raise NetworkError(f"{folder} holds no meta-model ({MODEL_FILE}): train one with `weightspace train ZOO`")
        arrays, metadata = read_safetensors(path)
        try:
            record = json.loads(metadata[METADATA_KEY])
            options = record["config"]
            training = options.pop("training")
            training["betas"] = tuple(training["betas"])
            training["device"] = "auto"  # where it was trained says nothing about where it is used
            loaded = MetaModel(MetaModelConfig(**options, training=TrainingConfig(**training)))
            targets = tuple(Target(t["name"], tuple(t["classes"])) for t in record["targets"])
            scales = record.get("scales", [(0.0, 1.0)] * len(targets))  # files of before quantities could be asked
            loaded.answering = Answering(targets, tuple((float(mean), float(spread)) for mean, spread in scales))
            loaded.specs = tuple(NetworkSpec.from_json(spec) for spec in record["specs"])
            loaded.tokens = int(record["tokens"])
            loaded.normaliser = Normaliser.from_json(record["normaliser"])
            loaded.model = Transformer(loaded.config, loaded.tokens, loaded.answering.sizes, loaded.room)
            loaded.model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
            loaded.facts = record["facts"]
            loaded.history = History(**record["history"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise NetworkError(f"{path} is not a whole meta-model: {error}") from error
        return loaded

    @property
    def parameters(self) -> int:
        """Number of its own weights."""
        return sum(p.numel() for p in self.model.parameters())


def layers_of(spec: NetworkSpec) -> list[tuple[str, str, int]]:
    """What networks of the same layers and other widths have in common: name, role and dimensions of each array."""
    return [(leaf.name, leaf.role, len(leaf.shape)) for leaf in spec.leaves]


def describe(spec: NetworkSpec, most: int = 4) -> str:
    """The first few arrays of a spec, for a message."""
    shown = ", ".join(f"{leaf.name} {list(leaf.shape)}" for leaf in spec.leaves[:most])
    return shown + (", ..." if len(spec.leaves) > most else "") + f" ({spec.size:,} weights)"
