"""A trained reader of what networks were trained on: calibrated, with its scope, in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.errors import NetworkError, ScopeError
from weightspace.metamodels.asking import asked
from weightspace.metamodels.baselines.queries import Asked, Asking
from weightspace.metamodels.contract import Examples, Target
from weightspace.metamodels.learner import Answering
from weightspace.provenance.methods import PROBES
from weightspace.provenance.questions import OUTPUT, asked_targets, check_enough, provenance_examples, question_of
from weightspace.provenance.set_reader import Answered, ProbeNetwork, SetReader, SetReaderConfig
from weightspace.provenance.stacked import stacked_answers
from weightspace.provenance.typicality import Typicality
from weightspace.threads import one_thread
from weightspace.train.model_file import read_model, training_of, write_model
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.zoo.networks import named_arrays, spec_of
from weightspace.zoo.records import Architecture
from weightspace.zoo.store import Zoo

KIND = "provenance-reader"
MADE_BY = "weightspace provenance train"
BATCH = 128
FEW = 40
"""Validation networks below which they are not halved: a p-value of 5% takes nineteen."""
NAMES: Mapping[str, tuple[str, ...]] = {
    "fashion-mnist": (
        *("T-shirt", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "cifar10-jpeg": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
"""What the classes of image sets are called, where they have names."""


@dataclass(frozen=True, eq=False)
class ProvenanceReader:
    """Readers by learnt probes that answer together, and what their answers are worth.

    Attributes:
        fits: of one zoo, with seeds of their own.
        architectures: of the networks that they were trained on, as JSON records.
        images: the image set of these, and `classes` what its classes are called.
        temperature: by which log-odds are divided, so that probabilities are calibrated on validation networks.
        typicality: how far networks of the zoo lie from each other.
        facts: figures of the card.
    """

    fits: tuple[SetReader, ...]
    architectures: tuple[dict[str, Any], ...]
    images: str
    classes: tuple[str, ...]
    temperature: float
    typicality: Typicality
    facts: Mapping[str, Any]

    @staticmethod
    @one_thread()
    def train(zoo: Zoo, *, fits: int = 3, config: SetReaderConfig = PROBES, show: bool = False) -> ProvenanceReader:
        """Train readers on a zoo's training networks, and calibrate them on its validation networks.

        Half of these say when training stops, the other half how far a network of the zoo may lie from the training
        networks: what chose a reader lies nearer to it than what comes later. Of fewer than 40 all do both.

        Raises:
            TaskError: if the zoo's networks differ in no choice of classes, or there are too few.
        """
        question = question_of(zoo)
        training, validation = (
            provenance_examples(zoo, split, question, outputs=True) for split in ("train", "validation")
        )
        check_enough(training)
        readers = tuple(SetReader(config, seed=seed, show=show) for seed in range(fits))
        rows = np.arange(len(validation))
        halves = (rows[::2], rows[1::2]) if len(rows) >= FEW else (rows, rows)
        chooses, calibrates = (validation.select(half) for half in halves)
        for one in readers:
            one.fit(training, chooses)
        records = {str(record): record for record in (n.metadata["architecture"] for n in training.networks)}
        images = str(zoo.description["config"]["images"])
        count = len(asked_targets(training.targets))
        names = NAMES.get(images, tuple(map(str, range(count))))
        blank = Typicality(*(np.zeros(shape) for shape in ((1,), (1, 1), (1, 1), (1,))))
        raw = ProvenanceReader(readers, tuple(records.values()), images, names, 1.0, blank, {})
        temperature = 1.0 if question == "proportions" else _temperature(raw, calibrates)
        known, others = (raw.described(examples.networks) for examples in (training, calibrates))
        scope = Typicality.of(known, _standing(training, [len(one) for one in known]), others)
        facts = {
            "recipe": zoo.description["config"]["recipe"],
            "question": question,
            "networks": [len(training), len(validation)],
            "image_size": zoo.description["config"]["image_size"],
        }
        return replace(raw, temperature=temperature, typicality=scope, facts=facts)

    @property
    def targets(self) -> tuple[Target, ...]:
        """What it answers, a target for each class of the image set."""
        return asked_targets(self.fits[0].answering.targets)

    # -- answering -----------------------------------------------------------------------------------------------------

    def outputs(self, networks: Population) -> Float[np.ndarray, "n k"]:
        """Calibrated probability of each class, or its estimated share, of networks that say their architecture."""
        tables = []
        for one in self.fits:
            said = one.predict(networks)
            if self.targets[0].is_quantity:
                tables.append(np.stack([said[target.name] for target in self.targets], 1))
                continue
            odds = [said[target.name] for target in self.targets]
            tables.append(np.stack([np.log(p[:, 1] + 1e-12) - np.log(p[:, 0] + 1e-12) for p in odds], 1))
        mean = np.mean(tables, 0)
        if self.targets[0].is_quantity:
            shares = np.clip(mean, 0, None)
            return shares / np.maximum(shares.sum(1, keepdims=True), 1e-12)
        return 1 / (1 + np.exp(-mean / self.temperature))

    def described(self, networks: Population) -> list[Float[np.ndarray, "_ d"]]:
        """What tells whether a network is of the kind that it knows: of each of its outputs the answers to the probes,
        what the reader makes of them, and the size of the network's answers."""
        found: list[np.ndarray] = []
        with torch.no_grad():
            for start in range(0, len(networks), BATCH):
                part = networks.select(np.arange(start, min(start + BATCH, len(networks))))
                found += _descriptions(self.fits[0], Asking(part).batch(np.arange(len(part))))
        return found

    def class_of_outputs(self, network: Network) -> tuple[str, ...]:
        """Which class each output stands for, each class at most once, as far as the reader can tell."""
        from scipy.optimize import linear_sum_assignment

        total = 0.0
        asked_of = Asking(Population.of([network])).batch(np.zeros(1, np.int64))
        with torch.no_grad():
            for one in self.fits:
                model = _probes(one)
                ((tokens, _),) = model.tokens(asked_of)
                said = model.head.each(model.head.inner(tokens))[0]  # (outputs, classes)
                total = total + said.double().log_softmax(1).numpy()
        rows, columns = linear_sum_assignment(np.asarray(total), maximize=True)
        found = dict(zip(rows.tolist(), columns.tolist(), strict=True))
        return tuple(self.classes[found[i]] if i in found else "none" for i in range(len(np.asarray(total))))

    def network(self, source: Network | str | Path) -> tuple[Network, tuple[str, ...]]:
        """A network as the readers are to run it, and what a person should know of how it was read.

        Raises:
            NetworkError: if it cannot be read.
            ScopeError: if it is of an architecture that the reader does not know; it says the first difference.
        """
        known = {spec_of(Architecture.from_json(record)): record for record in reversed(self.architectures)}
        found = asked(source, tuple(known))
        record = known.get(found.network.spec)
        if record is None:
            said = f": {found.difference}" if found.difference else ""
            raise ScopeError(
                f"{source if isinstance(source, str | Path) else 'the network'} is none of the {len(known)} "
                f"architectures that this reader was trained on{said}. Train one on networks like it: {MADE_BY} ZOO"
            )
        found.network.check_finite()
        own = found.network.metadata.get("architecture")
        facts = {"architecture": own if own in self.architectures else record}
        return Network(found.network.spec, found.network.weights, facts), found.notes

    # -- its file ------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file."""
        tensors: dict[str, Tensor] = {}
        for number, one in enumerate(self.fits):
            tensors |= {f"fit{number}.{name}": value for name, value in one.model.state_dict().items()}
        tensors |= {f"typicality.{name}": torch.from_numpy(v) for name, v in vars(self.typicality).items()}
        first = self.fits[0]
        record = {
            "config": {**asdict(first.config), "training": asdict(first.training)},
            "targets": [asdict(target) for target in self.fits[0].answering.targets],
            "scales": [[list(scale) for scale in one.answering.scales] for one in self.fits],
            "architectures": list(self.architectures),
            "images": self.images,
            "classes": list(self.classes),
            "temperature": self.temperature,
            "facts": dict(self.facts),
        }
        write_model(Path(path), KIND, tensors, record)
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> ProvenanceReader:
        """Read a file that `save` wrote; nothing in it is executed.

        Raises:
            NetworkError: if it is missing, damaged or something else.
        """
        tensors, record = read_model(Path(path), KIND, MADE_BY)
        try:
            config = SetReaderConfig(**{**record["config"], "training": training_of(record["config"]["training"])})
            targets = tuple(Target(one["name"], tuple(one["classes"])) for one in record["targets"])
            shape = Architecture.from_json(record["architectures"][0]).input_shape
            fits = []
            for number, scales in enumerate(record["scales"]):
                answering = Answering(targets, tuple((float(a), float(b)) for a, b in scales))
                model = ProbeNetwork(config, shape, Answered.by(answering))
                prefix = f"fit{number}."
                own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                model.load_state_dict(own)
                one = SetReader(config, seed=number)
                one.answering, one.model = answering, model.eval()
                fits.append(one)
            scope = Typicality(
                *(tensors[f"typicality.{name}"].numpy() for name in ("centre", "basis", "places", "away"))
            )
            size = config.width + config.probes + 1  # of what describes an output
            shapes = scope.centre.shape, scope.basis.shape, scope.places.shape[1:], scope.away.shape[1:]
            if shapes != ((size,), (size, size), (size,), ()):
                raise ValueError("its typicality is of an earlier version: train it again")
            return ProvenanceReader(
                tuple(fits),
                tuple(record["architectures"]),
                str(record["images"]),
                tuple(record["classes"]),
                float(record["temperature"]),
                scope,
                record["facts"],
            )
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise NetworkError(f"{path} is no whole {KIND}: {error}") from None


