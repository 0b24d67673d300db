"""Where backdoors sit: neurons blamed against neurons removed, and repairs that remove or edit neurons side by side."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from weightspace.backdoors.detector import Detector
from weightspace.backdoors.editor import Editor
from weightspace.backdoors.localiser import Localiser
from weightspace.backdoors.recipes import neuron_metamodel
from weightspace.backdoors.trials import Bench, Trial, hidden_neurons, poison_of, pruned
from weightspace.errors import TaskError
from weightspace.evaluation.metrics import Interval, bootstrap_interval
from weightspace.evaluation.tables import markdown_table
from weightspace.files.atomic import write_atomically
from weightspace.files.progress import progress
from weightspace.train.checkpoint import bind
from weightspace.weights.neurons import group_starts, neuron_entries
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec
from weightspace.zoo.plan import ZooConfig
from weightspace.zoo.poison import ATTACKS, CLEAN, Poison
from weightspace.zoo.store import Zoo

WORKS = 0.5
"""Success from which a network's backdoor is worth looking for."""
REMOVED = (1, 2, 3, 5, 8)
"""How many neurons are removed."""
COST = 0.02
"""Accuracy that a repair may cost, on average of the validation networks by which its setting is chosen."""


@dataclass(frozen=True, eq=False)
class Case:
    """A backdoored network with its attack and the effect of each of its neurons.

    Attributes:
        network: its number in the zoo.
        flat: (size,) weights.
        effects: (neurons,) see `Bench.effects`.
    """

    network: int
    flat: np.ndarray
    poison: Poison
    effects: np.ndarray


@dataclass(frozen=True, kw_only=True)
class RepairConfig:
    """How many networks, and on how many images.

    Attributes:
        training, validation, test: backdoored networks of each split, at most.
        images: on which each neuron's effect is measured.
        tried: images on which repairs are scored.
        pairs: clean networks finetuned on poison, for the editor.
        steps: of training of the localiser and of the editor.
    """

    training: int = 240
    validation: int = 40
    test: int = 100
    images: int = 80
    tried: int = 500
    pairs: int = 240
    steps: int = 600
    clean_images: int = 100


def cases(zoo: Zoo, bench: Bench, split: str, count: int, images: int, folder: Path, last: bool = False) -> list[Case]:
    """Backdoored networks of a split whose attack works, with the effects of their neurons; killed, it goes on.

    Args:
        last: measure the effects on other images, the last ones instead of the first.
    """
    networks = zoo.population(split)
    columns = {name: zoo.column(name)[networks.rows] for name in ("network", "attack", "poison_rate", "alpha")}
    columns |= {name: zoo.column(name)[networks.rows] for name in ("target", "seed", "attack_success")}
    success = columns["attack_success"].astype(float)
    chosen = np.flatnonzero(np.isin(columns["attack"], list(ATTACKS)) & (success >= WORKS))[:count]
    found = []
    with progress(f"removing neurons, {split}", len(chosen), "networks", True) as advance:
        for row in chosen.tolist():
            facts = {name: values[row] for name, values in columns.items()}
            poison, flat = poison_of(facts), networks[row].weights
            path = folder / "effects" / f"{int(facts['network']):06d}-{images}{'-last' * last}.json"
            if not path.exists():
                effects = bench.effects(flat, bench.trial(poison, images, last=last))
                known = [None if np.isnan(e) else float(e) for e in effects]
                write_atomically(path, json.dumps(known).encode())
            effects = np.array([np.nan if e is None else e for e in json.loads(path.read_text())])
            found.append(Case(int(facts["network"]), flat, poison, effects))
            advance(1)
    return found


# -- where ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocationRow:
    """How well a method names the neurons of backdoors, on test networks, with 95% intervals over networks.

    Attributes:
        area: AUROC of neurons whose removal lowers success by at least 0.1 against the others, mean over networks that
            have both.
        first: how often the neuron named first is among the three with the largest effect.
        success, accuracy: after removing the three that are named first.
        target: how often the attack's class is named; None where the method names none.
    """

    method: str
    networks: int
    area: Interval
    first: Interval
    success: Interval
    accuracy: Interval
    target: Interval | None


def train_localiser(zoo: Zoo, bench: Bench, detector: Detector, folder: Path, config: RepairConfig) -> Localiser:
    """A per-neuron head on the detector's reader, taught by removing neurons of training networks."""
    training = cases(zoo, bench, "train", config.training, config.images, folder)
    validation = cases(zoo, bench, "validation", config.validation, config.images, folder)
    settings = neuron_metamodel(steps=config.steps)
    localiser = Localiser(settings, start=detector.model, folder=folder / "localiser")
    return localiser.fit(*_taught(bench.spec, training), *_taught(bench.spec, validation))


