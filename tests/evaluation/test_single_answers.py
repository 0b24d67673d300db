"""Single answers survive a record, their curves are scikit-learn's, and a report shows them as text."""

import json
import re
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from weightspace.evaluation.compare import single_answers
from weightspace.evaluation.report import render_report
from weightspace.evaluation.results import Results, ResultsError, Row
from weightspace.evaluation.single_answers import SingleAnswers, area_under, calibration_of, roc_points
from weightspace.metamodels.checks import planted_examples


def answers(**changes: Any) -> SingleAnswers:
    said = {"meta-model": ((0.9, 0.1), (0.2, 0.8)), "</script>": ((0.5, 0.5), (0.5, 0.5))}
    fields: dict[str, Any] = {"classes": ("ReLU", "tanh"), "networks": (3, 5), "truth": (0, 1), "probabilities": said}
    return SingleAnswers(**(fields | changes))


def results(found: SingleAnswers) -> Results:
    share = {"accuracy": 1.0, "low": 0.5, "high": 1.0, "chance": 0.5, "majority": 0.5}
    row = Row(target="activation", predictor="meta-model", n=2, **share)  # pyright: ignore[reportArgumentType]
    return Results(task="t", rows=(row,), answers={"activation": found})


def test_single_answers_survive_a_record() -> None:
    assert Results.from_json(json.loads(json.dumps(results(answers()).to_json()))) == results(answers())


def test_answers_that_do_not_fit_each_other_are_refused() -> None:
    for changes in ({"truth": (0, 2)}, {"truth": (0,)}, {"probabilities": {"x": ((0.5, 0.5),)}}):
        with pytest.raises(ResultsError, match="single answers"):
            answers(**changes)
    record = results(answers()).to_json()
    record["answers"]["activation"]["probabilities"]["meta-model"][0][0] = float("inf")
    with pytest.raises(ResultsError, match="finite number"):
        Results.from_json(record)


def test_the_area_under_the_curve_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    said = np.round(rng.dirichlet(np.ones(3), 200) + 0.3 * np.eye(3)[truth], 1)  # with ties
    wanted = roc_auc_score(np.eye(3)[truth].ravel(), said.ravel())
    points = roc_points(said, truth)
    assert area_under(points) == pytest.approx(wanted, abs=1e-12)
    assert points[0].tolist() == [0, 0] and points[-1].tolist() == [1, 1] and (np.diff(points, axis=0) >= 0).all()


def test_answers_that_come_true_as_often_as_they_say_have_no_calibration_error() -> None:
    said = np.repeat([[0.75, 0.25]], 40, 0)
    truth = np.array([0, 0, 0, 1] * 10)
    assert calibration_of(said, truth).error == pytest.approx(0)
    wrong = calibration_of(said, 1 - truth)
    assert wrong.error == pytest.approx(0.5) and wrong.count.tolist() == [40]


def test_single_answers_are_taken_from_what_predictors_said_of_networks_with_a_known_class() -> None:
    test = planted_examples(12, seed=0)
    target = test.targets[0]
    said = np.eye(len(target.classes))[np.maximum(test.labels[target.name], 0)]
    found = single_answers(target, {"oracle": {target.name: said}}, test)
    known = np.flatnonzero(test.labels[target.name] >= 0)
    assert found.networks == tuple(known.tolist())
    assert np.array(found.probabilities["oracle"]).argmax(1).tolist() == list(found.truth)


def test_a_report_shows_curves_and_the_answers_as_data_and_one_without_them_has_no_script() -> None:
    page = render_report(results(answers()))
    assert "How sure, and how often right" in page and "activation: calibration" in page
    data = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[0]
    assert json.loads(data) == {"activation": answers().to_json()} and page.count("</script>") == 2
    plain = render_report(Results(task="t", rows=results(answers()).rows))
    assert "<script" not in plain and "How sure" not in plain
