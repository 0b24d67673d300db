"""Repairs side by side on the networks of a zoo: a line a network and method, tables, and what is relearnt."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from weightspace.backdoors.repairing import baselines
from weightspace.backdoors.repairing.baselines import Tuning
from weightspace.backdoors.repairing.classifier import Classifier
from weightspace.backdoors.repairing.dead_leaves import dead_leaves
from weightspace.backdoors.repairing.naming import LIMIT_WITHOUT_IMAGES, name_by_both, name_target
from weightspace.backdoors.repairing.repairing import Repair, RepairSettings, repair
from weightspace.backdoors.repairing.subjects import Scores, Subject, scores, subject_of
from weightspace.backdoors.repairing.unlearning import Unlearning, unlearn
from weightspace.errors import TaskError
from weightspace.evaluation.metrics import bootstrap_interval
from weightspace.evaluation.tables import markdown_table
from weightspace.files.atomic import write_atomically
from weightspace.files.progress import progress
from weightspace.train.checkpoint import bind
from weightspace.zoo.plan import ZooConfig
from weightspace.zoo.poison import CLEAN, EVERY_ATTACK
from weightspace.zoo.store import Zoo

WORKS = 0.5
"""Success from which an attack is worth repairing."""
BLENDS = ("noise-blend", "checkerboard-blend", "mntd-blend", "clean-label-sinusoid")
"""Attacks over the whole image, which stand apart."""
SYNTHETIC = 2_000
RELEARNT = 25
"""Steps after which success on relearning is read."""
FEW = 6
"""Networks below which a mean has no interval."""
SETTINGS: Mapping[str, Mapping[str, float]] = {
    "finetuning": {"rate": 2e-3, "steps": 360},
    "sharpness-aware tuning": {"rate": 2e-3, "radius": 0.5, "steps": 360},
    "FST": {"rate": 3e-3, "weight": 0.1, "steps": 360},
    "I-BAU": {"rate": 1e-3, "steps": 120, "radius": 3.0, "inner": 3},
    "ANP": {"rate": 0.05, "radius": 0.2, "limit": 0.2},
    "CLP": {"limit": 3.0},
}
"""Of the repairs of others; of ours see `RepairSettings`."""
GRID: Mapping[str, tuple[Mapping[str, float], ...]] = {
    "finetuning": (
        *({"rate": rate} for rate in (1e-3, 5e-3, 2e-2)),
        *({"rate": rate, "steps": 360} for rate in (2e-3, 5e-3)),
    ),
    "sharpness-aware tuning": (
        *({"rate": rate, "radius": radius} for rate in (1e-3, 5e-3, 1e-2) for radius in (0.5, 2.0)),
        {"rate": 2e-3, "radius": 0.5, "steps": 360},
    ),
    "FST": (
        *({"rate": rate, "weight": weight} for rate in (1e-3, 3e-3, 1e-2) for weight in (0.1, 0.5)),
        *({"rate": rate, "weight": 0.1, "steps": 360} for rate in (1e-3, 3e-3)),
    ),
    "I-BAU": (
        *(
            {"rate": rate, "steps": 40, "radius": radius, "inner": 3}
            for rate in (1e-3, 3e-3)
            for radius in (1.0, 3.0, 6.0)
        ),
        {"rate": 1e-3, "steps": 120, "radius": 3.0, "inner": 3},
    ),
    "ANP": tuple(
        {"rate": 0.05, "radius": radius, "limit": limit} for radius in (0.2, 0.4) for limit in (0.2, 0.4, 0.6)
    ),
    "CLP": tuple({"limit": limit} for limit in (1.5, 2.0, 2.5, 3.0)),
}
"""What `SETTINGS` is chosen among, on validation networks (`--grid`): the highest mean share of success gone less a
tenth of the points lost."""
OURS, EXACT, NOTHING, NAMED = "ours", "the exact trigger (upper bound)", "nothing", "naming alone"


@dataclass(frozen=True)
class Line:
    """One network after one method.

    Attributes:
        images: clean ones that the method was given; 0 for none, where ours takes synthetic ones.
        before, after: `subjects.Scores`.
        named: of ours, the class that was named, None if it abstained; target: that of the attack; suspect: that with
            the smallest trigger, named or not.
        ratio: of ours, the size by which it was named.
        relearnt: success after `RELEARNT` steps on five poisoned and 95 clean images; of a clean network beside it,
            with the same trigger, `relearnt_clean`.
        seconds: of one core.
    """

    network: int
    attack: str
    method: str
    images: int
    before: Scores
    after: Scores
    target: int
    named: int | None
    ratio: float | None
    relearnt: float | None
    relearnt_clean: float | None
    seconds: float
    suspect: int | None = None

    @property
    def gone(self) -> float:
        """Share of the success net of chance that is gone; below 0 if it grew."""
        return 1 - self.after.net / max(self.before.net, 1e-9)

    @property
    def lost(self) -> float:
        """Points of accuracy that are lost."""
        return 100 * (self.before.accuracy - self.after.accuracy)


Method = Callable[[Subject, Tensor, Tensor, torch.Generator], tuple[Classifier, Repair | None]]
"""A subject with images to repair it by and their classes; only the upper bound looks at the subject's trigger."""