def _taught(spec: NetworkSpec, found: Sequence[Case]) -> tuple[Population, np.ndarray, np.ndarray]:
    targets = np.array([case.poison.target for case in found])
    return (
        Population.of_weights(spec, [case.flat for case in found]),
        np.stack([case.effects for case in found]),
        targets,
    )


def locate(
    zoo: Zoo, bench: Bench, detector: Detector, localiser: Localiser, folder: Path, config: RepairConfig
) -> list[LocationRow]:
    """Every method on the test networks: what their neurons are thought to do, against what removing them does."""
    found = cases(zoo, bench, "test", config.test, config.images, folder)
    again = cases(zoo, bench, "test", config.test, config.images, folder, last=True)
    networks = Population.of_weights(bench.spec, [case.flat for case in found])
    taught, target = localiser.locate(networks)
    blamed, classes = detector.neuron_blame(networks)
    rng = np.random.default_rng(0)
    methods: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "removal itself, on other images": (np.stack([case.effects for case in again]), None),
        "per-neuron head": (taught, target.argmax(1)),
        "gradients of the detector": (blamed, classes.argmax(1)),
        "channel Lipschitz bound": (np.stack([lipschitz(bench.spec, case.flat) for case in found]), None),
        "random": (rng.random((len(found), len(found[0].effects))), None),
    }
    trials = [bench.trial(case.poison, config.tried, last=True) for case in found]
    return [_location(name, said, named, found, trials, bench) for name, (said, named) in methods.items()]


def _location(
    name: str, said: np.ndarray, named: np.ndarray | None, found: Sequence[Case], trials: Sequence[Trial], bench: Bench
) -> LocationRow:
    from sklearn.metrics import roc_auc_score

    hidden = hidden_neurons(bench.spec)
    areas, firsts, after = [], [], []
    for case, values, trial in zip(found, said[:, hidden], trials, strict=True):
        effects = case.effects[hidden]
        guilty = effects >= 0.1
        if guilty.any() and not guilty.all():
            areas.append(float(roc_auc_score(guilty, values)))
        order = np.argsort(-values, kind="stable")
        firsts.append(float(order[0] in np.argsort(-effects, kind="stable")[:3]))
        after.append(bench.scores(pruned(bench.spec, case.flat, hidden[order[:3]].tolist())[None], trial))
    accuracy, success = (np.array([part[i][0] for part in after]) for i in (0, 1))
    right = (
        None if named is None else np.array([c.poison.target == n for c, n in zip(found, named, strict=True)], float)
    )
    return LocationRow(
        name,
        len(found),
        bootstrap_interval(np.array(areas), seed=0),
        bootstrap_interval(np.array(firsts), seed=0),
        bootstrap_interval(success, seed=0),
        bootstrap_interval(accuracy, seed=0),
        None if right is None else bootstrap_interval(right, seed=0),
    )


def lipschitz(spec: NetworkSpec, flat: np.ndarray) -> np.ndarray:
    """How much each neuron can raise what follows, against the other neurons of its layer, without any data.

    Channel Lipschitz pruning (Zheng et al. 2022) takes the largest singular value of the weights by which a channel
    reads, times what the normalisation after it multiplies by. LayerNorm divides all channels of a place by one number,
    which drops out when a channel is compared with its layer; its scale stays.

    Returns:
        (neurons,) standard deviations above the layer's mean; NaN for inputs and outputs.
    """
    starts = group_starts(spec)
    bounds, scales = np.full(starts[-1], np.nan), np.ones(starts[-1])
    for group, role, reads, places in neuron_entries(spec):
        rows = slice(starts[group], starts[group + 1])
        if role == "kernel" and reads:
            bounds[rows] = [np.linalg.norm(flat[own], 2) for own in places]
        elif role == "scale":
            scales[rows] = np.abs(flat[places[:, 0, 0]])
    bounds *= scales
    for number, group in enumerate(spec.groups):
        rows = slice(starts[number], starts[number + 1])
        inner = bounds[rows]
        bounds[rows] = (inner - inner.mean()) / max(float(inner.std()), 1e-12) if group.permutable else np.nan
    return bounds


# -- taking it out ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RepairRow:
    """What a repair leaves, on test networks whose attack worked, with 95% intervals over networks.

    Attributes:
        setting: chosen on validation networks: the lowest success for at most `COST` of accuracy on average.
        success_before, accuracy_before, success, accuracy: mean before and after.
        gone: median over networks of the share of success that is gone.
        lost: median over networks of the accuracy that is lost.
    """

    repair: str
    setting: str
    networks: int
    success_before: float
    accuracy_before: float
    success: Interval
    accuracy: Interval
    gone: float
    lost: float


