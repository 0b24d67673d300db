"""A detector of backdoors in image classifiers of any architecture, with what it knows of networks near to one."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

import weightspace
from weightspace.backdoors.calibration import Calibration
from weightspace.backdoors.detector import AT_ONCE, Detector, Judgement, shares
from weightspace.backdoors.fitted import restored, stored
from weightspace.backdoors.nearness import Nearness, distances
from weightspace.backdoors.neuron_set import NeuronSet, neurons_of
from weightspace.backdoors.table import NetworkTable, read_networks
from weightspace.backdoors.table_methods import Mean, TableMethod, area
from weightspace.backdoors.verdict import Blame
from weightspace.errors import NetworkError
from weightspace.files.atomic import file_hash
from weightspace.files.checkpoints import FLOATING, Outline
from weightspace.metamodels.invariants import WHOLE_NAMES
from weightspace.train.model_file import kind_of, read_model, write_model
from weightspace.weights.layers import CHANNELS, Layer, is_chain, layers_of
from weightspace.weights.network import Network
from weightspace.weights.spec import SpecError
from weightspace.weights.state_dict import load_state_dict

GENERAL = Path(weightspace.__file__).parent / "pretrained" / "general-detector.safetensors"
KIND = "general detector"
MADE_BY = "weightspace backdoors train TABLE.npz"
LARGER = 4
"""A network may have so many times the weights of the largest that was trained on."""
NEAR = 100
"""Networks that say what one is like, and how well the detector does there."""
LEAST_AREA = 0.6
"""AUROC among near networks, of fits that had not seen them, below which the detector does not judge."""
FEWEST = 10
"""Near networks of each side below which nothing is known of how well it does."""
LEAST_SHARE = 0.6
"""Share of these that have a trait which is told."""
FALSE_ALARMS = 0.05


@dataclass(frozen=True, eq=False)
class Neighbours:
    """All networks that a general detector was made with.

    Attributes:
        places: (n, numbers) where each lies, see `Nearness.located`.
        backdoored, without: (n,) whether its backdoor works, and whether it has none.
        scores: (n,) of each by fits that had not seen it.
        p_values: (n,) the same as p-values.
        traits: by name, (n,) texts: what is known of each, such as its norm.
        kinds: shapes, see `shape_of`, of which there are many networks.
        kind: (n,) which of these each has, -1 for none.
    """

    places: np.ndarray
    backdoored: np.ndarray
    without: np.ndarray
    scores: np.ndarray
    p_values: np.ndarray
    traits: Mapping[str, Sequence[str]]
    kinds: Sequence[str]
    kind: np.ndarray

    def told(self, place: Float[np.ndarray, " k"], shape: str) -> tuple[str, bool]:
        """In a sentence: which networks are near, and how well the detector does among them; and whether that is well
        enough to judge.

        A network of a shape of which there are many is compared with these alone, any other with all others: how well
        many networks of one shape are told says nothing of another.
        """
        kind = self.kinds.index(shape) if shape in self.kinds else -1
        same = np.flatnonzero(self.kind == kind)
        near = same[np.argsort(distances(place[None], self.places[same])[0], kind="stable")[:NEAR]]
        common = []
        for name, values in self.traits.items() if len(near) else ():
            value, count = Counter(values[row] for row in near).most_common(1)[0]
            if value and count >= LEAST_SHARE * len(near):
                common.append(f"{name} {value}")
        alike = f" ({', '.join(common)})" if common else ""
        said = f"Most like it are {len(near)} networks that the general detector was made with{alike}"
        bad, good = near[self.backdoored[near]], near[self.without[near]]
        if min(len(bad), len(good)) < FEWEST:
            return f"{said}; too few of them have a backdoor, or none, to say how well it does there.", False
        found, alarms = (np.mean(self.p_values[rows] <= FALSE_ALARMS) for rows in (bad, good))
        reached = area(self.scores[bad], self.scores[good])
        text = (
            f"{said}: with the limit at {FALSE_ALARMS:.0%} it finds {found:.0%} of the {len(bad)} backdoors that "
            f"work among them, and calls {alarms:.0%} of the {len(good)} others suspicious (AUROC {reached:.2f})."
        )
        return text, reached >= LEAST_AREA


@dataclass(eq=False)
class GeneralDetector:
    """Several fits of one method, each on all networks but a part, and the calibration by the parts left out.

    Attributes:
        fits: the k-th has not seen the networks of part k.
        nearness: the networks without backdoor, by which p-values are made.
        calibration: of the mean of all fits, to a probability.
        neighbours: all networks.
        largest: weights of the largest.
        card: what it was made of and how well it does, for people; the same facts as `Detector.card`.
    """

    fits: Sequence[TableMethod]
    nearness: Nearness
    calibration: Calibration
    neighbours: Neighbours
    largest: int
    card: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<GeneralDetector of backdoors in {self.card.get('architecture', 'image classifiers')}>"

    def matched(self, found: Outline) -> tuple[str, ...]:
        """Names of the arrays that make up an image classifier: a chain of convolutions, and dense layers at its end.

        Raises:
            NetworkError: if the file holds something else, or more than was ever trained on; a sentence.
        """
        floating = found.floating
        total, most = sum(map(prod, floating.values())), LARGER * self.largest
        packed = sum(prod(shape) for name, shape in found.shapes.items() if found.dtypes[name] not in FLOATING)
        if packed > total:
            raise NetworkError("its weights are quantised or packed, which this detector does not read")
        if total > most:
            raise NetworkError(f"it has {total:,} weights, and networks of more than {most:,} were never trained on")
        if sum(len(shape) == 4 for shape in floating.values()) < 2:
            raise NetworkError("it has no two convolutions of images, and other networks were never trained on")
        return tuple(floating)

    def network(self, arrays: Mapping[str, np.ndarray]) -> Network:
        """A file's arrays as a network that can be judged.

        Raises:
            NetworkError: if they make no chain of convolutions that begins at an image and ends at classes.
        """
        try:
            network = load_state_dict(arrays)
        except SpecError as error:  # arrays of a readable file that make up no network
            raise NetworkError(str(error)) from None
        layers = layers_of(network)
        if len(layers[-1].kernel) < 2:
            raise NetworkError("it answers one number, and networks of fewer than two classes were never trained on")
        if not is_chain(layers):
            raise NetworkError(
                "its layers do not read one another one by one, beginning with an image of at most "
                f"{CHANNELS} channels, and networks with branches were never trained on"
            )
        known = [int(text) for text in self.neighbours.traits.get("convolutions", ()) if text.isdigit()]
        depth = sum(leaf.role == "kernel" and len(leaf.shape) == 4 for leaf in network.spec.leaves)
        if known and not min(known) - 1 <= depth <= max(known) + 1:
            raise NetworkError(
                f"it has {depth} convolutions, and the networks that this detector was made with have {min(known)} to "
                f"{max(known)}"
            )
        return network

    def judge(self, networks: Sequence[Network]) -> list[Judgement]:
        """Each network alone; those far from the networks it was made with too, by their distance.

        Raises:
            NetworkError: if a weight is NaN or infinite, or a network has no layers that can be told apart.
        """
        found: list[Judgement] = []
        for first in range(0, len(networks), AT_ONCE):
            found += self._judge(networks[first : first + AT_ONCE])
        return found

    def _judge(self, networks: Sequence[Network]) -> list[Judgement]:
        for network in networks:
            network.check_finite()
        table = read_networks(networks, {"attack": ["unknown"] * len(networks)}, ways=("invariants",))
        found = []
        for row, (network, said) in enumerate(zip(networks, self.judge_table(table), strict=True)):
            layers, neurons = self._blame(table.select(np.array([row])), layers_of(network))
            found.append(replace(said, layers=layers, neurons=neurons))
        return found

    def judge_table(self, table: NetworkTable) -> list[Judgement]:
        """Each network of a table that keeps neurons, as `judge`, without blame."""
        said = np.stack([fit.scores(table) for fit in self.fits], 1)
        score = said.mean(1)
        p_values, far = self.nearness.p_values(table, said), self.nearness.distance(table)
        probability, places = self.calibration.probability(score), self.nearness.located(table)
        shapes = shapes_of(table)
        found = []
        for row in range(len(table)):
            numbers = (float(score[row]), float(probability[row]), float(p_values[row]), float(far[row]))
            near, competent = self.neighbours.told(places[row], shapes[row])
            found.append(Judgement(*numbers, layers=(), neurons=(), near=near, competent=competent))
        return found

    def _blame(self, one: NetworkTable, layers: Sequence[Layer]) -> tuple[tuple[Blame, ...], tuple[Blame, ...]]:
        """Which layers and neurons of one network raise the answer of the readers of neurons, to first order: the
        gradient times how far each neuron is from the median one."""
        sets = [part for fit in self.fits if isinstance(fit, Mean) for part in fit.parts if isinstance(part, NeuronSet)]
        if not sets:
            return (), ()
        of_neurons = np.mean([part.blame(one) for part in sets], axis=0)
        amounts: dict[str, float] = {}
        by_layer: dict[str, float] = {}
        start = 0
        for layer in layers:
            own = of_neurons[start : start + len(layer.kernel)]
            start += len(layer.kernel)
            last = layer is layers[-1]
            for number, amount in enumerate(own):
                amounts[f"class {number}" if last else f"{layer.name}[{number}]"] = float(amount)
            by_layer[layer.name] = float(own.sum())
        return shares(by_layer), shares(amounts)

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file."""
        arrays: dict[str, np.ndarray] = {}
        methods = []
        for number, fit in enumerate(self.fits):
            own, facts = stored(fit)
            arrays |= {f"fit/{number}/{name}": array for name, array in own.items()}
            methods.append(facts)
        near, all_of = self.nearness, self.neighbours
        arrays |= {"near/knots": near.knots, "near/places": near.places.astype(np.float32), "near/scores": near.scores}
        arrays |= {"near/fits": near.fits.astype(np.int32), "all/places": all_of.places.astype(np.float16)}
        arrays |= {"all/backdoored": all_of.backdoored.astype(np.uint8), "all/without": all_of.without.astype(np.uint8)}
        arrays["all/p_values"] = all_of.p_values.astype(np.float32)
        arrays["all/scores"] = all_of.scores.astype(np.float32)
        arrays["all/kind"] = all_of.kind.astype(np.int32)
        facts = {"fits": methods, "limit": near.limit, "calibration": self.calibration.to_json(), "card": self.card}
        facts |= {
            "kinds": list(all_of.kinds),
            "largest": self.largest,
            "traits": {name: list(values) for name, values in all_of.traits.items()},
        }
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        write_model(Path(path), KIND, tensors, {"facts": facts})
        return Path(path)

    def digest(self) -> str:
        """A hash of everything by which it judges."""
        with tempfile.TemporaryDirectory() as folder:
            return file_hash(self.save(Path(folder) / "general.safetensors"))

    @staticmethod
    def load(path: str | Path | None = None) -> GeneralDetector:
        """Read what `save` has written, or the one that comes with the package; nothing in it is executed.

        Raises:
            NetworkError: if there is none, or it is something else.
        """
        tensors, record = read_model(GENERAL if path is None else Path(path), KIND, MADE_BY)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        try:
            facts = record["facts"]
            fits = []
            for number, method in enumerate(facts["fits"]):
                start = f"fit/{number}/"
                own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
                fits.append(restored(own, method))
            places, scores = arrays["near/places"].astype(np.float64), arrays["near/scores"].astype(np.float64)
            knots, numbers = arrays["near/knots"].astype(np.float64), arrays["near/fits"].astype(np.int64)
            near = Nearness(knots, places, scores, numbers, float(facts["limit"]))
            flags = (arrays["all/backdoored"] != 0, arrays["all/without"] != 0)
            traits = {str(name): [str(value) for value in values] for name, values in facts["traits"].items()}
            said = (arrays["all/scores"].astype(np.float64), arrays["all/p_values"].astype(np.float64))
            kinds = ([str(shape) for shape in facts["kinds"]], arrays["all/kind"].astype(np.int64))
            all_of = Neighbours(arrays["all/places"].astype(np.float64), *flags, *said, traits, *kinds)
            calibration = Calibration.from_json(facts["calibration"])
            detector = GeneralDetector(fits, near, calibration, all_of, int(facts["largest"]), dict(facts["card"]))
            detector.check()
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            if isinstance(error, NetworkError):
                raise
            raise NetworkError(f"{path} is a damaged {KIND} ({error}): train one with `{MADE_BY}`") from None
        return detector

    def check(self) -> None:
        """That its parts belong together.

        Raises:
            NetworkError: if they do not.
        """
        near, all_of = self.nearness, self.neighbours
        n, k = near.places.shape
        columns = (all_of.places, all_of.p_values, all_of.scores, all_of.kind, *all_of.traits.values())
        counts = {len(column) for column in columns}
        alike = (n,) == near.scores.shape == near.fits.shape and all_of.places.shape[1] == k == near.knots.shape[1]
        known = ((near.fits >= 0) & (near.fits < len(self.fits))).all()
        if not alike or not known or len(counts) != 1 or not n:
            raise NetworkError(f"the networks of a {KIND} do not belong to its fits: train one with `{MADE_BY}`")


