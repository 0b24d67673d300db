"""The pages of a scan and of a comparison in a browser: chosen, sorted, opened, and usable by everybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.pages import chromium
from weightspace.backdoors.page import write_scan
from weightspace.backdoors.verdict import Blame, Finding, Scan
from weightspace.evaluation.report import write_report
from weightspace.evaluation.results import Results, Row
from weightspace.evaluation.single_answers import SingleAnswers

FINDINGS = (
    Finding("a/clean.pt", "clean", "Nothing.", p_value=0.5, probability=0.3, score=-1.0, size=10),
    Finding("b/bad.pt", "suspicious", "Much.", p_value=0.01, score=4.0, neurons=(Blame("x[1]", 0.5),), size=30),
    Finding("c/<img src=x>.pt", "suspicious", "More.", p_value=0.02, score=5.0, size=20),
    Finding("d/odd.bin", "out_of_scope", "Another kind.", size=40),
)


def results() -> Results:
    """Two predictors on three classes, one right on two of three networks."""
    said = {"meta-model": ((0.9, 0.1, 0.0), (0.2, 0.7, 0.1), (0.6, 0.3, 0.1)), "linear": ((0.4, 0.3, 0.3),) * 3}
    answers = SingleAnswers(
        classes=("ReLU", "</script><b>", "tanh"), networks=(7, 8, 9), truth=(0, 1, 2), probabilities=said
    )
    shared = {"target": "activation", "low": 0.1, "high": 0.9, "chance": 1 / 3, "majority": 1 / 3, "n": 3}
    rows = (Row(predictor="meta-model", accuracy=2 / 3, **shared), Row(predictor="linear", accuracy=1 / 3, **shared))
    return Results(task="t", rows=rows, answers={"activation": answers})


@pytest.fixture(scope="session")
def scan_page(folder: Path) -> Path:
    clean = tuple(np.linspace(-3, 3, 40).tolist())
    write_scan(Scan(FINDINGS, clean_scores=clean), folder / "scan.html")
    return folder / "scan.html"


@pytest.fixture(scope="session")
def report_page(folder: Path) -> Path:
    write_report(results(), folder / "report.html")
    return folder / "report.html"


def test_files_are_chosen_by_verdict_and_name_sorted_and_the_address_keeps_it(
    windows: chromium.Windows, scan_page: Path
) -> None:
    page = windows.open(scan_page, ready="html.alive")
    shown = "[...document.querySelectorAll('.finding:not([hidden])')].map((one) => one.dataset.file.trim()[0]).join('')"
    assert page.evaluate(shown) == "bcda" and page.inner_text("#shown") == "4 files"
    page.select_option("#sort", "score")
    assert page.evaluate(shown) == "cbad"
    page.select_option("#sort", "size")
    assert page.evaluate(shown) == "dbca"
    page.click("button[data-verdict=out_of_scope]")
    assert page.evaluate(shown) == "bca" and page.inner_text("#shown") == "3 of 4 files"
    page.fill("#search", "BAD")
    assert page.evaluate(shown) == "b"
    fragment = page.evaluate("location.hash").removeprefix("#")
    assert windows.open(scan_page, fragment=fragment, ready="html.alive").evaluate(shown) == "b"


def test_single_networks_are_opened_with_what_each_predictor_said(windows: chromium.Windows, report_page: Path) -> None:
    page = windows.open(report_page, ready="html.alive")
    assert page.locator("#singles tr").all_inner_texts() == ["network 9\ttanh\t\u2717 ReLU\t60.0%"]
    page.select_option("#which", "right")
    assert page.locator("#singles tr").count() == 2
    page.locator("#singles button").nth(1).click()
    drilled = page.locator("table.one tbody tr").all_inner_texts()
    assert drilled[1].startswith("</script><b> (the truth)\t70.0% \u2713\t30.0%")
    assert page.locator("b", has_text="truth").count() == 0
    fragment = page.evaluate("location.hash").removeprefix("#")
    again = windows.open(report_page, fragment=fragment, ready="html.alive")
    assert again.locator("table.one tbody tr").all_inner_texts() == drilled


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", chromium.WIDTHS)
@pytest.mark.parametrize("which", ["scan", "report"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    windows: chromium.Windows, scan_page: Path, report_page: Path, which: str, width: int, scheme: str
) -> None:
    file = {"scan": scan_page, "report": report_page}[which]
    page = windows.open(file, width=width, scheme=scheme, ready="html.alive")
    assert chromium.violations(page) == [] and chromium.overflow(page) <= 0