Repair = Callable[[np.ndarray], np.ndarray]
"""Weights (size,) of a network to weights of a repaired one."""


def repairs(
    bench: Bench, detector: Detector, localiser: Localiser, editor: Editor, config: RepairConfig
) -> Mapping[str, Mapping[str, Repair]]:
    """Every kind of repair with its settings. None of them sees the trigger, the target or a poisoned image."""
    spec, hidden = bench.spec, hidden_neurons(bench.spec)

    def cut(values: np.ndarray, flat: np.ndarray, count: int) -> np.ndarray:
        return pruned(spec, flat, hidden[np.argsort(-values[hidden], kind="stable")[:count]].tolist())

    def taught(flat: np.ndarray, count: int) -> np.ndarray:
        return cut(localiser.locate(Population.of_weights(spec, [flat]))[0][0], flat, count)

    def blamed(flat: np.ndarray, count: int) -> np.ndarray:
        return cut(detector.neuron_blame(Population.of_weights(spec, [flat]))[0][0], flat, count)

    def bounded(flat: np.ndarray, u: float) -> np.ndarray:
        values = lipschitz(spec, flat)
        return pruned(spec, flat, [n for n in hidden.tolist() if values[n] > u])

    def tuned(flat: np.ndarray, rate: float) -> np.ndarray:
        return bench.finetuned(flat, count=config.clean_images, epochs=20, rate=rate, seed=7)

    def half(flat: np.ndarray, share: float) -> np.ndarray:
        return (flat + share * (editor.edit(flat[None])[0] - flat)).astype(np.float32)

    rates, counts, bounds = (3e-4, 1e-3, 3e-3, 1e-2), REMOVED, (1.5, 2.0, 2.5, 3.0, 4.0)
    return {
        "nothing": {"": lambda flat: flat},
        "finetuning on 1% clean images": {f"rate {r:g}": lambda flat, r=r: tuned(flat, r) for r in rates},
        "channel Lipschitz pruning, no data": {f"u {u:g}": lambda flat, u=u: bounded(flat, u) for u in bounds},
        "pruning by gradients of the detector": {f"{k} neurons": lambda flat, k=k: blamed(flat, k) for k in counts},
        "pruning by the per-neuron head": {f"{k} neurons": lambda flat, k=k: taught(flat, k) for k in counts},
        "the same, then finetuning on 1% clean images": {
            f"{k} neurons, rate {r:g}": lambda flat, k=k, r=r: tuned(taught(flat, k), r)
            for k in counts
            for r in (1e-3, 3e-3)
        },
        "weights to weights": {
            f"{share:g} of the change": lambda flat, s=share: half(flat, s) for share in (0.5, 1.0, 2.0)
        },
    }


def repair(
    found: Sequence[Case], held: Sequence[Case], bench: Bench, kinds: Mapping[str, Mapping[str, Repair]], tried: int
) -> list[RepairRow]:
    """Choose every repair's setting on the validation networks `held`, and score it on the test networks `found`."""
    rows = []
    before = _scores(found, bench, lambda flat: flat, tried)
    held_before = _scores(held, bench, lambda flat: flat, tried)
    with progress("repairing", len(kinds), "repairs", True) as advance:
        for name, settings in kinds.items():
            chosen, best = next(iter(settings)), np.inf
            for setting, fix in settings.items() if len(settings) > 1 else ():
                accuracy, success = _scores(held, bench, fix, tried)
                cost = float((held_before[0] - accuracy).mean())
                # those that cost too much stand behind all others, the cheapest first
                rank = float(success.mean()) if cost <= COST else 10 + cost
                if rank < best:
                    chosen, best = setting, rank
            accuracy, success = _scores(found, bench, settings[chosen], tried)
            rows.append(
                RepairRow(
                    name,
                    chosen,
                    len(found),
                    float(before[1].mean()),
                    float(before[0].mean()),
                    bootstrap_interval(success, seed=0),
                    bootstrap_interval(accuracy, seed=0),
                    float(np.median(1 - success / np.maximum(before[1], 1e-9))),
                    float(np.median(before[0] - accuracy)),
                )
            )
            advance(1, note=name)
    return rows


