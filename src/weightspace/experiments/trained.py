"""Programs for a folder of trained transformers: the table, what is simpler, and networks that compute nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from weightspace.decompiler.trained.answering import program_answers
from weightspace.decompiler.trained.asked import Asked, Strings, same
from weightspace.decompiler.trained.decompile import (
    SHORT,
    Settings,
    agreement,
    answers_of,
    off_distribution,
    sizes_of,
    split_inputs,
)
from weightspace.decompiler.trained.drawing import Questions
from weightspace.decompiler.trained.entry import INPUTS, decompile_file
from weightspace.decompiler.trained.exhaustive import Compared, of_language, of_questions
from weightspace.decompiler.trained.inputs import read_inputs
from weightspace.decompiler.trained.opening import INDEX, opened
from weightspace.decompiler.trained.result import MATCH, MECHANISM, TrainedDecompilation
from weightspace.decompiler.trained.search import search
from weightspace.errors import NetworkError, UnreadableError
from weightspace.evaluation.metrics import Tally
from weightspace.evaluation.tables import markdown_table
from weightspace.experiments.trained_baselines import Baseline, automaton, counts_tree, labels_of, last_tokens
from weightspace.experiments.trained_controls import shuffled_heads, untrained
from weightspace.experiments.trained_power import power
from weightspace.files.progress import progress
from weightspace.rasp.program import Program
from weightspace.transformers.loading import load_trained
from weightspace.transformers.trained import TrainedTransformer

RESULTS = "results.jsonl"
BASELINES, CONTROLS = "baselines.jsonl", "controls.jsonl"
SEED = 0
QUICK = Settings(seconds=1.0, most=5_000, drawn=50, locate=False, largest=3, quota=150, seed=SEED)
"""How controls are decompiled: a short search, as nothing is to be found."""
PROGRAMS = "programs.md"


def run_trained(
    folder: Path, out: Path, *, models: Sequence[str] = (), seconds: float = 10.0, controls: bool = True
) -> list[dict[str, Any]]:
    """A row for each model of a folder; those that are in `out` already are not made again.

    Args:
        folder: with a folder for each model, config.json, model.safetensors and inputs.jsonl in it.
        out: of results.jsonl.
        models: names, or parts of them; all unless given.
        seconds: for each enumeration, and for looking inside four times as much.
        controls: whether untrained and shuffled networks are asked too.
    Raises:
        UnreadableError: if there is no model.
    """
    names = [name for name in models_in(folder) if not models or any(part in name for part in models)]
    if not names:
        raise UnreadableError(f"{folder} holds no models named so: expected folders with {INPUTS} in them")
    known = _pass(names, out / RESULTS, "models", lambda name: _row(folder / name, seconds))
    beside = _pass(names, out / BASELINES, "baselines", lambda name: {"baselines": _baselines(folder / name)})
    others: dict[str, dict[str, Any]] = {}
    if controls:
        others = _pass(
            names,
            out / CONTROLS,
            "controls",
            lambda name: {"controls": _controls(folder / name, known[name]["program"])},
        )
    return [{**known[name], **beside[name], **others.get(name, {"controls": {}})} for name in names]


def _pass(
    names: Sequence[str], path: Path, what: str, make: Callable[[str], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """A row for each model, those that a file has already and the others, which are added to it."""
    known = {row["model"]: row for row in _rows(path)}
    todo = [name for name in names if name not in known]
    with progress(what, len(todo)) as step:
        for name in todo:
            known[name] = {"model": name, **make(name)}
            _append(path, known[name])
            step()
    return known


def models_in(folder: Path) -> list[str]:
    """The folders of models, in the order of index.json where there is one."""
    if not folder.is_dir():
        raise UnreadableError(f"{folder} is no folder of models")
    found = sorted(path.parent.name for path in folder.glob(f"*/{INPUTS}"))
    try:
        listed = [entry["model"] for entry in json.loads((folder / INDEX).read_bytes())]
    except (OSError, ValueError, KeyError, TypeError):
        return found
    return [*(name for name in listed if name in found), *(name for name in found if name not in listed)]


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def _append(path: Path, row: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _row(folder: Path, seconds: float) -> dict[str, Any]:
    settings = Settings(seconds=seconds, seed=SEED)
    found = decompile_file(folder, settings=settings)
    given = read_inputs(folder / INPUTS)
    asked, strings, _, _ = opened(load_trained(folder), folder=folder, inputs=given)
    row: dict[str, Any] = {"kind": asked.kind, **found.to_json()}
    row |= {
        "longer": _share(found.longer),
        "short": _share(found.match),
        "off": _share(found.off),
        "every": _compared(found.every),
        "alphabet": _compared(found.alphabet),
        "random": [each.random for each in found.held],
        "all_located": found.located,
        "mechanism": found.mechanism,
        "timing": dict(found.timing),
    }
    row |= _network(asked, strings, given.wanted_of(asked.vocab), found)
    return row


def _share(share: Tally) -> list[int]:
    return [share.right, share.n]


def _compared(each: Compared | None) -> dict[str, Any] | None:
    if each is None:
        return None
    shown = None if each.counterexample is None else list(each.counterexample)
    found: dict[str, Any] = {"what": each.what, "length": each.length, "inputs": each.inputs, "wrong": each.wrong}
    return found | {"agreed": each.agreed, "shown": shown}


def _network(asked: Asked, strings: Strings, wanted: np.ndarray, found: TrainedDecompilation) -> dict[str, Any]:
    """How often the network itself is right, and whether its mistakes are the program's."""
    given = asked.given(strings)
    right = np.asarray(same(asked.kind, strings, given, wanted).all(1))
    short = sizes_of(strings) <= SHORT
    wrong = ~right
    predicted = 0
    if found.program is not None:
        answers = program_answers(found.program, asked.vocab, asked.kind, strings)
        predicted = int((same(asked.kind, strings, given, answers).all(1) & wrong).sum())
    return {
        "right_short": [int(right[short].sum()), int(short.sum())],
        "right_long": [int(right[~short].sum()), int((~short).sum())],
        "mistakes": [predicted, int(wrong.sum())],
    }


