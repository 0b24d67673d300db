"""A comparison as one HTML file that needs nothing else: text, table and pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from weightspace.evaluation import plots
from weightspace.evaluation.report_answers import answer_data, answer_pictures
from weightspace.evaluation.results import META_MODEL, Results, Row, leaders, percent
from weightspace.files.atomic import write_atomically
from weightspace.files.progress import duration
from weightspace.pages.page import render_page

_EXAMPLES = 10  # more than these are cut, and the report says so


def write_report(results: Results, path: str | Path) -> None:
    """Write the report of a comparison as one self-contained HTML file, whole or not at all.

    The file loads nothing (its own policy forbids it), runs one script, its own, follows light and dark mode, prints,
    and reads from 360 px on. Equal results give equal bytes.

    Args:
        results: what was found; all its texts are escaped.
        path: where; folders are made, an older file is replaced.
    """
    write_atomically(Path(path), render_report(results).encode())


def render_report(results: Results) -> str:
    """The HTML text of `write_report`."""
    data = answer_data(results)
    return render_page(
        "weightspace.evaluation",
        "report.html",
        scripts=() if data is None else ("report.js",),
        data=data,
        filters={"percent": percent, "count": _count, "seconds": _seconds},
        results=results,
        meta_model=META_MODEL,
        summary=summary(results),
        findings=[(target, finding(rows)) for target, rows in results.targets.items()],
        blocks=[_block(target, rows) for target, rows in results.targets.items()],
        extras=[
            name
            for name in ("seconds_fit", "seconds_predict", "parameters")
            if any(getattr(row, name) is not None for row in results.rows)
        ],
        pictures=_pictures(results),
        zoo=_facts(results.zoo, leave=("dropped",)),
        dropped=_dropped(results.zoo),
        examples=_examples(results.examples),
        provenance=_facts(results.provenance),
    )


def summary(results: Results) -> str:
    """One paragraph in plain words: what was asked, and what came out; no claim that the intervals do not carry."""
    targets = results.targets
    numbers = [row.n for row in results.rows]
    networks = _span([_count(n) for n in (min(numbers), max(numbers))])
    text = (
        f"Given nothing but a trained network's weights, can one tell its {_listed(list(targets), 'or')}? "
        f"Each predictor answered for {networks} test networks that it had not seen before."
    )
    mine = {t: row for t, rows in targets.items() for row in rows if row.predictor == META_MODEL}
    if not mine:
        return f"{text} The meta-model did not take part."
    above = [target for target, row in mine.items() if row.above_floor]
    text += f" The meta-model is clearly above both chance and the majority answer {_on(above, list(mine))}."
    if all(len(targets[target]) == 1 for target in mine):
        return f"{text} No other predictor took part."

    clear: list[str] = []
    shared: list[str] = []
    beaten: dict[str, list[str]] = {}
    for target, row in mine.items():
        best, *rest = leaders(targets[target])
        if row not in (best, *rest):
            beaten.setdefault(best.predictor, []).append(target)
        elif row.above_floor:
            (shared if rest else clear).append(target)
    verdicts = [f"is the clear best on {_listed(clear, 'and')}"] if clear else []
    verdicts += [f"shares the lead on {_listed(shared, 'and')}"] if shared else []
    verdicts += [f"is clearly beaten by {predictor} on {_listed(lost, 'and')}" for predictor, lost in beaten.items()]
    if not verdicts:
        return text
    return f"{text} Among the predictors it {'; it '.join(verdicts)}."


def finding(rows: Sequence[Row]) -> str:
    """What the rows of one target show, in one to three sentences."""
    best, *rest = leaders(rows)
    leading = (best, *rest)
    mine = next((row for row in rows if row.predictor == META_MODEL), None)
    floor = f"chance ({percent(best.chance)}) and the majority answer ({percent(best.majority)})"
    if not best.above_floor:
        return f"No predictor is clearly above {floor}. The highest is {_named(best)} with {_measured(best)}."
    if not rest:
        text = f"{_capital(_named(best))} is best: {_measured(best)}, above {floor}."
    else:
        names = _listed([f"{_named(row)} ({percent(row.accuracy)})" for row in leading], "and")
        text = f"{_capital(names)} lead together: their intervals overlap, so none is called the best."
        below = [_named(row) for row in leading if not row.above_floor]
        if below:
            text += f" Not clearly above {floor}: {_listed(below, 'and')}."
        else:
            text += f" {'Both' if len(rest) == 1 else 'All'} are above {floor}."
    if mine is not None and mine not in leading:
        where = "above" if mine.above_floor else "not clearly above"
        text += f" The meta-model is behind, with {_measured(mine)}, {where} chance and majority."
    return text


def _measured(row: Row) -> str:
    return f"{percent(row.accuracy)} (95% interval {100 * row.low:.1f} to {100 * row.high:.1f})"


def _named(row: Row) -> str:
    return f"the {META_MODEL}" if row.predictor == META_MODEL else row.predictor


def _capital(text: str) -> str:
    """The text as a sentence begins; `str.capitalize` would make small letters of the others."""
    return text[:1].upper() + text[1:]


def _listed(names: Sequence[str], joint: str) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {joint} {names[-1]}"


def _on(chosen: Sequence[str], asked: Sequence[str]) -> str:
    """Which of several targets, in the fewest words: "on all 6 targets but width"."""
    others = [target for target in asked if target not in chosen]
    if len(asked) == 1:
        return f"on {asked[0]}" if chosen else "on no target"
    if not chosen:
        return f"on none of the {len(asked)} targets"
    if not others:
        return f"on all {len(asked)} targets"
    if len(others) < len(chosen):
        return f"on {len(chosen)} of {len(asked)} targets (not on {_listed(others, 'or')})"
    return f"on {len(chosen)} of {len(asked)} targets: {_listed(chosen, 'and')}"


def _count(number: Any) -> str:
    """A whole number with thin spaces between thousands; anything else as it is."""
    if isinstance(number, bool) or not isinstance(number, int):
        return str(number)
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _seconds(seconds: Any) -> str:
    """A duration to about two figures: "< 1 ms", "0.35 s", "12 s", "3 min 20 s", "2 h 05 min"."""
    if not isinstance(seconds, int | float):
        return str(seconds)
    if 0 < seconds < 1e-3:
        return "< 1 ms"
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def _span(texts: Sequence[str]) -> str:
    """The first and last text, or one where they agree."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def _block(target: str, rows: Sequence[Row]) -> dict[str, Any]:
    """The rows of one target, with what they share and who leads."""
    leading = leaders(rows)
    marked = leading if leading[0].above_floor else ()
    return {
        "target": target,
        "rows": rows,
        "chance": _span(sorted({percent(row.chance) for row in rows})),
        "majority": _span(sorted({percent(row.majority) for row in rows})),
        "networks": _span([_count(n) for n in sorted({row.n for row in rows})]),
        "best": marked[0].predictor if len(marked) == 1 else None,
        "tied": [row.predictor for row in marked] if len(marked) > 1 else [],
    }