def shapes_of(table: NetworkTable) -> list[str]:
    """What the arrays of each network of a table show of its architecture: neurons of each layer, classes, channels of
    the image, and which share of the layers is normalised.

    Raises:
        NetworkError: if the table keeps no neurons.
    """
    found = []
    for one in neurons_of(table):
        sizes = "-".join(str(len(layer)) for layer in (*one.neurons, one.classes))
        channels, normalised, batch = (one.whole[WHOLE_NAMES.index(n)] for n in ("channels", "normalised", "batch"))
        found.append(f"{sizes}, {channels:.0f} channels, {normalised:.2f} normalised, {batch:.0f} batch")
    return found


def detectors_for(given: Detector | GeneralDetector | str | Path | None) -> tuple[Detector, GeneralDetector | None]:
    """A detector for one architecture and a general one: what is given, and for the other kind what is shipped.

    Raises:
        NetworkError: if a file is neither.
    """
    if isinstance(given, str | Path):
        given = GeneralDetector.load(given) if kind_of(Path(given)) == KIND else Detector.load(given)
    shipped = GeneralDetector.load() if GENERAL.is_file() and not isinstance(given, GeneralDetector) else None
    if isinstance(given, GeneralDetector):
        return Detector.load(), given
    return given or Detector.load(), shipped