def _probes(one: SetReader) -> ProbeNetwork:
    assert isinstance(one.model, ProbeNetwork), "a reader that is kept asks networks"
    return one.model


def _descriptions(one: SetReader, asked_of: Asked) -> list[np.ndarray]:
    """(outputs, d) of each network in the order of the batch; the last number is the logarithm of its answers' size."""
    model = _probes(one)
    found: dict[int, np.ndarray] = {}
    for (tokens, places), (module, spec, weights, _) in zip(model.tokens(asked_of), asked_of.parts, strict=True):
        logits = stacked_answers(module, named_arrays(spec, weights), model.inputs())
        size = (logits - logits.mean(2, keepdim=True)).square().mean((1, 2)).clamp(min=1e-20).log()
        sizes = size[:, None, None].expand(-1, tokens.shape[1], 1)
        rows = torch.cat([model.head.inner(tokens), tokens, sizes], 2).double().numpy()
        found |= dict(zip(places.tolist(), rows, strict=True))
    return [found[place] for place in sorted(found)]


def _standing(training: Examples, counts: Sequence[int]) -> np.ndarray:
    """What each output of the training networks stands for, one network after the other; -1 for nothing.

    Args:
        counts: how many outputs each network has.
    """
    names = [target.name for target in training.targets if target.name.startswith(f"{OUTPUT} ")]
    table = np.stack([training.labels[name] for name in names], 1)
    return np.concatenate(
        [
            np.pad(row, (0, max(0, count - len(row))), constant_values=-1)[:count]
            for row, count in zip(table, counts, strict=True)
        ]
    )


def _temperature(raw: ProvenanceReader, validation: Examples) -> float:
    """The number by which log-odds are divided so that the validation networks' labels are likeliest."""
    chances = raw.outputs(validation.networks)
    odds = np.log(chances + 1e-12) - np.log(1 - chances + 1e-12)
    truth = np.stack([validation.labels[target.name] for target in raw.targets], 1)
    steps: Sequence[float] = np.geomspace(0.2, 5, 101).tolist()

    def loss(temperature: float) -> float:
        return float(np.logaddexp(0, np.where(truth == 1, -odds, odds) / temperature).mean())

    return min(steps, key=loss)
