"""Whether `circuits` accepts the correspondences of a zoo's networks, and rejects what is not so: its power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from weightspace.circuits.judging import FAULTS, Judgement, judge
from weightspace.circuits.power import Trial, format_power, power, trials
from weightspace.errors import NetworkError, ZooError
from weightspace.evaluation.metrics import Tally
from weightspace.files.progress import progress
from weightspace.pairs.card import describe
from weightspace.pairs.correspondence import Correspondence, drawn_correspondence
from weightspace.pairs.counterfactuals import Counterfactuals
from weightspace.pairs.soundness import SOUND, alignment
from weightspace.pairs.zoo import Pair, pairs_of

INPUTS, PAIRS = 512, 64


@dataclass(frozen=True, eq=False)
class Accepted:
    """What was judged of one network, as lists of judgements.

    Attributes:
        planted: its correspondence.
        shuffled: its program with S-ops at other components that could hold them.
        others: programs of other networks, which answer otherwise.
        mutants: hypotheses that differ from the planted one in one thing.
    """

    planted: Judgement
    shuffled: Sequence[Judgement]
    others: Sequence[Judgement]
    mutants: Sequence[Trial]


def judged_pair(pair: Pair, others: Sequence[Pair], *, mutants: int = 6, seed: int = 0) -> Accepted:
    """Judge the correspondence of a network and wrong ones.

    Args:
        others: networks with other programs on the same tokens; two of them are tried.
        mutants: how many.
    """
    random = Random(f"{seed} {pair.number}")
    own = pair.correspondence
    inputs = Counterfactuals.of(own.program).inputs
    inputs = random.sample(inputs, min(INPUTS, len(inputs)))
    aligned = alignment(pair.transformer, own, pair.answer, inputs)
    planted = judge(aligned, own.hypothesis, pairs=PAIRS, seed=seed, least=SOUND)
    quick: dict[str, Any] = {"pairs": PAIRS, "seed": seed, "least": SOUND, "control": False, "whole": False}
    shuffled = []
    for _ in range(2):
        drawn = drawn_correspondence(own.program, pair.plan.layers, pair.plan.heads, random)
        if drawn.slots != own.slots:
            shuffled.append(judge(aligned, drawn.hypothesis, **quick))
    foreign = []
    for other in random.sample(list(others), min(2, len(others))):
        found = _judged_other(pair, other, random, quick)
        if found is not None:
            foreign.append(found)
    wrong = trials(aligned, own.hypothesis, count=mutants, pairs=PAIRS, seed=seed, least=SOUND) if mutants else []
    return Accepted(planted, shuffled, foreign, wrong)


def _judged_other(pair: Pair, other: Pair, random: Random, options: dict[str, Any]) -> Judgement | None:
    """Another network's program about this network; None where it does not fit or is the same."""
    theirs = other.correspondence.program
    if theirs.vocab != pair.correspondence.program.vocab or str(theirs) == str(pair.correspondence.program):
        return None
    try:
        drawn: Correspondence = drawn_correspondence(theirs, pair.plan.layers, pair.plan.heads, random)
    except NetworkError:  # more layers than this one has
        return None
    inputs = Counterfactuals.of(theirs).inputs
    answer = type(pair.answer)(theirs.name(theirs.output), pair.answer.values)
    aligned = alignment(pair.transformer, drawn, answer, random.sample(inputs, min(INPUTS, len(inputs))))
    return judge(aligned, drawn.hypothesis, **options)


def accept(
    folder: Path, *, count: int | None = None, mutants: int = 6, seed: int = 0, show: bool = True
) -> dict[str, Any]:
    """Judge the networks of a zoo, sound ones and others.

    Args:
        count: at most so many of each.
    Returns:
        figures, JSON-serialisable.
    Raises:
        ZooError: if it is no zoo of pairs, or has no networks.
    """
    describe(folder)
    figures: dict[str, Any] = {"zoo": str(folder), "inputs": INPUTS, "pairs": PAIRS, "least": SOUND, "seed": seed}
    for sound, name in ((True, "sound"), (False, "unsound")):
        try:
            networks = list(pairs_of(folder, sound=sound))[:count]
        except ZooError:
            continue
        found: list[Accepted] = []
        with progress(f"judging {name} networks", len(networks), "networks", show) as advance:
            for pair in networks:
                others = [each for each in networks if each.number != pair.number]
                found.append(judged_pair(pair, others if sound else (), mutants=mutants if sound else 0, seed=seed))
                advance()
        figures[name] = _figures(found)
    if not {"sound", "unsound"} & figures.keys():
        raise ZooError(f"{folder} has no networks yet: make some with `weightspace zoo make circuits-small`")
    return figures


def _figures(found: Sequence[Accepted]) -> dict[str, Any]:
    scrubbings = [each.planted.scrubbing for each in found if each.planted.scrubbing is not None]
    scrubbed = [each.agreement.share or 0.0 for each in scrubbings]
    mutants = [trial for each in found for trial in each.mutants]
    return {
        "networks": len(found),
        "planted": _row([each.planted for each in found]),
        "scrubbed answers kept": {
            "least": float(np.min(scrubbed)),
            "median": float(np.median(scrubbed)),
        },
        "shuffled": _row([one for each in found for one in each.shuffled]),
        "others": _row([one for each in found for one in each.others]),
        "power": [row.to_record() for row in power(mutants)] if mutants else None,
    }


def _row(judgements: Sequence[Judgement]) -> dict[str, Any]:
    tally = Tally.of(np.array([each.accepted for each in judgements], bool))
    bounds = tally.interval
    firsts = [each.faults[0] for each in judgements if each.faults]
    return {
        "accepted": tally.right,
        "n": tally.n,
        "low": None if bounds is None else round(bounds.low, 3),
        "high": None if bounds is None else round(bounds.high, 3),
        "by": {fault: firsts.count(fault) for fault in FAULTS},
    }


def format_acceptance(figures: dict[str, Any]) -> str:
    """The same in text."""
    lines = [
        f"judged on {figures['inputs']} inputs, {figures['pairs']} pairs an S-op, from {figures['least']} on accepted, "
        f"seed {figures['seed']}",
        f"{'':<44} accepted    of   95% interval     rejected by behaviour, interchange, scrubbing",
    ]
    names = {
        "planted": "the planted correspondence",
        "shuffled": "  the same program, components drawn anew",
        "others": "  another network's program",
    }
    for kind in ("sound", "unsound"):
        for name, text in names.items():
            row = figures.get(kind, {}).get(name)
            if row is not None and row["n"]:
                by = ", ".join(str(row["by"][fault]) for fault in FAULTS)
                interval = f"{row['low']:.3f} to {row['high']:.3f}"
                lines.append(f"{kind + ': ' + text:<44} {row['accepted']:>8} {row['n']:>5}   {interval}   {by}")
        kept = figures.get(kind, {}).get("scrubbed answers kept")
        if kept is not None:
            text = f"{kind}: answers kept when scrubbed"
            lines.append(f"{text:<44} least {kept['least']:.3f}, median {kept['median']:.3f}")
    rows = figures.get("sound", {}).get("power")
    return "\n".join([*lines, "", format_power(rows)] if rows else lines)
