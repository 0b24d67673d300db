"""Heads of the zoo with their fingerprints and behaviours: what a reader of heads is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from weightspace.heads.behaviour import BEHAVIOURS, HeadInputs, head_behaviour, repeated_texts
from weightspace.heads.fingerprint import fingerprints
from weightspace.heads.head_reader import READ, LabelledHeads
from weightspace.heads.invariants import head_invariants
from weightspace.heads.language import MARKS
from weightspace.heads.model_zoo import ZooModel, models_of

TEXTS, REPEATED, PERIOD = 128, 64, 24


def labelled_heads(folder: Path) -> LabelledHeads:
    """All heads of a zoo of small models, labelled on texts of each model's own language.

    Raises:
        ZooError: if there are no models.
    """
    names: tuple[str, ...] = ()
    rows, scores, models, heads = [], [], [], []
    for model in models_of(folder):
        found = fingerprints(head_invariants(model.transformer))
        behaviour = head_behaviour(model.transformer, inputs_of_model(model), batch=32)
        names = found.names
        rows.append(found.rows.numpy())
        scores.append(behaviour.scores.flatten(0, 1)[:, [BEHAVIOURS.index(name) for name in READ]].numpy())
        models.append(np.full(len(rows[-1]), model.number))
        layers, each = behaviour.scores.shape[:2]
        heads += [f"small model {model.number}, layer {n}, head {h}" for n in range(layers) for h in range(each)]
    return LabelledHeads(names, np.concatenate(rows), np.concatenate(scores), np.concatenate(models), tuple(heads))


def inputs_of_model(model: ZooModel) -> HeadInputs:
    """Texts of its language, and repeated random ones."""
    random = torch.Generator().manual_seed(model.model.seed + 2)
    texts = model.model.language.draw(TEXTS, model.model.length, random)
    repeated = repeated_texts(model.model.vocabulary - MARKS, REPEATED, PERIOD, model.model.seed) + MARKS
    return HeadInputs(texts, repeated, None, f"{TEXTS} texts of its own language; {REPEATED} random texts, said twice")
