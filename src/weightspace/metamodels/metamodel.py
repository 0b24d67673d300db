"""The meta-model: a transformer that reads a network's weights and answers every target at once."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weightspace.errors import NetworkError, ScopeError, UnlikeWarning
from weightspace.metamodels.asking import Answers, asked
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.contract import Examples, Predictions, Target
from weightspace.metamodels.embed import Embedding, Normaliser, TokenBatch, gather_tokens, tokenise
from weightspace.metamodels.encoder import Encoder
from weightspace.metamodels.heads import Head
from weightspace.metamodels.hierarchical import LeafEmbedding, leaf_tokens
from weightspace.metamodels.learner import Answering, Learner
from weightspace.metamodels.neuron_tokens import BLOCK, NeuronEmbedding, neuron_count, neuron_tokens
from weightspace.metamodels.scope import Scopes
from weightspace.metamodels.summary import (
    DROPPED,
    DROPPED_EXACT,
    EXACT_SUMMARY,
    Shortcut,
    Thresholds,
    exact_summary,
    leaf_summary,
    summary_size,
)
from weightspace.notebook import card
from weightspace.train.config import MAY_CHANGE_ON_RESUME
from weightspace.train.log import History
from weightspace.train.loop import choose_device
from weightspace.train.model_file import read_model, training_of, write_model
from weightspace.weights.augment import Permuter
from weightspace.weights.canonical_scale import in_canonical_scale
from weightspace.weights.chunks import token_count
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.slots import Room
from weightspace.weights.spec import NetworkSpec

KIND = "meta-model"
MODEL_FILE = "model.safetensors"
CANNOT_TELL = (
    "The meta-model's file does not say what its training networks look like, so that it cannot tell whether this "
    "one is of their kind: train it again with this version."
)


class Transformer(nn.Module):
    """Embedding, encoder and head (Langosco et al., Figure 1): tokens of a network in, logits of every target out."""

    def __init__(self, config: MetaModelConfig, tokens: int, outputs: int, room: Room) -> None:
        super().__init__()
        self.config = config
        self.embedding: NeuronEmbedding | LeafEmbedding | Embedding
        if config.reading == "neurons":
            self.embedding = NeuronEmbedding(config.width, config.scale)
        elif config.reading == "leaves":
            self.embedding = LeafEmbedding(config)
        else:
            self.embedding = Embedding(config.chunk_size, config.width, tokens, config.layer_encoding, config.embedding)
        self.first = nn.Parameter(torch.randn(config.width) * 0.02)
        self.encoder = Encoder(config.width, config.depth, config.heads, config.causal, config.dropout)
        dropped = DROPPED_EXACT if config.exact else DROPPED
        self.shortcut = Shortcut(summary_size(room), config.scale, config.bins, dropped) if config.summary else None
        self.thresholds = Thresholds(EXACT_SUMMARY) if config.exact else None
        self.size = config.width * (1 + (config.pooling == "extremes"))
        self.head = Head(self.size + (self.shortcut.size if self.shortcut else 0), outputs, config.hidden)
        # A head of their own: few numbers that each tell something drown among the hundreds of the other one
        self.second = Head(self.thresholds.size, outputs, config.hidden) if self.thresholds else None

    def forward(self, tokens: TokenBatch) -> Float[Tensor, "b outputs"]:
        """Logits of each target's classes, or one number of a quantity, side by side."""
        x = self.pooled(tokens)
        parts = self.parts_of(tokens)
        if self.shortcut is not None:
            x = torch.cat([x, self.shortcut(parts[0][1])], 1)
        outputs = self.head(x)
        if self.thresholds is not None and self.second is not None:
            outputs = outputs + self.second(self.thresholds(parts[-1][1]))
        return outputs

    def parts_of(self, tokens: TokenBatch) -> list[tuple[Shortcut | Thresholds, Float[Tensor, "b s"]]]:
        """What sees a part of the summary, with its part: statistics of arrays first, then of roles."""
        parts = [part for part in (self.shortcut, self.thresholds) if part is not None]
        if not parts:
            return []
        assert tokens.summary is not None
        return list(zip(parts, tokens.summary.split([part.numbers for part in parts], 1), strict=True))

    def pooled(self, tokens: TokenBatch) -> Float[Tensor, "b p"]:
        """What the encoder makes of each network, as it is pooled for the head."""
        if isinstance(self.embedding, LeafEmbedding):
            x, mask = self.embedding(tokens)
            return self.across(x, mask, tokens.padded)
        return self.across(self.embedding(tokens), tokens.mask, tokens.padded)

    def across(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"], padded: bool) -> Float[Tensor, "b p"]:
        """The same of vectors, which may be padded."""
        if self.config.pooling != "first":
            x = self.encoder(x, mask if padded else None)
            mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            if self.config.pooling == "mean":
                return mean
            return torch.cat([mean, x.masked_fill(~mask[..., None], -torch.inf).amax(1)], 1)
        learnt = self.first.expand(len(x), 1, -1)
        seen = torch.ones_like(mask[:, :1])
        if self.config.causal:
            x, mask = torch.cat([x, learnt], 1), torch.cat([mask, seen], 1)
            return self.encoder(x, mask if padded else None)[:, -1]
        x, mask = torch.cat([learnt, x], 1), torch.cat([seen, mask], 1)
        return self.encoder(x, mask if padded else None)[:, 0]


class MetaModel(Learner):
    """The paper's meta-model as a `Predictor`.

    Args:
        config: its shape, its reading of weights and its training.
        folder: where checkpoints and logs go, so that a killed `fit` goes on when it is called again; None for nowhere.
        show: whether to show a progress line.
    """

    name = "meta-model"
    model: Transformer

    def __repr__(self) -> str:
        if not self.targets:
            return "<MetaModel: not fitted>"
        asked = ", ".join(target.name for target in self.targets)
        return f"<MetaModel: reads {self.config.reading}, answers {asked}, {self.parameters:,} parameters>"

    def _repr_html_(self) -> str:
        if not self.targets:
            return card("Meta-model", {"state": "not fitted"})
        rows = [(target.name, ", ".join(map(str, target.classes)) or "a number") for target in self.targets]
        facts = {
            "reads": self.config.reading,
            "parameters": f"{self.parameters:,}",
            "networks": describe(self.specs[0]),
        }
        return card("Meta-model", facts, header=("question", "answers"), rows=rows)

    def predict(self, networks: Network | str | Path | Sequence[Network | str | Path]) -> Predictions:
        """Probabilities (n, classes) for each target, estimates (n,) for each quantity.

        Args:
            networks: networks, or files that hold one each, of any kind that `files.checkpoints` reads; a single one is
                n = 1. Arrays of other names are matched by what they do, their shapes and their order with those that
                it was trained on.
        Returns:
            for all but a `Population`, which comes from a zoo, `asking.Answers`: they also have `distance` and `notes`.
            A network that is unlike those that it was trained on is answered about, with an `UnlikeWarning`.
        Raises:
            NetworkError: if a file cannot be read, or a weight is NaN or infinite.
            ScopeError: if a network is of another architecture; a sentence with the first difference.

        >>> import weightspace as ws
        >>> model = ws.MetaModel.load(ws.EXAMPLES / "backdoor-detector.safetensors")
        >>> model.predict(ws.EXAMPLES / "example-clean.safetensors")["backdoor"].shape
        (1, 2)
        """
        if isinstance(networks, Population):
            return super().predict(self._scaled(networks))
        several = [networks] if isinstance(networks, Network | str | Path) else list(networks)
        found = [asked(one, self.specs) for one in several]
        for source, one in zip(several, found, strict=True):
            try:
                self.check_scope(one.network.spec)
            except ScopeError as error:
                where = f"{source}: " if isinstance(source, str | Path) else ""
                arrays = f"a network with arrays {describe(one.network.spec)} is out of scope"
                one_kind = one.difference and len(self.specs) == 1  # of several it is the size that decides
                raise ScopeError(f"{where}{f'{arrays}: {one.difference}' if one_kind else error}") from None
        population = self._scaled(Population.of([one.network for one in found]))
        answers = super().predict(population)
        names = [str(source) if isinstance(source, str | Path) else "" for source in several]
        return self._told(answers, population, [one.notes for one in found], names)

    def _scaled(self, population: Population) -> Population:
        """Networks as it was taught to read them."""
        return in_canonical_scale(population, self.specs[0].scalings) if self.canonical else population

    def _told(
        self, answers: Predictions, population: Population, notes: Sequence[tuple[str, ...]], names: Sequence[str]
    ) -> Answers:
        """Answers with how far each network is from those of the training; warns of those that are unlike them."""
        if self.scopes is None or not len(population):
            return Answers(answers, np.full(len(population), np.nan), tuple((*own, CANNOT_TELL) for own in notes))
        distance = self.scopes.distance(population)
        far = [int(place) for place in np.flatnonzero(distance > 1)]
        told = list(notes)
        for place in far:
            told[place] = (*told[place], self.scopes.unlike(population[place], float(distance[place])))
        if far:
            which = names[far[0]] or f"network {far[0] + 1}"
            more = f" {len(far) - 1} others of the {len(population)} are unlike them too." if len(far) > 1 else ""
            warnings.warn(f"{which}: {told[far[0]][-1]}{more}", UnlikeWarning, stacklevel=3)
        return Answers(answers, distance, tuple(told))

    def __init__(
        self, config: MetaModelConfig | None = None, *, folder: str | Path | None = None, show: bool = False
    ) -> None:
        self.config = config or MetaModelConfig()
        super().__init__(self.config.training, folder=folder, show=show)
        self.specs: tuple[NetworkSpec, ...] = ()
        self.tokens = 0
        self.facts: Mapping[str, Any] = {}
        self.known: TokenBatch | None = None
        self.permuter: Permuter | None = None
        self.scopes: Scopes | None = None
        self.canonical = False  # set by whoever taught it on networks of one spec in canonical scale

    # -- learning -----------------------------------------------------------------------------------------------------

    def build(self, training: Examples, validation: Examples) -> Transformer:
        config = self.config
        self.specs = training.networks.specs
        self.tokens = max(map(self._count, (*self.specs, *validation.networks.specs)))
        self.normaliser = Normaliser.fit(training.networks, config.normalisation == "layer", config.training.seed)
        model = Transformer(config, self.tokens, sum(self.answering.sizes), self.room)
        neurons = config.reading == "neurons"
        self.permuter = None
        if config.permute and not neurons:
            self.permuter = Permuter(self.specs, config.permutations, config.training.seed)
        if not neurons and model.shortcut is None and model.thresholds is None:
            return model
        # Not yet on the scale of the training networks, as that is taken from them
        raw = self._gathered(training.networks, self._described)
        for part, numbers in model.parts_of(raw):
            part.standardise(numbers)
        if isinstance(model.embedding, NeuronEmbedding):
            model.embedding.standardise(raw)
            # Statistics of neurons take longer than a step, and no order of neurons changes them
            self.known = model.embedding.ranked(raw)
        return model

    def fit(self, training: Examples, validation: Examples) -> MetaModel:
        try:
            super().fit(training, validation)
        finally:
            self.known = None  # it may be larger than all the networks
        self.scopes = Scopes.fit(training.networks, validation.networks)
        return self

    def settings(self) -> str:
        settings = asdict(self.config)
        for name in MAY_CHANGE_ON_RESUME:
            del settings["training"][name]
        return json.dumps([self.name, self.normaliser.to_json(), settings], sort_keys=True)

    def batch(self, training: Examples, positions: np.ndarray, generator: torch.Generator) -> TokenBatch:
        if self.known is not None:
            return self.known.select(torch.from_numpy(positions))
        return self.read(training.networks.select(positions), generator)

    @property
    def targets(self) -> tuple[Target, ...]:
        """What it answers."""
        return self.answering.targets

    # -- answering ----------------------------------------------------------------------------------------------------

    def check_scope(self, spec: NetworkSpec) -> None:
        """Raise a ScopeError unless networks with this spec can be judged.

        A meta-model trained on one spec judges that one alone: the place of a weight is what tells it apart. One
        trained on several judges every network that is no larger than the largest of them.
        """
        if spec in self.specs or (self.config.other_widths and layers_of(spec) in map(layers_of, self.specs)):
            return
        if len(self.specs) == 1 or not 0 < self._count(spec) <= self.tokens:
            chunks = self.config.reading == "chunks"
            most = f"{self.tokens * self.config.chunk_size} weights"
            most = most if chunks else f"{self.tokens} {self.config.reading}"
            raise ScopeError(
                f"a network with arrays {describe(spec)} is out of scope: this meta-model was trained on "
                f"{len(self.specs)} other architecture(s) of at most {most}; train one on such networks"
            )

    def _count(self, spec: NetworkSpec) -> int:
        """Tokens of a network."""
        if self.config.reading == "leaves":
            return len(spec.leaves)
        chunks = self.config.reading == "chunks"
        return token_count(spec.size, self.config.chunk_size) if chunks else neuron_count(spec)

    def embed(self, networks: Sequence[Network]) -> np.ndarray:
        """What the head reads of each network's tokens: a vector that says what the answers are made of.

        Returns:
            (n, width) float32, or twice as wide where extremes are pooled.
        Raises:
            NetworkError: if a weight is NaN or infinite.
            ScopeError: if a network is out of scope; of leaves none is, as a vector of any network can be made.
        """
        population = Population.of(networks)
        population.check_finite()
        for spec in population.specs if self.config.reading != "leaves" else ():
            self.check_scope(spec)
        device = choose_device(self.training.device)
        self.model.to(device).eval()
        size = self.training.batch_size
        with torch.no_grad():
            parts = [
                self.model.pooled(self.read(population[first : first + size], None).to(device)).float().cpu().numpy()
                for first in range(0, len(population), size)
            ]
        return np.concatenate(parts) if parts else np.zeros((0, self.model.size), np.float32)

    def read(self, networks: Population, generator: torch.Generator | None) -> TokenBatch:
        """Networks as one batch, each in a random order of neurons where there is a generator and a permuter."""

        def tokens(weights: Tensor, spec: NetworkSpec) -> TokenBatch:
            if generator is not None and self.permuter is not None:
                weights = self.permuter.permute(spec, weights, generator)
            return self.as_tokens(weights, spec)

        return self._gathered(networks, tokens)

    def _gathered(self, networks: Population, tokens: Callable[[Tensor, NetworkSpec], TokenBatch]) -> TokenBatch:
        parts = []
        for spec, positions in networks.groups():
            for block in np.array_split(positions, -(-len(positions) * spec.size // BLOCK)):
                parts.append((block, tokens(torch.from_numpy(networks.read(block)), spec)))
        return gather_tokens(parts)

    def as_tokens(self, weights: Float[Tensor, "b n"], spec: NetworkSpec) -> TokenBatch:
        """Flat weights (b, spec.size) as the tokens that the model reads, with gradients."""
        tokens = self._described(weights, spec)
        embedding = self.model.embedding
        return embedding.ranked(tokens) if isinstance(embedding, NeuronEmbedding) else tokens

    def _described(self, weights: Tensor, spec: NetworkSpec) -> TokenBatch:
        """The same before numbers become ranks, where they do."""
        if self.config.reading == "neurons":
            tokens = neuron_tokens(weights, spec, self.normaliser)
        elif self.config.reading == "leaves":
            tokens = leaf_tokens(weights, spec, self.normaliser, self.config.chunk_size, self.config.window)
        else:
            tokens = tokenise(weights, spec, self.normaliser, self.config.chunk_size)
        normaliser = None if self.config.exact else self.normaliser
        parts = [leaf_summary(weights, spec, normaliser, self.room)] if self.config.summary else []
        parts += [exact_summary(weights, spec)] if self.config.exact else []
        return replace(tokens, summary=torch.cat(parts, 1)) if parts else tokens

    @property
    def room(self) -> Room:
        """Arrays that a summary has room for."""
        return Room.of(len(spec.leaves) for spec in self.specs)

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, facts: Mapping[str, Any] | None = None) -> Path:
        """Write `model.safetensors` into a folder: tensors, and as metadata everything needed to use them.

        Args:
            folder: or the path of the file, if it ends so.
            facts: what else to keep, such as the zoo it was trained on; JSON-serialisable.
        """
        record = {
            "config": asdict(self.config),
            "targets": [{"name": target.name, "classes": list(target.classes)} for target in self.targets],
            "scales": [list(scale) for scale in self.answering.scales],
            "specs": [spec.to_json(scalings=True) for spec in self.specs],
            "tokens": self.tokens,
            "normaliser": self.normaliser.to_json(),
            "history": self.history.to_json(),
            "facts": dict(facts or {}),
            "canonical": self.canonical,
            "scope": None if self.scopes is None else self.scopes.to_json(),
        }
        path = Path(folder) if Path(folder).suffix == ".safetensors" else Path(folder) / MODEL_FILE
        write_model(path, KIND, self.model.state_dict(), record)
        return path

    @staticmethod
    def load(folder: str | Path) -> MetaModel:
        """Read a meta-model that `save` wrote; nothing in the file is executed.

        Raises:
            NetworkError: if there is none, or it is damaged.
        """
        path = Path(folder) / MODEL_FILE if Path(folder).is_dir() else Path(folder)
        tensors, record = read_model(path, KIND, "weightspace train ZOO")
        try:
            options = record["config"]
            training = training_of(options.pop("training"))
            loaded = MetaModel(MetaModelConfig(**options, training=training))
            targets = tuple(Target(t["name"], tuple(t["classes"])) for t in record["targets"])
            scales = record.get("scales", [(0.0, 1.0)] * len(targets))  # files of before quantities could be asked
            loaded.answering = Answering(targets, tuple((float(mean), float(spread)) for mean, spread in scales))
            loaded.specs = tuple(NetworkSpec.from_json(spec) for spec in record["specs"])
            loaded.tokens = int(record["tokens"])
            loaded.normaliser = Normaliser.from_json(record["normaliser"])
            loaded.model = Transformer(loaded.config, loaded.tokens, sum(loaded.answering.sizes), loaded.room)
            loaded.model.load_state_dict(tensors)
            loaded.facts = record["facts"]
            loaded.canonical = bool(record.get("canonical", False))  # versions before knew of no scale
            loaded.history = History(**record["history"])
            scope = record.get("scope")  # files of before say nothing of it
            loaded.scopes = None if scope is None else Scopes.from_json(scope)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise NetworkError(f"{path} is not a whole meta-model: {error}") from error
        return loaded


def layers_of(spec: NetworkSpec) -> list[tuple[str, str, int]]:
    """What networks of the same layers and other widths have in common: name, role and dimensions of each array."""
    return [(leaf.name, leaf.role, len(leaf.shape)) for leaf in spec.leaves]


def describe(spec: NetworkSpec, most: int = 4) -> str:
    """The first few arrays of a spec, for a message."""
    shown = ", ".join(f"{leaf.name} {list(leaf.shape)}" for leaf in spec.leaves[:most])
    return shown + (", ..." if len(spec.leaves) > most else "") + f" ({spec.size:,} weights)"