def _pictures(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Each picture's caption, its words for those who do not see it, and its SVG."""
    pictures: dict[str, list[dict[str, Any]]] = {
        "intervals": [
            {
                "caption": target,
                "alt": f"Accuracy on {target}. "
                + "; ".join(f"{row.predictor} {_measured(row)}" for row in rows)
                + f"; chance {percent(rows[0].chance)}; majority {percent(rows[0].majority)}.",
                "svg": plots.intervals(rows),
            }
            for target, rows in results.targets.items()
        ],
        "confusion": [
            {
                "caption": f"{target} ({confusion.predictor})",
                "alt": f"Confusion matrix of {confusion.predictor} on {target}. "
                + "; ".join(
                    f"true {name}: "
                    + ", ".join(
                        f"{count} answered {answer}"
                        for answer, count in zip(confusion.classes, row, strict=True)
                        if count
                    )
                    for name, row in zip(confusion.classes, confusion.matrix, strict=True)
                    if any(row)
                )
                + ".",
                "svg": plots.confusion_picture(confusion),
            }
            for target, confusion in results.confusion.items()
        ],
        "curves": [
            {
                "caption": f"Training of {name}",
                "alt": f"Losses and validation accuracy of {name} over {points[-1].step} steps.",
                "svg": plots.training_curves(points),
            }
            for name, points in results.curves.items()
            if any((p.training_loss, p.validation_loss, p.validation_accuracy) != (None,) * 3 for p in points)
        ],
        "accuracies": [],
        "answers": answer_pictures(results),
    }
    if results.accuracies:
        lowest, highest = min(results.accuracies), max(results.accuracies)
        pictures["accuracies"].append(
            {
                "caption": "How good the base networks are at their own task",
                "alt": f"Histogram of the test accuracy of {len(results.accuracies)} base networks, "
                f"from {percent(lowest)} to {percent(highest)}.",
                "svg": plots.accuracy_histogram(results.accuracies),
            }
        )
    every = [picture for group in pictures.values() for picture in group]
    for number, picture in enumerate(every):
        picture["svg"] = _inline(picture["svg"], f"p{number}-", picture["alt"])
    return pictures


def _inline(svg: str, prefix: str, alt: str) -> Markup:
    """An SVG document as an element of a page: named, of any width, its identifiers and colours its own.

    `svg` is matplotlib's, which has escaped the texts in it.
    """
    body = svg[svg.index("<svg") :]
    opening, _, content = body.partition(">")
    box = re.search(r'viewBox="([\d. ]+)"', opening)
    assert box is not None, "matplotlib writes a viewBox"
    # only inside tags: a class may be named id="x", and texts are left alone
    content = re.sub(r"<metadata>.*?</metadata>", "", content, flags=re.DOTALL)
    content = re.sub(r"<[^<>]+>", lambda tag: _own(tag[0], prefix), content)
    head = Markup('<svg role="img" aria-label="{}" viewBox="{}">').format(alt, box[1])
    return head + Markup(content)


def _own(tag: str, prefix: str) -> str:
    """One tag with identifiers that no other picture has, and colours that the page's style sheet may replace."""
    tag = re.sub(r'\bid="', f'id="{prefix}', tag)
    tag = tag.replace('xlink:href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    for name, colour in plots.COLOURS.items():
        tag = tag.replace(colour, f"var(--{name})")
    return tag


def _facts(record: Mapping[str, Any], leave: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """Names and texts of a free-form record, one line for each value."""
    facts = []
    for key, value in record.items():
        if key in leave or value is None:
            continue
        if key == "seconds":
            facts.append(("time", [_seconds(value)]))
        elif isinstance(value, Mapping):
            lines = [f"{name}: {_count(item)}" for name, item in value.items()]
            facts.append((key.replace("_", " "), lines))
        elif isinstance(value, list | tuple):
            facts.append((key.replace("_", " "), [_count(item) for item in value]))
        else:
            # a seed is a name, not a quantity: no spaces in it
            facts.append((key.replace("_", " "), [str(value) if key == "seed" else _count(value)]))
    return facts


def _dropped(zoo: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Reasons for which networks were left out, the commonest first."""
    dropped = zoo.get("dropped") or {}
    if not isinstance(dropped, Mapping):
        return [("not said", dropped)]
    return sorted(dropped.items(), key=lambda item: (-item[1] if isinstance(item[1], int) else 0, item[0]))


def _examples(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A table of the first examples: columns in the order in which they first appear."""
    shown = examples[:_EXAMPLES]
    columns = list(dict.fromkeys(key for example in shown for key in example))
    cells = [[_cell(example.get(column)) for column in columns] for example in shown]
    return {"columns": columns, "rows": cells, "left_out": len(examples) - len(shown)}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
