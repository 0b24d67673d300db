"""The small detector that the tests of the scanner share."""

from pathlib import Path

import numpy as np
import pytest

from tests.backdoors.networks import examples
from tests.metamodels.test_neuron_tokens import NEURONS
from weightspace.backdoors.calibration import Calibration
from weightspace.backdoors.detector import Detector
from weightspace.backdoors.task import BACKDOOR
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.scope import Scope


@pytest.fixture(scope="session")
def detector() -> Detector:
    training, held, apart = examples(300, 1), examples(100, 2), examples(120, 3)
    model = MetaModel(NEURONS).fit(training, held)
    bare = Detector(model, Calibration(1.0, 0.0, np.zeros(0)), Scope.fit(training.networks, held.networks), {})
    calibration = Calibration.fit(bare.scores(apart.networks), apart.labels[BACKDOOR.name])
    card = {"architecture": "cnn", "networks": 300, "images": "none", "attacks": "a plant", "calibration": 60}
    return Detector(model, calibration, bare.scope, card | {"detected": "most"})


@pytest.fixture(scope="session")
def saved(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector.save(tmp_path_factory.mktemp("detector") / "detector.safetensors")