OTHERS: Mapping[str, Callable[..., Classifier]] = {
    "finetuning": baselines.finetuned,
    "sharpness-aware tuning": baselines.sharpness_aware,
    "FST": baselines.feature_shift,
    "I-BAU": baselines.minimax,
    "ANP": baselines.neuron_pruning,
}


def methods() -> dict[str, Method]:
    """Every method by the name that the tables call it."""
    return {
        OURS: _ours,
        EXACT: _exact,
        NOTHING: lambda subject, _x, _y, _generator: (subject.classifier, None),
        NAMED: _named,
        **{name: _other(name, settings) for name, settings in SETTINGS.items()},
    }


def with_every_setting() -> dict[str, Method]:
    """The repairs of others with every setting of `GRID`, by name and settings."""
    return {
        f"{name} ({', '.join(f'{key} {value:g}' for key, value in settings.items())})": _other(name, settings)
        for name, every in GRID.items()
        for settings in every
    }


def _other(name: str, settings: Mapping[str, float]) -> Method:
    """A repair of others with its settings."""
    own = dict(settings)
    if name == "CLP":
        return lambda subject, _x, _y, _generator: (baselines.lipschitz_pruning(subject.classifier, **own), None)
    tuning = Tuning(rate=own.pop("rate"), steps=int(own.pop("steps", 120)))

    def run(subject: Subject, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Classifier, None]:
        return OTHERS[name](subject.classifier, x, y, tuning, generator=generator, **own), None

    return run


def _ours(subject: Subject, x: Tensor, _y: Tensor, generator: torch.Generator) -> tuple[Classifier, Repair]:
    settings = RepairSettings(seed=int(generator.initial_seed()))
    found = repair(subject.classifier, x, settings, synthetic=not len(subject.apart))
    return found.network, found


def _named(subject: Subject, x: Tensor, _y: Tensor, generator: torch.Generator) -> tuple[Classifier, Repair]:
    """The first step of ours alone, by which its limits are chosen."""
    if len(subject.apart):
        naming, _ = name_by_both(subject.classifier, x, generator)
    else:
        naming = name_target(subject.classifier, x, generator, limit=LIMIT_WITHOUT_IMAGES, synthetic=True)
    return subject.classifier, Repair(subject.classifier, naming, (), ())


def _exact(subject: Subject, x: Tensor, _y: Tensor, generator: torch.Generator) -> tuple[Classifier, None]:
    """Ours, had the search found the trigger itself."""
    return unlearn(subject.classifier, subject.classifier, x, [subject.with_trigger], Unlearning(), generator), None


# -- one line ---------------------------------------------------------------------------------------------------------


