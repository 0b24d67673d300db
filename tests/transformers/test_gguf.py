"""GGUF files whose header is torn, or says what does not fit, are refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import weightspace as ws
from tests.transformers.gguf_files import write_gguf
from tests.transformers.hand_made import LLAMA, llama_arrays
from weightspace.transformers.gguf_header import gguf_header
from weightspace.transformers.loading import load_trained


class HandMade:
    """What the writer asks of a model of Hugging Face's, without its code."""

    def __init__(self) -> None:
        self.arrays = llama_arrays(LLAMA)
        self.config = SimpleNamespace(**LLAMA, rms_norm_eps=1e-5, rope_parameters={"rope_theta": 100.0})

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.arrays.items()}


def test_a_gguf_file_is_the_transformer_that_it_was_written_of(tmp_path: Path) -> None:
    model = HandMade()
    write_gguf(model, tmp_path / "model.gguf", "llama")
    config = LLAMA | {"rope_theta": 100.0, "rms_norm_eps": 1e-5}
    expected = load_trained(model.arrays, config=config).run([[1, 2, 3, 4, 5]]).logits
    torch.testing.assert_close(_trained(tmp_path / "model.gguf").run([[1, 2, 3, 4, 5]]).logits, expected)
    by_text = _trained(tmp_path).run([[f"token {number}" for number in range(1, 6)]])
    torch.testing.assert_close(by_text.logits, expected)


def _trained(path: Path) -> ws.TrainedTransformer:
    found = ws.load_transformer(path)
    assert isinstance(found, ws.TrainedTransformer)
    return found


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rope.dimension_count": 4}, "rotary sizes disagree"),
        ({"rope.dimension_count": 1}, "rotary sizes disagree"),
        ({"block_count": 3}, "layer 2 of 3 .* is missing"),
        ({"block_count": 1}, "says 1 layers"),
        ({"vocab_size": 8}, "says 8 tokens"),
        ({"attention.head_count_kv": 3}, "groups are of one size"),
        ({"context_length": 0}, "expected a whole number"),
    ],
)
def test_keys_that_do_not_fit_are_said(changed: dict[str, int], said: str, tmp_path: Path) -> None:
    write_gguf(HandMade(), tmp_path / "model.gguf", "llama", **changed)
    with pytest.raises(ws.NetworkError, match=said):
        ws.load_transformer(tmp_path / "model.gguf")


def test_an_architecture_that_is_not_known_is_named(tmp_path: Path) -> None:
    write_gguf(HandMade(), tmp_path / "model.gguf", "mamba")
    with pytest.raises(ws.NetworkError, match="architecture 'mamba': of GGUF files llama and qwen2"):
        ws.load_transformer(tmp_path / "model.gguf")


def test_a_header_that_is_torn_anywhere_is_one_sentence(tmp_path: Path) -> None:
    write_gguf(HandMade(), tmp_path / "model.gguf", "llama")
    raw = (tmp_path / "model.gguf").read_bytes()
    keys = gguf_header(tmp_path / "model.gguf")
    assert keys["llama.block_count"] == 2 and len(keys["tokenizer.ggml.tokens"]) == 7
    torn = tmp_path / "torn.gguf"
    rng = np.random.default_rng(0)
    for end in range(4, raw.index(b"token 6"), 7):
        torn.write_bytes(raw[:end])
        with pytest.raises(ws.UnreadableError, match="no whole GGUF file"):
            gguf_header(torn)
    for _ in range(200):
        damaged: Any = bytearray(raw)
        damaged[rng.integers(4, 600)] = rng.integers(256)
        torn.write_bytes(damaged)
        try:
            load_trained(torn)
        except ws.NetworkError as error:
            assert "\n" not in str(error)
