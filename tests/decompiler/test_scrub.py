"""The compiler's hypothesis about its own weights is accepted, in whatever order they stand, and wrong ones are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

import weightspace as ws
from weightspace.circuits.mutants import mutant
from weightspace.cli.dispatch import main
from weightspace.decompiler.proof.certificate import permuted
from weightspace.decompiler.scrub import scrub
from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.program import Program

PROGRAM = Program.parse("""
vocab = [0, 1, 2]
max_seq_len = 3
more = Map(x + 1, tokens)
same = Select(PRED_EQ, tokens, tokens)
count = SelectorWidth(same)
sum = SequenceMap(x * y, more, count)
return sum
""")
TRANSFORMER = compile_program(PROGRAM)


def test_weights_in_another_order_are_judged_in_the_compilers() -> None:
    mixed = permuted(BareTransformer.of(TRANSFORMER), 3)
    found = scrub(PROGRAM, mixed, inputs=39, pairs=16)
    assert found.judgement.accepted and found.inputs == found.space == 39
    assert scrub(PROGRAM, TRANSFORMER, inputs=39, pairs=16).to_record() == found.to_record()


def test_noise_that_changes_answers_is_refused() -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, len(TRANSFORMER.values)).astype(np.float32)
    noisy = replace(TRANSFORMER, values=TRANSFORMER.values + noise)
    assert not scrub(PROGRAM, noisy, inputs=39, pairs=16).judgement.accepted


def test_false_hypotheses_are_rejected_and_power_says_how_many() -> None:
    found = scrub(PROGRAM, TRANSFORMER, inputs=39, pairs=32, mutants=12)
    rows = {row.what.strip(): row for row in found.power}
    false = rows["false, all"].rejected
    assert false.n >= 6 and false.share is not None and false.share >= 0.9
    assert all(trial.fault is None for trial in found.trials if trial.truth == "the same")
    assert sum(rows[change].rejected.n for change in ("operation", "edge", "place")) == false.n


def test_a_mutant_differs_in_one_thing() -> None:
    hypothesis = scrub(PROGRAM, TRANSFORMER, inputs=39, pairs=4).hypothesis
    values: dict[str, tuple[int, ...]] = {"tokens": (0, 1, 2), "indices": (0, 1, 2), "more": (1, 2, 3)}
    values |= {"count": (1, 2, 3), "sum": (1, 2, 3, 4, 6, 9)}
    before = str(hypothesis.program).splitlines()
    for number in range(20):
        for change in ("operation", "edge"):
            made = mutant(hypothesis, change, values, Random(number))
            assert made is not None
            after = str(made.hypothesis.program).splitlines()
            assert sum(one != other for one, other in zip(before, after, strict=True)) == 1
            assert made.hypothesis.components == hypothesis.components
        made = mutant(hypothesis, "place", values, Random(number))
        assert made is not None and str(made.hypothesis.program) == str(hypothesis.program)
        changed = [name for name, held in made.hypothesis.components.items() if held is not hypothesis.components[name]]
        assert sorted(changed) == sorted(made.moved)


def test_the_verb_prints_where_each_variable_stands_and_writes_the_hypothesis(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, weights, out = tmp_path / "p.rasp", tmp_path / "w.safetensors", tmp_path / "h.json"
    program.write_text(str(PROGRAM))
    ws.save_transformer(TRANSFORMER, weights)
    words = ["rasp", "scrub", str(program), str(weights), "--inputs", "39", "--pairs", "8"]
    assert main([*words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "accepted" in said and "judged on 39 of 39 inputs" in said
    record = json.loads(out.read_text())
    record["components"] = [entry for entry in record["components"] if entry["variable"] in ("count", "sum")]
    first, second = record["components"]
    first["variable"], second["variable"] = second["variable"], first["variable"]
    out.write_text(json.dumps(record))
    assert main([*words, "--hypothesis", str(out), "--json"]) == 1
    assert "interchange" in json.loads(capsys.readouterr().out)["faults"]


def test_what_cannot_be_judged_is_refused_in_a_sentence(tmp_path: Path) -> None:
    other = Program.parse("vocab = [0, 1, 2]\nmax_seq_len = 3\nv = Map(x * 2, tokens)\nreturn v")
    with pytest.raises(RaspError, match="these weights are not the program's, in whatever order"):
        scrub(other, TRANSFORMER)
    with pytest.raises(RaspError, match="the hypothesis is about another program"):
        about = scrub(other, compile_program(other), inputs=39, pairs=4).hypothesis
        scrub(PROGRAM, TRANSFORMER, hypothesis=about)
    with pytest.raises(RaspError, match="at least 2 inputs"):
        scrub(PROGRAM, TRANSFORMER, inputs=1)
    with pytest.raises(RaspError, match=r"there is no file .*nowhere"):
        ws.scrub(str(PROGRAM), tmp_path / "nowhere.safetensors")
