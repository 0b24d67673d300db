"""Decompilation as a whole: proofs that hold when the printed text is compiled again, and controls that have none."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.golden import golden, golden_path
from weightspace.decompiler.decompile import METHODS, PRETRAINED, Problem, attempt, decompile, judge, pretrained
from weightspace.decompiler.distortion import compressed, noisy, rotated
from weightspace.decompiler.lifting.align import align
from weightspace.decompiler.proof.verify import behaviour, certify, permuted
from weightspace.decompiler.search.guided import Guided, fitted
from weightspace.decompiler.search.matching import Placed
from weightspace.decompiler.search.target import MatchTarget
from weightspace.errors import RaspError
from weightspace.experiments.ladder import RESULTS, LadderConfig, held_out, outcomes, run_ladder, table, together
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.storage import load_npz
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample
from weightspace.rasp.validate import validate

ROOT = Path(__file__).parent.parent.parent
HELD_OUT = [program for program in held_out(16, 77) if not validate(program, mode="fixed")][:12]


def weights(program: Program, seed: int = 0, mode: str = "tracr_compat") -> BareTransformer:
    return permuted(BareTransformer.of(compile_program(program, mode=mode)), seed)  # type: ignore[arg-type]


def recompiled(text: str, bare: BareTransformer) -> bool:
    """Whether the printed text, read anew and compiled, gives the weights."""
    return certify(Program.parse(text), bare) is not None


def test_held_out_programs_can_be_meant_for_other_tokens_and_lengths() -> None:
    programs = held_out(8, 77, (6, 7), (3, 7))
    assert {(program.vocab, program.max_seq_len) for program in programs} == {((0, 1, 2), 7)}
    found = decompile(weights(programs[0]), budget=20.0)
    assert found.status == "certified"


@pytest.mark.parametrize("number", range(12))
def test_what_is_certified_is_certified_again_from_its_printed_text(number: int) -> None:
    bare = weights(HELD_OUT[number], number, ("tracr_compat", "fixed")[number % 2])
    found = decompile(bare, budget=20.0)
    assert found.status == "certified" and found.behaviour is not None and found.behaviour.equal
    assert recompiled(found.to_json()["program"], bare)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_that_claims_a_program_is_judged_by_the_same_proof(method: str) -> None:
    certified = 0
    for number, program in enumerate(HELD_OUT[:3]):
        bare = weights(program, number)
        problem = Problem(replace(bare, mode="tracr_compat"))
        found = attempt(problem, method, 4.0)  # type: ignore[arg-type]
        if found.program is None:
            continue
        judged = judge(problem, found, method).found
        if judged.status == "certified":
            certified += recompiled(str(judged.program), bare)
        else:
            assert judged.certificate is None
    # the lifter and the two searches prove these; of the others nothing is promised
    assert certified == 3 or method not in ("lifter", "search", "enumeration")


def test_rotated_weights_are_certified_in_the_directions_that_were_found() -> None:
    for number, program in enumerate(HELD_OUT[:4]):
        found = decompile(rotated(weights(program), number), budget=20.0)
        assert found.status == "certified"
        assert any("rotation" in note for note in found.notes)


def test_under_noise_the_program_is_found_and_said_to_fit_but_never_certified() -> None:
    right = 0
    for number, program in enumerate(HELD_OUT[:4]):
        found = decompile(noisy(weights(program), number, 0.01), budget=4.0)
        assert found.certificate is None and found.program is not None
        same = behaviour(found.program, weights(program), mode="tracr_compat")
        right += same is not None and same.equal
    assert right >= 3


def test_a_mild_compression_leaves_what_the_program_does_readable() -> None:
    right = 0
    for number, program in enumerate(HELD_OUT[:4]):
        found = decompile(compressed(weights(program), number, 0.9), budget=15.0)
        assert found.program is not None
        same = behaviour(found.program, weights(program), mode="tracr_compat")
        right += same is not None and same.equal
    assert right >= 3


def test_random_and_shuffled_weights_are_never_certified() -> None:
    random = np.random.default_rng(0)
    for number, program in enumerate(HELD_OUT[:2]):
        bare = weights(program)
        for kind in ("random", "shuffled"):
            params = {
                name: (random.standard_normal(array.shape).astype(np.float32) * array.std())
                if kind == "random"
                else random.permutation(array.ravel()).reshape(array.shape)
                for name, array in bare.params.items()
            }
            changed = replace(bare, params=params)
            found = decompile(changed, budget=1.0, seed=number)
            assert found.status != "certified" and found.certificate is None
            if found.status == "behaviour_equal":
                # shuffled weights compute something too, and given the time a short program for it may be found: then
                # its answers are theirs on every input, which is checked here anew, and nothing is said of its weights
                assert kind == "shuffled" and found.program is not None
                compared = behaviour(Program.parse(str(found.program)), changed)
                assert compared is not None and compared.equal and compared.exhaustive


def test_the_five_library_programs_are_certified_from_tracrs_own_weights() -> None:
    for record in golden("tracr_lib.json"):
        loaded = load_npz(golden_path("tracr_lib.npz"), record)
        bare = BareTransformer.of_params(loaded.params, loaded.vocab)
        found = decompile(bare, budget=30.0)
        assert found.status == "certified" and found.behaviour is not None and found.behaviour.equal, record["id"]
        assert recompiled(str(found.program), bare)


def test_an_answer_that_is_always_the_same_proves_nothing_where_it_is_only_inferred() -> None:
    program = Program.parse("vocab = [0, 1]\nmax_seq_len = 2\nv1 = Map(x * 0, tokens)\nreturn v1")
    bare = weights(program)
    nameless = BareTransformer.of_params(bare.params, (0, 1))
    inferred = behaviour(program, nameless, mode="tracr_compat")
    assert inferred is not None and inferred.readout == "none" and not inferred.equal
    assert inferred.tried == 0 and not inferred.exhaustive
    given = behaviour(program, bare, mode="tracr_compat")  # where it is known where the answer stands, it counts
    assert given is not None and given.equal and given.exhaustive


def test_an_operation_matches_where_it_stands_and_nowhere_else() -> None:
    for number, program in enumerate(islice(sample("typed", 41), 25)):
        try:
            bare = weights(program, number)
        except ValueError:
            continue
        target = MatchTarget.of(bare, "tracr_compat")
        fit = fitted(target, program, "tracr_compat")
        assert fit is not None and fit.complete
        other = HELD_OUT[number % len(HELD_OUT)]
        wrong = fitted(target, other, "tracr_compat")
        assert wrong is None or not wrong.complete or certify(other, bare) is not None
        assert Placed(target).left(0, attention=False) >= 0


LOSING = Program.parse("""\
vocab = [0, 1, 2, 3, 4]
max_seq_len = 5
v1 = SequenceMap(x and y, tokens, indices)
v2 = SequenceMap(x + y % 10, tokens, v1)
v3 = SequenceMap(x * y, v2, v1)
return v3""")
"""The third never multiplies 1 by 1: what x and y cannot be together leaves values that never occur."""


def test_a_compressed_program_is_matched_though_directions_of_what_never_occurs_are_lost() -> None:
    matched = 0
    for number, program in enumerate([LOSING, *HELD_OUT]):
        compiled = BareTransformer.of(compile_program(program, mode="tracr_compat"))
        squeezed = compressed(compiled, number, 0.75)
        aligned = align(squeezed)
        if aligned.kind != "compressed" or aligned.bare.width >= compiled.width:
            continue
        strict = fitted(MatchTarget.of(aligned.bare, "tracr_compat"), program, "tracr_compat")
        assert strict is None or not strict.complete
        target = MatchTarget.of(aligned.bare, "tracr_compat", lossy=True)
        fit = fitted(target, program, "tracr_compat")
        matched += fit is not None and fit.complete
        assert program is not LOSING or matched == 1
        for other in [LOSING, *HELD_OUT]:  # what is lost excuses no other program
            wrong = fitted(target, other, "tracr_compat")
            if wrong is not None and wrong.complete:
                same = behaviour(other, compiled, mode="tracr_compat")
                assert same is not None and same.equal
        if fit is not None and fit.complete:
            found = attempt(Problem(squeezed), "search", 20.0).program
            assert found is not None
            same = behaviour(found, compiled, mode="tracr_compat")
            assert same is not None and same.equal
    assert matched >= 2


def test_the_shipped_network_is_small_and_says_what_it_is() -> None:
    assert PRETRAINED.stat().st_size < 12_000_000
    proposer = pretrained()
    assert proposer.facts["programs seen"] > 0
    guided = Guided(weights(HELD_OUT[0]), "tracr_compat", proposer)
    assert guided.written(4, temperature=1.0)


def test_a_ladder_that_is_run_again_adds_nothing(tmp_path: Path) -> None:
    config = LadderConfig(count=2, rungs=("clean", "noisy-0.03"), methods=("lifter", "greedy"), budget=1.0, seed=5)
    rows = run_ladder(config, tmp_path, show=False)
    assert len(rows) == 2 * 2 * 2 and {row.method for row in rows} == {"lifter", "greedy"}
    best = together(rows)
    assert len(best) == 2 * 2 and all(row.equal for row in best if row.rung == "clean")
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"torn')
    assert [row.seconds for row in run_ladder(config, tmp_path, show=False)] == [row.seconds for row in rows]
    assert outcomes(tmp_path) == rows
    assert table(rows).count("\n") == 1 + 2 * 3
    # what a kill has torn is done again, and what follows it is whole; other budgets are other rows
    results = tmp_path / RESULTS
    results.write_text(results.read_text()[:-20])
    again = run_ladder(config, tmp_path, show=False)
    assert {(row.rung, row.number, row.method) for row in again} == {(row.rung, row.number, row.method) for row in rows}
    assert run_ladder(replace(config, count=1, rungs=config.rungs[:1]), tmp_path, show=False) == [
        row for row in again if row.number == 0 and row.rung == config.rungs[0]
    ]
    shorter = run_ladder(replace(config, count=1, rungs=config.rungs[:1], budget=0.5), tmp_path, show=False)
    assert {row.budget for row in shorter} == {0.5} and len(shorter) == len(config.methods)
    other = replace(config, seed=config.seed + 1)
    with pytest.raises(RaspError, match="choose another folder"):
        run_ladder(other, tmp_path, show=False)
    for rung in config.rungs:  # the weights are gone, the rows of the other programs are not: they are not taken
        (tmp_path / rung).rename(tmp_path / f"old-{rung}")
    assert {row.program for row in run_ladder(other, tmp_path, show=False)}.isdisjoint({row.program for row in rows})
    results.write_text(results.read_text() * 2)  # two runs side by side
    assert len(run_ladder(other, tmp_path, show=False)) == len(rows)