# -- baselines ------------------------------------------------------------------------------------------------------


def _baselines(folder: Path) -> dict[str, Any]:
    """Match on inputs not learnt from, and agreement off the distribution, of what is simpler."""
    settings = Settings(seed=SEED)
    asked, strings, _, _ = opened(load_trained(folder), folder=folder, inputs=read_inputs(folder / INPUTS))
    on, _, rest = split_inputs(strings, settings)
    others = strings.take(rest)
    off = off_distribution(asked, others.take(slice(0, len(on))), settings.seed + 1)
    learnt = labels_of(asked, asked.given(on))
    labels, off_labels = labels_of(asked, asked.given(others)), labels_of(asked, asked.given(off))

    def scored(baseline: Baseline) -> dict[str, Any]:
        right = ((baseline(others) == labels) | ~others.asked).all(1)
        agreed = (baseline(off) == off_labels)[off.asked]
        return {"match": [int(right.sum()), len(right)], "off": [int(agreed.sum()), len(agreed)]}

    found: dict[str, Any] = {}
    for tokens in range(1, 5):
        entry = scored(last_tokens(on, learnt, tokens))
        if "last tokens" not in found or entry["match"][0] > found["last tokens"]["match"][0]:
            found["last tokens"] = {**entry, "size": tokens}
    found["counts"] = scored(counts_tree(asked, on, learnt, settings.seed))
    machine = automaton(on, learnt)
    if machine is not None:
        found["automaton"] = {**scored(machine[0]), "size": machine[1]}
    alone = search(asked, on, off.take(slice(0, 0)), largest=4).programs
    if alone:
        answers = answers_of(asked, alone[0].program)
        equal = np.asarray(same(asked.kind, others, asked.given(others), answers(others)).all(1))
        found["behaviour"] = {
            "match": [int(equal.sum()), len(equal)],
            "off": _share(agreement(asked, answers, off)),
        }
    return found


# -- controls -------------------------------------------------------------------------------------------------------


def _controls(folder: Path, program: str | None) -> dict[str, Any]:
    """The trained network's program held against other networks, and what is found of these themselves."""
    given = read_inputs(folder / INPUTS)
    asked, strings, _, _ = opened(load_trained(folder), folder=folder, inputs=given)
    result: dict[str, Any] = {}
    if program is not None:
        on, _, _ = split_inputs(strings, Settings(seed=SEED))
        result["power"] = power(asked, Program.parse(program), on, SEED)
    for name, make in (("untrained", untrained), ("shuffled heads", shuffled_heads)):
        other = make(folder, SEED)
        against = None if program is None else _held_against(other, asked, strings, Program.parse(program))
        own = decompile_file(other, vocab=asked.vocab, inputs=given, settings=QUICK)
        result[name] = {"program": _compared(against), "status": own.status, "match": _share(own.match)}
    return result


def _held_against(other: TrainedTransformer, asked: Asked, strings: Strings, program: Program) -> Compared:
    """A program and another network than that of which it was found."""
    changed = Asked(other, asked.vocab, asked.kind)
    answers = answers_of(asked, program)
    if asked.kind == "sets":
        return of_language(changed, answers, most=2_000, seconds=2.0)
    return of_questions(changed, answers, Questions.seen(asked, strings), most=2_000, seconds=2.0)


