"""What a sample of programs looks like, beside what is published."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.language import (
    Aggregate,
    LinearSequenceMap,
    Map,
    Select,
    Selector,
    SequenceMap,
    fused,
    indices,
    tokens,
)
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import Distribution, attempts
from weightspace.rasp.validate import NotCompilable

PUBLISHED: dict[str, dict[str, Any]] = {
    "paper": {
        "weights": {"Map": 4, "Select": 3, "SequenceMap": 2, "Aggregate": 2, "SelectorWidth": 2},
        "weights_note": "weights with which operations are drawn, before programs are pruned",
        "length": "5 to 15 instructions in the text, 3 to 15 in its code",
        "s_ops": "",
        "parameters": "fewer than 50,000, on average 3,000",
        "most_parameters": 49_999,
    },
    "typed": {
        "weights": {
            "Map": 1,
            "SequenceMap": 0.8,
            "LinearSequenceMap": 1,
            "numerical Aggregate": 1,
            "categorical Aggregate": 1,
            "SelectorWidth": 0.05,
        },
        "weights_note": "weights with which S-ops are drawn, before what does not suit is refused",
        "length": "",
        "s_ops": "4 to 8",
        "parameters": "at most 65,536",
        "most_parameters": 65_536,
    },
}
"""What the paper (section 4 and appendix B.1, and its code) and its 2024 successor say of their programs."""
MOST_REASONS = 12
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\bTrue\b|\bFalse\b|\b\d+(?:\.\d+)?\b")


def statistics(
    distribution: Distribution, count: int, seed: int, lengths: Sequence[int] | None = None
) -> dict[str, Any]:
    """Figures of the first `count` programs of a distribution; JSON-serialisable.

    Sizes are those of the weights that Tracr would make: compiled in mode `tracr_compat`, those of `paper` with a Map
    of a Map made one. Programs that do not compile are counted by their first reason.

    Args:
        distribution: `paper` or `typed`.
        count: programs, at least 1.
        seed: of the sampler.
        lengths: wanted, instead of the distribution's own.
    Returns:
        `distribution`, `count`, `seed`, `draws`; `rejected` and `not_compiled`, counts by reason; `compiled`, how many
        were; `operations`, `aggregates`, `predicates`, `map_functions`, `sequence_map_functions` and `linear_factors`,
        shares; `length` (operations, selectors counted), `s_ops` (inputs counted), `parameters`, `parameters_kept`
        (those that are not more than published), `layers`, `heads` and `width`: mean, median, 90%, max and count; and
        `published`.
    Raises:
        RaspError: if there is no such distribution, a length it does not have, or nothing to count.
    """
    if count < 1:
        raise RaspError(f"statistics need at least 1 program, not {count}")
    counts: dict[str, Counter[str]] = {name: Counter() for name in _SHARES}
    rejected: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    sizes: dict[str, list[int]] = {name: [] for name in ("length", "s_ops", "parameters", "layers", "heads", "width")}
    draws = accepted = 0
    for drawn in attempts(distribution, seed, lengths):
        draws += 1
        if isinstance(drawn, str):
            rejected[drawn] += 1
            continue
        accepted += 1
        _count(drawn, counts, distribution)
        sizes["length"].append(len(drawn))
        sizes["s_ops"].append(sum(not isinstance(node, Selector) for node in drawn.nodes))
        try:
            compiled = compile_program(fused(drawn) if distribution == "paper" else drawn, mode="tracr_compat")
        except NotCompilable as error:
            failed[error.reasons[0].kind] += 1
        else:
            sizes["parameters"].append(len(compiled))
            sizes["layers"].append(compiled.configuration.num_layers)
            sizes["heads"].append(compiled.configuration.num_heads)
            sizes["width"].append(compiled.layout.width)
        if accepted == count:
            break
    most = PUBLISHED[distribution]["most_parameters"]
    sizes["parameters_kept"] = [number for number in sizes["parameters"] if number <= most]
    return {
        "distribution": distribution,
        "count": count,
        "seed": seed,
        "draws": draws,
        "rejected": dict(rejected.most_common()),
        "compiled": len(sizes["parameters"]),
        "not_compiled": dict(failed.most_common()),
        **{name: _shares(counted) for name, counted in counts.items()},
        **{name: _summary(numbers) for name, numbers in sizes.items()},
        "published": PUBLISHED[distribution],
    }


_SHARES = ("operations", "aggregates", "predicates", "map_functions", "sequence_map_functions", "linear_factors")


def _count(program: Program, counts: Mapping[str, Counter[str]], distribution: Distribution) -> None:
    for node in program.nodes:
        if node is tokens or node is indices:
            continue
        counts["operations"][type(node).__name__] += 1
        match node:
            case Map():
                source = node.function.source
                # constants are drawn by themselves
                counts["map_functions"][_LITERAL.sub("c", source) if distribution == "paper" else source] += 1
            case SequenceMap():
                counts["sequence_map_functions"][node.function.source] += 1
            case LinearSequenceMap():
                for factor in (node.first_factor, node.second_factor):
                    counts["linear_factors"][f"{factor:g}"] += 1
            case Select():
                counts["predicates"][str(node.predicate)] += 1
            case Aggregate():
                counts["aggregates"][node.encoding] += 1


def _shares(counted: Counter[str]) -> dict[str, float]:
    total = counted.total()
    return {name: number / total for name, number in counted.most_common()}


def _summary(numbers: Sequence[int]) -> dict[str, float] | None:
    if not numbers:
        return None
    return {
        "mean": float(np.mean(numbers)),
        "median": float(np.median(numbers)),
        "90%": float(np.percentile(numbers, 90)),
        "max": float(max(numbers)),
        "count": len(numbers),
    }


# -- as a table ------------------------------------------------------------------------------------------------------


def format_statistics(figures: Mapping[str, Any]) -> str:
    """The figures of `statistics` as tables for a terminal."""
    published = figures["published"]
    lines = [
        f"{figures['count']:,} programs of the distribution {figures['distribution']!r}, seed {figures['seed']}, "
        f"from {figures['draws']:,} draws",
        "",
        *_operations(figures),
        "",
        f"{'':<34}{'mean':>10}{'median':>10}{'90%':>10}{'max':>12}  published",
    ]
    for name, title in (
        ("length", "operations, with selectors"),
        ("s_ops", "S-ops, with inputs"),
        ("parameters", f"parameters ({figures['compiled']:,} compiled)"),
        ("parameters_kept", f"  of these not more than {published['most_parameters']:,}"),
        ("layers", "layers"),
        ("heads", "heads a layer"),
        ("width", "residual width"),
    ):
        summary = figures[name]
        shown = "".join(
            f"{summary[key]:>{size},.{1 if key == 'mean' else 0}f}" if summary else f"{'-':>{size}}"
            for key, size in (("mean", 10), ("median", 10), ("90%", 10), ("max", 12))
        )
        kept = f"{summary['count']:,} programs" if name == "parameters_kept" and summary else ""
        lines.append(f"{title:<34}{shown}  {published.get(name, kept)}".rstrip())
    for name, title in (
        ("predicates", "predicates"),
        ("map_functions", "functions of Map"),
        ("sequence_map_functions", "functions of SequenceMap"),
        ("linear_factors", "factors of LinearSequenceMap"),
    ):
        if figures[name]:
            shares = [f"{what} {share:.1%}" for what, share in figures[name].items()]
            lines += ["", f"{title}:", *_wrapped(shares)]
    for name, title in (("rejected", "draws rejected"), ("not_compiled", "programs that do not compile")):
        reasons = figures[name]
        lines += ["", f"{title}: {sum(reasons.values()):,}"]
        lines += [f"  {number:>7,}  {reason}" for reason, number in [*reasons.items()][:MOST_REASONS]]
        if len(reasons) > MOST_REASONS:
            rest = [*reasons.values()][MOST_REASONS:]
            lines.append(f"  {sum(rest):>7,}  {len(rest)} other reasons")
    return "\n".join(lines)


def _operations(figures: Mapping[str, Any]) -> list[str]:
    """The table of operations; a weight that is published for a part of them stands on a line of its own."""
    published = figures["published"]
    weights = published["weights"]
    total = sum(weights.values())
    shares = dict(figures["operations"])
    aggregates = shares.get("Aggregate", 0.0)
    for encoding in ("categorical", "numerical") if "numerical Aggregate" in weights else ():
        shares[f"{encoding} Aggregate"] = aggregates * figures["aggregates"].get(encoding, 0.0)
    if "numerical Aggregate" in weights:
        shares.pop("Aggregate", None)
    weighed = sum(shares.get(name, 0.0) for name in weights) or 1.0
    lines = [f"{'operation':<24}{'share':>8}{'of those drawn':>16}  published ({published['weights_note']})"]
    for name in sorted({*shares, *weights}, key=lambda name: -shares.get(name, 0.0)):
        share = shares.get(name, 0.0)
        weight = (
            f"{share / weighed:>16.1%}  {weights[name]:g} ({weights[name] / total:.1%})"
            if name in weights
            else f"{'-':>16}  comes with an Aggregate or a SelectorWidth"
        )
        lines.append(f"{name:<24}{share:>8.1%}{weight}")
    return lines


def _wrapped(entries: Sequence[str], width: int = 100) -> list[str]:
    lines = ["  "]
    for entry in entries:
        if len(lines[-1]) + len(entry) > width:
            lines.append("  ")
        lines[-1] += ("" if lines[-1] == "  " else ",  ") + entry
    return lines