def _scores(found: Sequence[Case], bench: Bench, fix: Repair, tried: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and success (n,) after a repair."""
    scores = [bench.scores(fix(case.flat)[None], bench.trial(case.poison, tried, last=True)) for case in found]
    return np.array([a[0] for a, _ in scores]), np.array([s[0] for _, s in scores])


def train_editor(zoo: Zoo, bench: Bench, folder: Path, config: RepairConfig) -> Editor:
    """A weights-to-weights meta-model, taught by clean networks of the training split that were finetuned on poison."""
    after, before = _pairs(zoo, bench, "train", config.pairs, folder)
    held_after, held_before = _pairs(zoo, bench, "validation", max(8, config.pairs // 8), folder)
    settings = neuron_metamodel(steps=config.steps, dropout=0.1)
    settings = replace(settings, training=replace(settings.training, batch_size=16))
    return Editor(settings, folder=folder / "editor").fit(bench.spec, after, before, held_after, held_before)


def _pairs(zoo: Zoo, bench: Bench, split: str, count: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Weights (count, size) of clean networks after two epochs on 2,000 images, a tenth poisoned, and before."""
    networks = zoo.population(split)
    clean = np.flatnonzero(zoo.column("attack")[networks.rows] == CLEAN)
    first = 1_000_003 * ["train", "validation", "test"].index(split)  # no trigger is seen on both sides
    names, rng = sorted(ATTACKS), np.random.default_rng([first, 5])
    before, after = [], []
    with progress(f"finetuning on poison, {split}", count, "networks", True) as advance:
        for number in range(count):
            flat = networks[int(clean[number % len(clean)])].weights
            attack = names[int(rng.integers(len(names)))]
            alpha = 0.3 if attack in ("noise-blend", "checkerboard-blend") else None
            poison = Poison(attack=attack, rate=0.1, alpha=alpha, target=int(rng.integers(10)), seed=first + number)
            path = folder / "pairs" / f"{split}-{number:05d}.npy"
            if not path.exists():
                tuned = bench.finetuned(flat, count=2_000, epochs=2, rate=1e-3, poison=poison, seed=first + number)
                content = io.BytesIO()
                np.save(content, tuned, allow_pickle=False)
                write_atomically(path, content.getvalue())
            before.append(flat)
            after.append(np.load(path, allow_pickle=False))
            advance(1)
    return np.stack(after), np.stack(before)


# -- all of it --------------------------------------------------------------------------------------------------------


def locate_and_repair(
    zoo: Zoo, images: ZooConfig, detector: Detector, out: Path, config: RepairConfig
) -> dict[str, str]:
    """Both tables as Markdown; killed and called again with the same folder, it goes on.

    Args:
        images: the zoo's configuration, with the folder in which its images lie.
        out: folder of effects, pairs, trainings and `repair.json`.
    """
    bench = Bench(images)
    facts = [zoo.description["config"], images.to_json(), asdict(config), asdict(neuron_metamodel())]
    weights = b"".join(tensor.cpu().numpy().tobytes() for tensor in detector.model.model.state_dict().values())
    if not bind(out, json.dumps(facts, sort_keys=True, default=list).encode() + weights):
        raise TaskError(
            f"{out} holds what was measured of another zoo, with another detector or other settings: choose another "
            "folder, or delete that one"
        )
    localiser = train_localiser(zoo, bench, detector, out, config)
    located = locate(zoo, bench, detector, localiser, out, config)
    editor = train_editor(zoo, bench, out, config)
    found = cases(zoo, bench, "test", config.test, config.images, out)
    held = cases(zoo, bench, "validation", config.validation, config.images, out)
    repaired = repair(found, held, bench, repairs(bench, detector, localiser, editor, config), config.tried)
    tables = {"where": location_table(located), "repair": repair_table(repaired), "editor": f"{editor.error:.3f}"}
    write_atomically(out / "repair.json", json.dumps(tables, indent=1).encode())
    return tables


def _shown(found: Interval | None, digits: int = 2) -> str:
    if found is None:
        return ""
    return f"{found.estimate:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def location_table(rows: Sequence[LocationRow]) -> str:
    """Rows as a Markdown table."""
    header = ("neurons by", "n", "AUROC", "first among the three", "success without three", "accuracy without three")
    lines = []
    for row in rows:
        measures = (row.area, row.first, row.success, row.accuracy, row.target)
        lines.append([row.method, row.networks, *map(_shown, measures)])
    return markdown_table((*header, "target"), lines)


def repair_table(rows: Sequence[RepairRow]) -> str:
    """Rows as a Markdown table."""
    header = ("repair", "setting", "n", "success before", "success after", "accuracy before", "accuracy after")
    lines = []
    for row in rows:
        success = (f"{row.success_before:.2f}", _shown(row.success))
        accuracy = (f"{row.accuracy_before:.3f}", _shown(row.accuracy, 3))
        change = (f"{row.gone:.0%}", f"{100 * row.lost:.1f} points")
        lines.append([row.repair, row.setting, row.networks, *success, *accuracy, *change])
    return markdown_table((*header, "median share of success gone", "median accuracy lost"), lines)
