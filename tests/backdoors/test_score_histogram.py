"""The picture of a scan's scores counts every network once and draws the limit where verdicts change."""

import numpy as np
import pytest

from weightspace.backdoors.calibration import Calibration
from weightspace.backdoors.score_histogram import draw_histogram, histogram_of
from weightspace.backdoors.verdict import Finding, Scan

CLEAN = tuple(np.linspace(-2, 2, 41).tolist())


def scanned(*scores: float | None, false_alarms: float = 0.05) -> Scan:
    findings = tuple(Finding(f"{i}.pt", "clean", "x.", score=score) for i, score in enumerate(scores))
    return Scan(findings, false_alarms=false_alarms, clean_scores=CLEAN)


def test_every_network_is_counted_once() -> None:
    found = histogram_of(scanned(-3.0, 0.0, 0.1, 5.0, None))
    assert found is not None and found.clean.sum() == 41 and found.scanned.sum() == 4


@pytest.mark.parametrize("false_alarms", [0.03, 0.05, 0.1, 0.5])
def test_the_limit_stands_where_the_p_value_crosses_the_share_of_false_alarms(false_alarms: float) -> None:
    found = histogram_of(scanned(0.0, false_alarms=false_alarms))
    assert found is not None
    below, above = Calibration(1.0, 0.0, np.array(CLEAN)).p_value(np.array([found.limit - 1e-6, found.limit + 1e-6]))
    assert above <= false_alarms < below


def test_where_nothing_was_judged_or_clean_scores_are_unknown_there_is_no_picture() -> None:
    assert histogram_of(scanned(None)) is None
    assert histogram_of(Scan((Finding("a.pt", "clean", "x.", score=1.0),))) is None


def test_the_picture_says_in_words_what_it_shows() -> None:
    found = histogram_of(scanned(5.0, 0.0))
    assert found is not None
    picture = str(draw_histogram(found))
    assert "41 clean networks, 2 scanned" in picture and "1 scanned are in bars above it" in picture
    assert picture.count('class="scanned"') == 2
