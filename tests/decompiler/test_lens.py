"""A compiled program as TransformerLens names its weights: the file says all, and computes the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import weightspace as ws
from weightspace.cli import main
from weightspace.decompiler.lens import answer_directions, configuration, save_for_transformer_lens
from weightspace.rasp.language import BOS

EXAMPLES = Path(__file__).parents[2] / "examples"
MEAN = """
vocab = [0, 1, 2]
max_seq_len = 3
causal = True
some = Select(PRED_LT, tokens, tokens)
number: numerical = Map(x, tokens)
mean: numerical = Aggregate(some, number)
return mean
"""
"""Numerical, and None at places that select nothing."""


@pytest.mark.parametrize("program", [EXAMPLES / "sort.rasp", EXAMPLES / "hist.rasp", MEAN], ids=str)
def test_the_file_computes_what_the_compiled_transformer_computes(program: Path | str, tmp_path: Path) -> None:
    compiled = ws.compile_program(program)
    save_for_transformer_lens(compiled, tmp_path / "lens.safetensors")
    with safe_open(tmp_path / "lens.safetensors", "pt") as file:
        facts = {name: json.loads(text) for name, text in file.metadata().items()}
    assert facts["config"] == configuration(compiled)
    assert facts["tokens"] == list(compiled.token_values)

    names = [str(token) for token in facts["tokens"]]
    read = ws.load_transformer(load_file(tmp_path / "lens.safetensors"), config=facts["config"], vocab=names)
    assert isinstance(read, ws.TrainedTransformer)
    some = np.random.default_rng(0).choice(np.array(compiled.vocab, dtype=object), (20, compiled.max_seq_len)).tolist()
    tokens = [[BOS, *map(str, row)] for row in some]
    stream = compiled.forward(np.array(compiled.encode(some)))  # (inputs, places, width)
    logits = read.run(tokens).logits[:, 1:]
    assert torch.allclose(logits, torch.from_numpy(stream[..., answer_directions(compiled)]), atol=1e-4)
    values = facts["answers"]["values"] or [None]
    assert logits.shape[-1] == len(values) + facts["answers"]["none"]
    if facts["answers"]["values"]:
        assert [values[place] for place in logits[0].argmax(-1)] == compiled.run(some[:1])[0]


def test_the_verb_writes_a_file_that_decompiles_to_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lens.safetensors"
    assert main(["rasp", "to-transformer-lens", str(EXAMPLES / "hist.rasp"), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["config"]["attention_dir"] == "bidirectional" and BOS in said["tokens"]
    vocab = [token for token in said["tokens"] if not str(token).startswith("compiler_")]
    assert ws.decompile(out, vocab=vocab).status == "certified"


def test_a_file_that_would_be_a_pickle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lens.pt"
    assert main(["rasp", "to-transformer-lens", str(EXAMPLES / "hist.rasp"), "--out", str(out)]) == 2
    assert "ends in .safetensors" in capsys.readouterr().err
    assert not out.exists()


def test_a_program_is_compiled_for_transformer_lens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weightspace.decompiler.lens.model", lambda compiled: compiled)
    assert repr(ws.to_transformer_lens(EXAMPLES / "hist.rasp")) == repr(ws.compile_program(EXAMPLES / "hist.rasp"))