def tried(subject: Subject, name: str, method: Method, images: int, clean: Classifier | None) -> Line:
    """One method on one subject.

    Args:
        images: clean ones that it is given; 0 for synthetic ones.
        clean: a network without backdoor of the same architecture and images, for relearning; None for none.
    """
    generator = torch.Generator().manual_seed(subject.number)
    start = time.process_time()
    if images:
        x, y, given = subject.apart[:images], subject.apart_labels[:images], subject
    else:
        given, x = _without_images(subject)
        y = torch.zeros(len(x), dtype=torch.long)
    network, found = method(given, x, y, generator)
    seconds = time.process_time() - start
    network = subject.classifier.with_module(network.module)
    relearns = name in (OURS, EXACT, "FST") and subject.poison.triggers and subject.poison.attack in EVERY_ATTACK
    return Line(
        network=subject.number,
        attack=subject.poison.attack,
        method=name,
        images=images,
        before=scores(subject.classifier, subject),
        after=scores(network, subject),
        target=subject.poison.target,
        named=None if found is None else found.naming.named,
        suspect=None if found is None else found.naming.suspect,
        ratio=None if found is None else round(found.naming.ratio, 4),
        relearnt=relearnt(network, subject) if relearns else None,
        relearnt_clean=relearnt(clean, subject) if relearns and clean is not None else None,
        seconds=round(seconds, 2),
    )


def _without_images(subject: Subject) -> tuple[Subject, Tensor]:
    """The subject as one knows it who has no images, with synthetic ones, standardised by their own statistics."""
    pixels = torch.from_numpy(dead_leaves(subject.classifier.shape, SYNTHETIC, np.random.default_rng(subject.number)))
    mean, deviation = (
        value.reshape(-1, 1, 1) for value in (pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp(min=1e-3))
    )
    blind = replace(subject.classifier, mean=mean, deviation=deviation)
    return replace(
        subject, classifier=blind, apart=subject.apart[:0], apart_labels=subject.apart_labels[:0]
    ), blind.standardised(pixels)


def relearnt(network: Classifier, subject: Subject, steps: int = RELEARNT, rate: float = 2e-3) -> float:
    """Success after training on five poisoned and 95 clean images, which no repair has seen: Adam, 50 images a step."""
    generator = torch.Generator().manual_seed(subject.number)
    x, y = subject.apart[-100:].clone(), subject.apart_labels[-100:].clone()
    x[:5], y[:5] = subject.with_trigger(x[:5]), subject.poison.target
    module = network.trainable()
    optimiser = torch.optim.Adam(module.parameters(), lr=rate)
    for _ in range(steps):
        rows = torch.randperm(100, generator=generator)[:50]
        optimiser.zero_grad()
        F.cross_entropy(module(x[rows]), y[rows]).backward()
        optimiser.step()
    return scores(network.with_module(module), subject).success


# -- all lines --------------------------------------------------------------------------------------------------------


