"""Results survive a file, the table and the report say what the intervals carry, and no more."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weightspace.evaluation import plots
from weightspace.evaluation.report import finding, render_report, summary, write_report
from weightspace.evaluation.results import (
    Confusion,
    CurvePoint,
    Results,
    ResultsError,
    Row,
    format_table,
    leaders,
)


def row(predictor: str, accuracy: float, target: str = "activation", **changes: Any) -> Row:
    """A row with an interval of 4 points either side."""
    fields: dict[str, Any] = {
        "low": max(0.0, accuracy - 0.04),
        "high": min(1.0, accuracy + 0.04),
        "chance": 1 / 3,
        "majority": 0.36,
        "n": 200,
    }
    return Row(target=target, predictor=predictor, accuracy=accuracy, **(fields | changes))


@pytest.fixture
def results() -> Results:
    """The meta-model is clearly best on one target, level on one, beaten on one, at chance on one."""
    return Results(
        task="hyperparameters",
        rows=(
            row("meta-model", 0.9, seconds_fit=412.0, parameters=3_412_005),
            row("statistics + LightGBM", 0.7, seconds_fit=6.3),
            row("meta-model", 0.8, "optimiser"),
            row("statistics + LightGBM", 0.82, "optimiser"),
            row("meta-model", 0.5, "batch size"),
            row("statistics + LightGBM", 0.7, "batch size"),
            row("meta-model", 0.36, "width"),
            row("statistics + LightGBM", 0.35, "width"),
        ),
        zoo={
            "recipe": "hyperparameters-small",
            "networks": 2000,
            "dropped": {"test accuracy below 50%": 12, "loss was not finite": 17},
        },
        accuracies=(0.91, 0.95, 0.97, 1.0),
        curves={
            "meta-model": (
                CurvePoint(step=0, training_loss=1.1, validation_loss=1.2),
                CurvePoint(step=50, training_loss=0.4, validation_accuracy=0.9),
            )
        },
        confusion={
            "activation": Confusion(classes=("ReLU", "tanh"), matrix=((90, 10), (4, 96)), predictor="meta-model")
        },
        examples=({"network": 7, "truth": "ReLU", "probability": 0.75},),
        provenance={"version": "0.1.0", "seed": 20240601, "command": "compare --seed 20240601"},
    )


class Page(HTMLParser):
    """The tags, attributes and identifiers of a page, and the text that is shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


# ---------------------------------------------------------------- the record


def test_results_survive_json(results: Results) -> None:
    assert Results.from_json(json.loads(json.dumps(results.to_json()))) == results


def test_results_survive_a_file(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results


def test_the_shortest_record_is_a_task_and_one_row() -> None:
    record = {
        "task": "t",
        "rows": [
            {
                "target": "width",
                "predictor": "meta-model",
                "accuracy": 1,
                "low": 0.9,
                "high": 1,
                "chance": 0.5,
                "majority": 0.5,
                "n": 40,
            }
        ],
    }
    assert Results.from_json(record).to_json() == record


def broken(results: Results, *path: Any, value: Any) -> Any:
    """The record of `results` with the entry at `path` replaced, or taken out where `value` is ..."""
    record = json.loads(json.dumps(results.to_json()))
    place = record
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("task",), ..., "no text 'task'"),
        (("rows",), ..., "'rows' is missing, it must be a list"),
        (("rows",), [], "has no rows"),
        (("rows", 1), "a row", "row 1 is 'a row', it must be an object"),
        (("rows", 0, "low"), ..., "row 0 has no 'low'"),
        (("rows", 0, "acuracy"), 1, "row 0 has the unknown key 'acuracy'"),
        (("rows", 0, "accuracy"), "0.9", "row 0: 'accuracy' is '0.9', it must be a finite number"),
        (("rows", 0, "accuracy"), float("nan"), "must be a finite number"),
        (("rows", 0, "accuracy"), True, "must be a finite number"),
        (("rows", 0, "accuracy"), 0.2, "low <= accuracy <= high"),
        (("rows", 0, "n"), 0, "at least 1"),
        (("rows", 0, "n"), 1.5, "must be a whole number"),
        (("rows", 0, "chance"), 2, "from 0 to 1"),
        (("rows", 0, "seconds_fit"), -1, "must be 0 or more"),
        (("rows", 0, "target"), 3, "must be text"),
        (("rows", 0, "predictor"), "", "empty name"),
        (("rows", 0, "predictor"), "statistics + LightGBM", "two rows"),
        (("zoo",), [1], "'zoo' is .*, it must be an object"),
        (("accuracies",), [2], "from 0 to 1"),
        (("curves", "meta-model"), {}, "must be a list"),
        (("curves", "meta-model", 0, "step"), ..., "has no 'step'"),
        (("confusion", "activation", "matrix"), [[1, 2]], "must be square"),
        (("confusion", "activation", "classes"), [1, 2], "must be text"),
        (("rules",), {}, "unknown key 'rules'"),
    ],
)
def test_a_bad_record_is_one_clear_sentence(results: Results, path: tuple, value: Any, message: str) -> None:
    with pytest.raises(ResultsError, match=message) as caught:
        Results.from_json(broken(results, *path, value=value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_a_bad_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=re.escape(str(path))):
        Results.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="cannot be read"):
        Results.load(tmp_path / "none.json")