# -- the table ------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown, and what they sum up to."""
    header = (
        "model", "network right, 1-50", "51-100", "match, 1-50", "51-100", "status, up to length", "off", "located",
        "lines", "s", "last tokens", "automaton", "counts", "behaviour alone, off",
    )  # fmt: skip
    body = [
        (
            row["model"], _of(row["right_short"]), _of(row["right_long"]), _of(row["short"]), _of(row["longer"]),
            _status(row), _of(row["off"]), _located(row), row["lines"], f"{row['seconds']:.0f}",
            *(_baseline(row, name) for name in ("last tokens", "automaton", "counts")),
            _baseline(row, "behaviour", "off"),
        )
        for row in rows
    ]  # fmt: skip
    return "\n\n".join(
        [markdown_table(header, body), markdown_table(("what", "models"), figures(rows)), controls_table(rows)]
    )


def controls_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The controls: how many inputs tell the program from the other network, and what is found of that itself."""
    entries = []
    for row in rows:
        for name, entry in row["controls"].items():
            if name == "power":
                said = f"{entry['rejected']} of {entry['mutants']} rejected, each by {entry['inputs']:g} inputs"
                entries.append((row["model"], "programs changed in one thing", said, None, None))
                continue
            against = entry["program"]
            said = "" if against is None else f"{against['wrong']:,} of {against['inputs']:,} differ"
            entries.append((row["model"], name, said, entry["status"], _of(entry["match"])))
    return markdown_table(("model", "control", "the trained network's program", "found of itself", "match"), entries)


def figures(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What the rows sum up to."""

    def count(chosen: Iterable[bool]) -> str:
        return f"{sum(chosen)} of {len(rows)}"

    sets = [row for row in rows if row["kind"] == "sets"]
    equal = sum(row["status"] == "equal_on_all" for row in sets)
    mistakes = [row["mistakes"] for row in rows if row["mistakes"][1]]
    best = max((m[0] / m[1] for m in mistakes), default=0.0)
    return [
        (f"match at least {MATCH}, length 1 to 50", count(_at_least(row["short"], MATCH) for row in rows)),
        (
            "the same at 1 to 50 and 51 to 100",
            count(_at_least(row["short"], MATCH) and _at_least(row["longer"], MATCH) for row in rows),
        ),
        ("equal on all inputs of the language", f"{equal} of {len(sets)} languages"),
        (
            "equal on all questions",
            f"{sum(r['status'] == 'equal_on_all' for r in rows) - equal} of {len(rows) - len(sets)}",
        ),
        (
            f"agreement off the distribution at least {MECHANISM}",
            count(_at_least(row["off"], MECHANISM) for row in rows),
        ),
        ("every S-op located", count(row["all_located"] for row in rows)),
        ("both: the network computes this", count(row["mechanism"] for row in rows)),
        ("largest share of a network's mistakes predicted", f"{best:.2f}"),
        ("lines, median", f"{median(row['lines'] for row in rows):g}"),
        ("seconds, median", f"{median(row['seconds'] for row in rows):.0f}"),
    ]


def programs(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every program as text, under the name of its model."""
    return "\n\n".join(f"`{row['model']}`\n\n```\n{row['program']}\n```" for row in rows if row["program"])


def _at_least(share: Sequence[int], least: float) -> bool:
    return share[1] > 0 and share[0] / share[1] >= least


def _of(share: Sequence[int]) -> str:
    return "-" if not share[1] else f"{share[0] / share[1]:.3f}"


def _status(row: Mapping[str, Any]) -> str:
    every = row["every"]
    if row["status"] == "equal_on_all":
        beyond = f"; {every['wrong']:,} of {every['inputs']:,} to {every['length']} differ" if every["wrong"] else ""
        return f"equal on all, {row['exhaustive_length']} ({every['agreed']:,}{beyond})"
    if every and every["wrong"]:
        said = f"to {every['length']}: {every['wrong']:,} of {every['inputs']:,} differ"
        return f"{row['status'].replace('_', ' ')} ({said})"
    return row["status"].replace("_", " ")


def _located(row: Mapping[str, Any]) -> str:
    shares = [each["interchange"] for each in row["located"]]
    if not shares:
        return "-"
    worst = min(0.0 if share is None else share for share in shares)
    return f"{'all' if row['all_located'] else 'not all'} of {len(shares)}, least {worst:.2f}"


def _baseline(row: Mapping[str, Any], name: str, what: str = "match") -> str:
    entry = row["baselines"].get(name)
    return "-" if entry is None else _of(entry[what])


def checked(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a table in which a control is called equal.

    Raises:
        NetworkError: that names it.
    """
    for row in rows:
        for name, entry in row["controls"].items():
            if name == "power":
                continue
            against = entry["program"]
            if entry["status"] == "equal_on_all" or (
                against is not None and against["inputs"] and not against["wrong"]
            ):
                raise NetworkError(f"{row['model']}: the control '{name}' is called equal, which must not be")