def chosen(zoo: Zoo, split: str, count: int, clean: int) -> list[int]:
    """Rows of a split: `count` networks whose attack works, of each attack in turn, and `clean` ones among them."""
    networks = zoo.population(split)
    attack = zoo.column("attack")[networks.rows]
    works = zoo.column("attack_success")[networks.rows].astype(float) >= WORKS
    kinds = [np.flatnonzero((attack == name) & works).tolist() for name in EVERY_ATTACK]
    turns = [kind[turn] for turn in range(max(map(len, kinds), default=0)) for kind in kinds if turn < len(kind)][
        :count
    ]
    if not turns:
        raise TaskError(f"zoo {zoo.folder} has no network in its {split} split whose attack works: nothing to repair")
    without = np.flatnonzero(attack == CLEAN).tolist()[:clean]
    every = max(1, len(turns) // max(1, len(without)))
    for number, row in enumerate(without):
        turns.insert((number + 1) * (every + 1) - 1, row)
    return turns


def study(
    zoo: Zoo,
    config: ZooConfig,
    out: Path,
    *,
    split: str = "test",
    count: int = 40,
    clean: int = 10,
    images: Sequence[int] = (500,),
    names: Sequence[str] = (),
    grid: bool = False,
    minutes: float | None = None,
    show: bool = True,
) -> list[Line]:
    """Every method on the networks of a split, one line each in `out`/lines.jsonl; what is there is not done again.

    Args:
        config: of the zoo; `data` says where its images lie.
        count, clean: networks whose attack works, and clean ones.
        images: numbers of clean images that methods are given; 0 for none, which only ours and CLP can do.
        names: of methods; all unless given.
        grid: the repairs of others with every setting of `GRID`, instead of `methods`.
        minutes: after which it stops, to go on when it is called again.
    Raises:
        TaskError: if `out` holds the lines of something else, or no network's attack works.
    """
    path = out / "lines.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    facts = [config.to_json(), split, asdict(RepairSettings()), SETTINGS]
    if not bind(out, json.dumps(facts, sort_keys=True, default=list).encode()):
        raise TaskError(
            f"{out} holds lines of another zoo, another split or other settings: choose another folder, or delete it"
        )
    lines = read_lines(path)
    write_atomically(path, b"".join(_text(line) for line in lines))  # without one that was cut short
    done = {(line.network, line.method, line.images) for line in lines}
    every = with_every_setting() if grid else methods()
    wanted = {name: every[name] for name in names or every if name in names or name != NAMED}
    networks, rows = zoo.population(split), chosen(zoo, split, count, clean)
    numbers, attacks = (zoo.column(name)[networks.rows] for name in ("network", "attack"))
    start = time.monotonic()
    with progress("repairing", len(rows), "networks", show) as advance:
        for row in rows:
            possible = [
                (amount, name)
                for amount in images
                for name in wanted
                if (amount or name.partition(" (")[0] in (OURS, NAMED, "CLP"))
                and (name != EXACT or attacks[row] in EVERY_ATTACK)
            ]
            left = [(amount, name) for amount, name in possible if (int(numbers[row]), name, amount) not in done]
            if minutes is not None and time.monotonic() - start > 60 * minutes:
                break
            if left:
                subject = subject_of(networks[row], config)
                partner = _partner(zoo, split, subject, networks[row].metadata, config)
                for amount, name in left:
                    line = tried(subject, name, wanted[name], amount, partner)
                    with path.open("ab") as file:
                        file.write(_text(line))
                    lines.append(line)
            advance(1)
    return lines


def _partner(zoo: Zoo, split: str, subject: Subject, facts: Mapping[str, Any], config: ZooConfig) -> Classifier | None:
    """A clean network of the same architecture, another one for each network; None if there is none."""
    from weightspace.zoo.networks import module_of

    networks = zoo.population(split)
    rows = np.flatnonzero(zoo.column("attack")[networks.rows] == CLEAN)
    rows = np.roll(rows, -subject.number)
    if config.architectural:  # networks differ, and their images too
        keys = [name for name in config.architectural if name in zoo.columns and name != "target"]
        rows = [r for r in rows if all(zoo.column(k)[networks.rows][r] == facts.get(k) for k in keys)]
    if not len(rows):
        return None
    return subject.classifier.with_module(copy.deepcopy(module_of(networks[int(rows[0])])))


def _text(line: Line) -> bytes:
    return json.dumps(asdict(line)).encode() + b"\n"


def read_lines(path: Path) -> list[Line]:
    """The lines of a study so far; a last one that was cut short is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(text)
        except ValueError:
            continue
        both = {name: Scores(**record[name]) for name in ("before", "after")}
        lines.append(Line(**{**record, **both}))
    return lines


# -- tables -----------------------------------------------------------------------------------------------------------


def tables(lines: Iterable[Line]) -> dict[str, str]:
    """Markdown tables by their titles; those without rows are left out."""
    every = list(lines)
    lines = [line for line in every if line.method != NAMED]
    attacked = [line for line in lines if line.attack in EVERY_ATTACK]
    patches = [line for line in attacked if line.attack not in BLENDS]
    found = {
        "working backdoors but blends over the whole image": _table(patches, lambda line: line.method),
        "blends over the whole image": _table([x for x in attacked if x.attack in BLENDS], lambda line: line.method),
        "ours, each attack": _table([x for x in attacked if x.method == OURS], lambda line: line.attack),
        "clean networks": _clean_table([line for line in lines if line.attack == CLEAN]),
    }
    found["sizes by which a class is named"] = _sizes_table([line for line in every if line.method == NAMED])
    return {title: table for title, table in found.items() if table}


def _sizes_table(lines: Sequence[Line]) -> str:
    """Where a limit belongs: the smallest sizes of clean networks, and the largest towards the classes of attacks."""
    rows = []
    for amount in sorted({line.images for line in lines}, reverse=True):
        own = [line for line in lines if line.images == amount]
        clean = sorted(line.ratio for line in own if line.ratio is not None and line.attack == CLEAN)
        right = [line for line in own if line.suspect == line.target and line.attack != CLEAN]
        sizes = sorted((line.ratio for line in right if line.ratio is not None), reverse=True)
        attacked = sum(line.attack != CLEAN for line in own)
        shown = [", ".join(f"{size:.2f}" for size in values[:5]) for values in (clean, sizes)]
        rows.append([amount, len(clean), shown[0], f"{len(right)} of {attacked}", shown[1]])
    header = ("images", "clean", "their smallest", "backdoored whose class is the smallest", "their largest")
    return markdown_table(header, rows) if rows else ""


def _table(lines: Sequence[Line], key: Callable[[Line], str]) -> str:
    header = ("", "images", "n", "share of success gone, median", "mean", "points lost, mean", "worst", "right label")
    header = (*header, "target named", "relearnt", "clean network", "seconds")
    rows = []
    for amount in sorted({line.images for line in lines}, reverse=True):
        for name in dict.fromkeys(key(line) for line in lines):
            own = [line for line in lines if line.images == amount and key(line) == name]
            if own:
                rows.append([name, amount, len(own), *_measures(own)])
    return markdown_table(header, rows) if rows else ""


def _measures(own: Sequence[Line]) -> list[str]:
    gone, lost = np.array([line.gone for line in own]), np.array([line.lost for line in own])
    named = [line.named == line.target for line in own if line.ratio is not None]
    relearns = [(line.relearnt, line.relearnt_clean) for line in own if line.relearnt is not None]
    clean = [other for _, other in relearns if other is not None]
    return [
        f"{np.median(gone):.0%}",
        _interval(gone, "{:.0%}"),
        _interval(lost, "{:.1f}"),
        f"{lost.max():.1f}",
        f"{np.median([line.after.right for line in own]):.2f}",
        f"{sum(named)} of {len(named)}" if named else "",
        f"{np.mean([one for one, _ in relearns]):.2f}" if relearns else "",
        f"{np.mean(clean):.2f}" if clean else "",
        f"{np.median([line.seconds for line in own]):.1f}",
    ]


def _interval(values: np.ndarray, form: str) -> str:
    """The mean with its 95% interval over networks; without one where there are hardly any."""
    if len(values) < FEW:
        return form.format(values.mean())
    found = bootstrap_interval(values, seed=0, proportion=False)
    return f"{form.format(found.estimate)} [{form.format(found.low)}, {form.format(found.high)}]"


def _clean_table(lines: Sequence[Line]) -> str:
    rows = []
    for amount in sorted({line.images for line in lines}, reverse=True):
        for name in dict.fromkeys(line.method for line in lines):
            own = [line for line in lines if line.images == amount and line.method == name]
            if own:
                changed = sum(line.named is not None for line in own) if name == OURS else len(own) * (name != NOTHING)
                lost = np.array([line.lost for line in own])
                rows.append([name, amount, len(own), changed, _interval(lost, "{:.1f}"), f"{lost.max():.1f}"])
    return markdown_table(("", "images", "n", "changed", "points lost, mean", "worst"), rows) if rows else ""
