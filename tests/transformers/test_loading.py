"""Trained transformers are found in folders, files and arrays, loaded lazily, and what is wrong is one sentence."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import weightspace as ws
from tests.transformers.hand_made import GPT2, LLAMA, gpt2_arrays, llama_arrays, written
from tests.transformers.shared_models import shared_models
from weightspace.transformers.loading import load_trained

Arrays = dict[str, np.ndarray]


def test_the_public_verb_reads_folders_files_and_arrays_and_compiled_transformers_too(tmp_path: Path) -> None:
    arrays = gpt2_arrays(GPT2)
    folder = written(arrays, GPT2, tmp_path / "gpt2")
    expected = load_trained(arrays, config=GPT2).run([[1, 2, 3]]).logits
    for source in (folder, str(folder / "model.safetensors"), ws.load_transformer(folder)):
        found = ws.load_transformer(source)
        assert isinstance(found, ws.TrainedTransformer)
        torch.testing.assert_close(found.run([[1, 2, 3]]).logits, expected)
    save_file(arrays, tmp_path / "alone.safetensors")
    alone = ws.load_transformer(tmp_path / "alone.safetensors", config=GPT2, vocab="abcdefg")
    assert isinstance(alone, ws.TrainedTransformer) and alone.vocab == tuple("abcdefg")
    compiled = ws.compile_program("return Map(x + 1, tokens)", vocab=[0, 1, 2], max_seq_len=3)
    ws.save_transformer(compiled, tmp_path / "compiled.safetensors")
    assert not isinstance(ws.load_transformer(tmp_path / "compiled.safetensors"), ws.TrainedTransformer)


def changed(arrays: Arrays, name: str, array: np.ndarray | None) -> Arrays:
    """Arrays with one of them replaced or left out."""
    kept = {each: value for each, value in arrays.items() if each != name}
    return kept if array is None else kept | {name: array}


ONE = "transformer.h.1.mlp.c_fc.weight"
WRONG: list[tuple[Callable[[], tuple[Arrays, dict[str, Any]]], str]] = [
    (lambda: (changed(gpt2_arrays(GPT2), ONE, None), GPT2), "layer 1 of 3 .* is missing or not whole"),
    (lambda: (gpt2_arrays(GPT2), GPT2 | {"n_layer": 4}), "layer 3 of 4 .* is missing"),
    (lambda: (gpt2_arrays(GPT2), GPT2 | {"n_layer": 2}), "says 2 layers"),
    (lambda: (gpt2_arrays(GPT2), GPT2 | {"vocab_size": 9}), "vocabulary of another size"),
    (lambda: (gpt2_arrays(GPT2), GPT2 | {"n_positions": 12}), r"has shape \(10, 8\)"),
    (lambda: (gpt2_arrays(GPT2), GPT2 | {"n_head": 3}), "heads share the width evenly"),
    (lambda: (gpt2_arrays(GPT2), GPT2 | {"n_head": "two"}), "expected a whole number"),
    (lambda: (gpt2_arrays(GPT2), GPT2 | {"activation_function": "wavelet"}), "known are relu"),
    (lambda: (gpt2_arrays(GPT2), GPT2 | {"model_type": "gpt_neox"}), "architecture 'gpt_neox' .* known are gpt2"),
    (lambda: (gpt2_arrays(GPT2), {}), "does not say its shape"),
    (lambda: ({"gpt_neox.embed_in.weight": np.zeros((2, 2), np.float32)}, {}), "known are gpt2"),
    (lambda: (llama_arrays(LLAMA), LLAMA | {"head_dim": 3}), "rotary pairs need an even number"),
    (lambda: (llama_arrays(LLAMA), LLAMA | {"num_key_value_heads": 3}), "groups are of one size"),
    (lambda: (llama_arrays(LLAMA), LLAMA | {"num_key_value_heads": 4}), r"has shape \(4, 8\)"),
    (lambda: (llama_arrays(LLAMA), LLAMA | {"rope_scaling": {"rope_type": "yarn"}}), "known are default, linear"),
    (
        lambda: (
            llama_arrays(LLAMA) | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32)},
            LLAMA,
        ),
        "rotary sizes disagree",
    ),
    (lambda: (llama_arrays(LLAMA), LLAMA | {"model_type": "mistral", "sliding_window": 4}), "sliding windows"),
    (
        lambda: (
            changed(llama_arrays(LLAMA), "lm_head.weight", None),
            LLAMA | {"architectures": ["LlamaForCausalLM"]},
        ),
        "no array 'lm_head.weight'",
    ),
    (lambda: (changed(llama_arrays(LLAMA), "lm_head.weight", np.ones((8, 8), np.float32)), LLAMA), "another size"),
]


@pytest.mark.parametrize(("make", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_does_not_fit_is_one_sentence(
    make: Callable[[], tuple[Arrays, dict[str, Any]]], said: str, tmp_path: Path
) -> None:
    arrays, config = make()
    with pytest.raises(ws.NetworkError, match=said) as refused:
        ws.load_transformer(written(arrays, config, tmp_path / "model"))
    assert "\n" not in str(refused.value)


def test_numbers_that_are_not_finite_are_named_when_they_are_read(tmp_path: Path) -> None:
    arrays = gpt2_arrays(GPT2)
    arrays[ONE][3, 4] = np.nan
    found = load_trained(written(arrays, GPT2, tmp_path))
    found.layer(0)
    with pytest.raises(ws.NetworkError, match=r"h\.1\.mlp\.c_fc\.weight.*not finite"):
        found.run([[1]])


def test_inputs_that_are_too_long_or_unknown_are_one_sentence() -> None:
    found = load_trained(gpt2_arrays(GPT2), config=GPT2, vocab=list("abcdefg"))
    for inputs, said in (
        ([[0] * 11], "11 tokens is longer than the 10 positions"),
        ([[7]], "token 7 is outside"),
        (torch.tensor([[-1]]), "token -1 is outside"),
        ([list("abz")], "'z' is not in the vocabulary"),
        ([], "at least one"),
        (torch.zeros(2, 2), "expected whole numbers"),
    ):
        with pytest.raises(ws.NetworkError, match=said):
            found.run(inputs)
    with pytest.raises(ws.NetworkError, match="from position 6"):
        found.run([[0] * 5], offset=6)
    with pytest.raises(ws.NetworkError, match="5 tokens were given"):
        load_trained(gpt2_arrays(GPT2), config=GPT2, vocab=list("abcde"))


def test_a_bare_model_has_streams_and_no_logits() -> None:
    found = load_trained(changed(llama_arrays(LLAMA), "lm_head.weight", None), config=LLAMA)
    run = found.run([[1, 2]], read=[ws.Place("final")])
    assert run[ws.Place("final")].shape == (1, 2, 8)
    with pytest.raises(ws.NetworkError, match="no logits"):
        _ = run.logits


def test_folders_and_settings_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    with pytest.raises(ws.UnreadableError, match=r"expected one of model\.safetensors"):
        ws.load_transformer(tmp_path)
    folder = written(gpt2_arrays(GPT2), GPT2, tmp_path / "torn")
    (folder / "config.json").write_text('{"n_embd": 8, "n_embd": 9}')
    with pytest.raises(ws.UnreadableError, match="a name stands in it twice"):
        ws.load_transformer(folder)


def test_weights_are_read_when_they_are_needed_and_take_no_more_than_twice_their_file(tmp_path: Path) -> None:
    config = GPT2 | {"n_embd": 128, "n_layer": 4, "n_positions": 64, "vocab_size": 2000}
    folder = written(gpt2_arrays(config, size=0.02), config, tmp_path)
    size = (folder / "model.safetensors").stat().st_size
    assert size > 4_000_000
    tracemalloc.start()
    try:
        found = load_trained(folder)
        assert tracemalloc.get_traced_memory()[0] < size / 10
        tracemalloc.reset_peak()  # the reader looks at the first megabytes of any file
        found.layer(2)
        assert size / 6 < tracemalloc.get_traced_memory()[0] < size / 3  # a layer of four, beside the embeddings
        found.run(torch.arange(64)[None])
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.loaded_layers == (0, 1, 2, 3)
    assert size * 0.9 < kept <= most < 1.2 * size


def test_trained_models_answer_as_accurately_as_was_published() -> None:
    folder = shared_models()
    entries = json.loads((folder / "index.json").read_text())
    assert len(entries) == 21
    for entry in entries:
        found = ws.load_transformer(folder / entry["model"], vocab=entry["vocab"])
        assert isinstance(found, ws.TrainedTransformer)
        lines = (folder / entry["model"] / "inputs.jsonl").read_text().splitlines()[:200:4]
        asked = [json.loads(line) for line in lines]
        logits = found.logits([each["input"] for each in asked])
        right = np.mean([_right(each, found.vocab or (), row) for each, row in zip(asked, logits, strict=True)])
        # fifty draws of ours beside thousands of theirs: three standard errors, and lengths are drawn otherwise
        published = entry["accuracy_published"]["eval_len0-50"]
        assert abs(right - published) <= 3 * (published * (1 - published) / 50) ** 0.5 + 0.15, entry["model"]


def _right(asked: dict[str, Any], vocab: tuple[str, ...], logits: torch.Tensor) -> bool:
    """Whether every place of an input is answered as it should be."""
    if "follow" in asked:
        allowed = [{vocab[token] for token in row.nonzero().flatten().tolist()} for row in logits > 0]
        return all(set(wanted) == got for wanted, got in zip(asked["follow"], allowed, strict=False))
    answers = [vocab[token] for token in logits.argmax(-1).tolist()]
    return all(wanted is None or wanted == got for wanted, got in zip(asked["next"], answers, strict=False))