def test_what_json_cannot_hold_is_refused_before_a_file_is_written(results: Results, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="cannot be written as JSON"):
        replace(results, zoo={"recipe": object()}).save(tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- who is ahead


def test_a_clear_winner_leads_alone_and_overlap_is_shared() -> None:
    ahead, near, far = row("a", 0.9), row("b", 0.83), row("c", 0.7)
    assert leaders([far, ahead]) == (ahead,)
    assert leaders([far, near, ahead]) == (ahead, near)


def marks(table: str) -> dict[str, list[str]]:
    """First characters of the lines of each predictor, in order of targets."""
    found: dict[str, list[str]] = {"meta-model": [], "statistics + LightGBM": []}
    for line in table.splitlines():
        for predictor, seen in found.items():
            if predictor in line and "%" in line:
                seen.append(line[0] if line[0] in "*~" else "")
    return found


def test_the_table_marks_a_winner_only_where_there_is_one(results: Results) -> None:
    table = format_table(results)
    assert marks(table) == {
        "meta-model": ["*", "~", "", ""],
        "statistics + LightGBM": ["", "~", "*", ""],
    }
    assert table.count("No predictor is clearly above chance") == 1


def test_the_table_shows_every_number_of_a_row(results: Results) -> None:
    line = next(line for line in format_table(results).splitlines() if "meta-model" in line)
    assert line.split()[2:] == ["90.0%", "86.0", "-", "94.0", "33.3%", "36.0%", "200"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_keeps_within_its_width_and_to_ascii(results: Results, width: int) -> None:
    long = row("a predictor with a rather long name, as people give them", 0.5, "width")
    certain = row("certain", 1.0, "width", low=0.99, high=1.0, n=1_000_000)
    table = format_table(replace(results, rows=(*results.rows, long, certain)), width=width)
    assert max(len(line) for line in table.splitlines()) <= width
    assert table.isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", table)
    assert "…" not in table
    assert re.search(r"100\.0% +99\.0 - 100\.0 .* 1000000$", table, re.MULTILINE)


def test_names_are_no_markup_for_the_table(results: Results) -> None:
    table = format_table(replace(results, rows=(row("[red]x[/red] :smile:", 0.5),)))
    assert "[red]x[/red] :smile:" in table


# ---------------------------------------------------------------- words


def test_the_summary_claims_what_the_intervals_carry(results: Results) -> None:
    text = summary(results)
    assert "activation, optimiser, batch size or width" in text
    assert "above both chance and the majority answer on 3 of 4 targets (not on width)." in text
    assert "is the clear best on activation;" in text
    assert "shares the lead on optimiser;" in text
    assert "is clearly beaten by statistics + LightGBM on batch size." in text


def test_the_summary_says_when_the_meta_model_shows_nothing() -> None:
    text = summary(Results(task="t", rows=(row("meta-model", 0.34), row("other", 0.35))))
    assert "on no target" in text
    assert "best" not in text
    assert "lead" not in text


def test_the_summary_says_who_was_absent() -> None:
    assert "did not take part" in summary(Results(task="t", rows=(row("other", 0.9),)))
    assert "No other predictor" in summary(Results(task="t", rows=(row("meta-model", 0.9),)))


def test_a_finding_calls_nobody_best_on_overlap_or_at_chance() -> None:
    clear = finding([row("meta-model", 0.9), row("other", 0.7)])
    level = finding([row("meta-model", 0.9), row("other", 0.88)])
    nothing = finding([row("meta-model", 0.37), row("other", 0.35)])
    behind = finding([row("meta-model", 0.5), row("other", 0.7)])
    assert clear.startswith("The meta-model is best: 90.0% (95% interval 86.0 to 94.0), above")
    assert "none is called the best" in level
    assert nothing.startswith("No predictor is clearly above chance (33.3%) and the majority")
    assert behind.startswith("Other is best")
    assert "The meta-model is behind, with 50.0%" in behind


# ---------------------------------------------------------------- the page


def test_the_report_needs_nothing_else(results: Results) -> None:
    html = render_report(results)
    assert not re.search(r"https?:|//[a-z]", html)
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "img", "image", "object", "embed", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
                assert (value or "").startswith("#")
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\((.)", html))


def test_references_inside_the_pictures_meet_and_no_identifier_is_used_twice(
    results: Results,
) -> None:
    html = render_report(results)
    names = [a["id"] for _, a in Page(html).tags if "id" in a]
    assert len(names) == len(set(names))
    used = re.findall(r'(?:href="|url\()#([^")]+)', html) + re.findall(r'aria-labelledby="([^"]+)"', html)
    assert used
    assert set(used) <= set(names)


HOSTILE = '<script>alert(1)</script>"\'&$x^2$ url(#a) id="p" http://example.invalid'


def test_every_text_of_the_results_is_escaped(results: Results) -> None:
    everywhere = replace(
        results,
        task=HOSTILE,
        rows=tuple(
            replace(r, target=f"{r.target}{HOSTILE}", predictor=f"{r.predictor}{HOSTILE}") for r in results.rows
        ),
        zoo={HOSTILE: HOSTILE, "dropped": {HOSTILE: 3}, "counts": {HOSTILE: HOSTILE}},
        curves={HOSTILE: results.curves["meta-model"]},
        confusion={
            HOSTILE: Confusion(classes=(HOSTILE,), matrix=((1,),), predictor=HOSTILE),
        },
        examples=({HOSTILE: HOSTILE},),
        provenance={HOSTILE: HOSTILE, "command": HOSTILE, "list": [HOSTILE]},
    )
    html = render_report(everywhere)
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script" not in html
    assert HOSTILE in page.text  # shown as it is, not dropped and not escaped twice
    assert page.tags[0][0] == "html"


def test_the_report_is_readable_by_those_who_do_not_see_it(results: Results) -> None:
    page = Page(render_report(results))
    tags = page.tags
    assert ("html", {"lang": "en"}) in tags
    pictures = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(pictures) == 4 + 1 + 1 + 1
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 20 for a in pictures)
    assert [tag for tag, _ in tags].count("figcaption") == len(pictures)
    assert all(a.get("scope") for tag, a in tags if tag == "th")
    assert [tag for tag, _ in tags].count("h1") == 1


def test_the_report_holds_numbers_reasons_and_provenance(results: Results) -> None:
    text = " ".join(Page(render_report(results)).text.split())
    assert summary(results) in text
    for part in (
        "90.0%",
        "86.0\N{EN DASH}94.0",
        "6 min 52 s",
        "loss was not finite: 17 test accuracy below 50%: 12",  # the commoner reason first
        "compare --seed 20240601",
        "hyperparameters-small",
        "0.75",
    ):
        assert part in text


def test_the_report_of_the_shortest_record_has_no_empty_sections() -> None:
    html = render_report(Results(task="t", rows=(row("meta-model", 0.9),)))
    assert re.findall(r'<h2 id="([a-z]+)"', html) == ["scores", "intervals", "reading"]


def test_equal_results_give_equal_bytes(results: Results, tmp_path: Path) -> None:
    write_report(results, tmp_path / "a" / "report.html")
    write_report(Results.from_json(results.to_json()), tmp_path / "b.html")
    assert (tmp_path / "a" / "report.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_every_colour_of_a_picture_follows_the_page(results: Results) -> None:
    html = render_report(results)
    body = html[html.index("<body>") :]
    assert re.findall(r"#[0-9a-f]{6}\b", body) == []
    style = html[: html.index("<body>")]
    assert all(f"--{name}:" in style for name in plots.COLOURS)


# ---------------------------------------------------------------- pictures


def test_pictures_show_names_as_they_are(results: Results) -> None:
    confusion = Confusion(classes=("$x$", "a<b"), matrix=((3, 1), (0, 4)), predictor="p")
    svg = plots.confusion_picture(confusion)
    assert ">$x$<" in svg
    assert ">a&lt;b<" in svg
    assert all(f">{count}<" in svg for count in (3, 1, 0, 4))
    assert plots.intervals(results.targets["activation"]).count("meta-model") >= 1


@pytest.mark.parametrize("accuracies", [(1.0,), (0.0,), (1.0, 1.0), (0.1, 0.9), (0.975, 0.98, 1.0)])
def test_a_histogram_counts_every_network(accuracies: tuple[float, ...], monkeypatch: Any) -> None:
    counted: list[int] = []
    draw = plots.Axes.hist

    def hist(axes: Any, values: Any, bins: Any, **options: Any) -> Any:
        drawn = draw(axes, values, bins=bins, **options)
        counted.append(np.sum(drawn[0]))
        return drawn

    monkeypatch.setattr(plots.Axes, "hist", hist)
    plots.accuracy_histogram(accuracies)
    assert counted == [len(accuracies)]


def test_a_picture_of_nothing_is_an_error(results: Results) -> None:
    with pytest.raises(ValueError, match="no accuracies"):
        plots.accuracy_histogram([])
    with pytest.raises(ValueError, match="no measurements"):
        plots.training_curves([CurvePoint(step=0)])
    with pytest.raises(ValueError, match="one target"):
        plots.intervals(results.rows)


def test_a_curve_of_one_measurement_is_drawn() -> None:
    svg = plots.training_curves([CurvePoint(step=3, validation_accuracy=0.5)])
    assert "accuracy" in svg
    assert "loss" not in svg
