"""Rewrites that keep what a transformer computes: found in the weights, named by the certificate, and compared."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import weightspace as ws
from weightspace.decompiler.decompile import decompile
from weightspace.decompiler.lifting.align import align
from weightspace.decompiler.lifting.rewrite import Rewrite
from weightspace.decompiler.proof.certificate import certify_rewritten
from weightspace.decompiler.proof.verify import behaviour, permuted
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.program import Program

BALANCE = Program.parse("""\
vocab = ['a', 'b', 'c', '(', ')']
max_seq_len = 10
before = Select(PRED_LEQ, indices, indices)
o: numerical = Map(x == '(', tokens)
c: numerical = Map(x == ')', tokens)
opened: numerical = Aggregate(before, o)
closed: numerical = Aggregate(before, c)
balance: numerical = LinearSequenceMap(1, -1, opened, closed)
return balance""")
"""Sums of two numbers over heads that look back."""
STEPS = Program.parse("""\
vocab = [0, 1, 2, 3]
max_seq_len = 4
same = Select(PRED_EQ, tokens, tokens)
count = SelectorWidth(same)
large: numerical = Map(x > 1, tokens)
share: numerical = Aggregate(same, large)
much = Map(x > 0.5, share)
both = SequenceMap(x * y, count, much)
return both""")
"""A width, steps of a number, and a table of two."""
EVERY = pytest.mark.parametrize("program", [BALANCE, STEPS], ids=["balance", "steps"])


def weights(program: Program, seed: int = 0) -> BareTransformer:
    return permuted(BareTransformer.of(compile_program(program, mode="tracr_compat")), seed)


def rewrite_of(bare: BareTransformer, what: str, seed: int = 0) -> Rewrite:
    """An element of the group: letters say what is changed."""
    random = np.random.default_rng(seed)
    shape = (bare.num_layers, bare.num_heads, bare.key_size, bare.key_size)
    units = np.ones((bare.num_layers, bare.hidden_size))
    scale, stream, compared, moved = 1.0, None, None, None
    for letter in what:
        match letter:
            case "2":
                units = units / 2
            case "u":
                units = np.exp(random.normal(size=units.shape))
            case "s":
                scale = 3.0
            case "q":
                compared = np.linalg.qr(random.normal(size=shape))[0]
            case "k":
                compared = np.tile(np.diag(random.uniform(0.2, 5, bare.key_size)), (*shape[:2], 1, 1))
            case "v":
                moved = random.normal(size=shape) + 2 * np.eye(bare.key_size)
            case _:
                stream = np.linalg.qr(random.normal(size=(bare.width, bare.width)))[0]
    return Rewrite(stream, scale, units, compared, moved)


def rewritten(bare: BareTransformer, rewrite: Rewrite) -> BareTransformer:
    """Weights after a rewrite; where the answer stands is forgotten."""
    params = {name: a.astype(np.float32) for name, a in rewrite.applied(bare.params, bare.num_heads).items()}
    return replace(bare, params=params, readout=None, mode=None)


@EVERY
@pytest.mark.parametrize("what", ["2", "u", "s", "q", "k", "v", "r", "rs", "usqv"])
def test_a_rewrite_is_undone_named_and_the_weights_as_given_are_compared(program: Program, what: str) -> None:
    bare = weights(program)
    given = rewritten(bare, rewrite_of(bare, what))
    found = decompile(given, 30.0, methods=("lifter",))
    certificate = found.certificate
    assert found.status == "certified" and certificate is not None and certificate.rewrite is not None
    assert certificate.relative <= certificate.tolerance < 2e-3
    named = {
        "2": "scaled by positive factors",
        "u": "scaled by positive factors",
        "s": "its stream was scaled by 3",
        "q": "the queries and keys of",
        "k": "the queries and keys of",
        "v": "the values and outputs of",
        "r": "turned by a rotation",
    }
    assert all(named[letter] in certificate.explain() for letter in what)
    assert "which is what rounding in float32 can do" in certificate.explain()
    # the element that is named, applied to what was compiled, is what was given: by nobody's word but numpy's
    aligned = align(given)
    assert aligned.rewrite is not None
    again = aligned.rewrite.applied(aligned.bare.params, given.num_heads)
    for name, array in given.params.items():
        assert np.allclose(array, again[name], atol=1e-4 * max(1.0, float(np.abs(array).max())))


@EVERY
def test_a_rewrite_keeps_every_answer(program: Program) -> None:
    bare = weights(program)
    given = rewritten(bare, rewrite_of(bare, "usqvr"))
    rows = [bare.space.index(token) for token in bare.vocab]
    drawn = np.random.default_rng(1).choice(rows, (20, bare.max_seq_len))
    codes = np.concatenate([bare.encode([()] * 20), drawn], axis=1)
    rewrite = rewrite_of(bare, "usqvr")
    assert rewrite.stream is not None
    expected = bare.forward(codes) @ rewrite.stream * rewrite.scale
    assert np.abs(given.forward(codes) - expected).max() < 1e-2  # of numbers up to 100 that steps make steeper


@pytest.mark.parametrize("what", ["u", "s", "q", "v", "r"])
def test_one_parameter_that_is_otherwise_is_no_certificate(what: str) -> None:
    bare = weights(STEPS)
    rewrite = rewrite_of(bare, what)
    given = rewritten(bare, rewrite)
    found = decompile(given, 30.0, methods=("lifter",))
    aligned = align(given)
    assert found.program is not None and aligned.rewrite is not None
    assert certify_rewritten(found.program, given, aligned.bare, aligned.rewrite) is not None
    for name in ("transformer/layer_0/attn/query/w", "transformer/layer_1/mlp/linear_2/w", "token_embed/embeddings"):
        params = {key: array.copy() for key, array in given.params.items()}
        place = np.unravel_index(np.abs(params[name]).argmax(), params[name].shape)
        params[name][place] *= 1.01
        other = replace(given, params=params)
        assert certify_rewritten(found.program, other, aligned.bare, aligned.rewrite) is None


def test_a_negative_factor_of_a_unit_changes_the_function_and_is_no_rewrite() -> None:
    bare = weights(STEPS)
    params = dict(bare.params)
    for which, axis in (("linear_1", 1), ("linear_2", 0)):
        name = f"transformer/layer_0/mlp/{which}/w"
        factor = np.ones(bare.hidden_size, np.float32)
        factor[int(np.abs(bare.second[0]).sum(1).argmax())] = -1
        params[name] = params[name] * (factor if axis == 1 else factor[:, None])
    found = decompile(replace(bare, params=params), 5.0, methods=("lifter",))
    assert found.status != "certified"


def test_weights_that_are_as_compiled_are_compared_without_any_rewrite() -> None:
    for mode in ("fixed", "tracr_compat"):
        for program in (BALANCE, STEPS):
            bare = permuted(BareTransformer.of(compile_program(program, mode=mode)), 3)
            aligned = align(bare)
            assert aligned.rewrite is not None and aligned.rewrite.trivial and aligned.bare is bare


def test_a_map_so_skew_that_rounding_hides_entries_is_no_proof() -> None:
    bare = weights(STEPS)
    eye = np.tile(np.eye(bare.key_size), (bare.num_layers, bare.num_heads, 1, 1))
    eye[..., 0, 0] = 1e-5
    skew = replace(Rewrite.none(bare), compared=eye)
    assert skew.condition > 1e4 and skew.tolerance() > 2e-3
    assert certify_rewritten(STEPS, rewritten(bare, skew), bare, skew) is None


def test_a_scaled_stream_answers_as_its_program_does() -> None:
    bare = weights(BALANCE)
    given = rewritten(bare, rewrite_of(bare, "s"))
    found = decompile(given, 30.0)
    assert found.status == "certified" and found.program is not None
    seen = behaviour(found.program, bare, mode="tracr_compat", most=300)
    assert seen is not None and seen.equal


CASES = Path(os.environ.get("WEIGHTSPACE_CASES") or Path(__file__).parents[3] / "shared" / "cases") / "rasp"


@pytest.mark.skipif(not CASES.is_dir(), reason="no case files: WEIGHTSPACE_CASES is unset and ../shared/cases absent")
@pytest.mark.parametrize(
    ("name", "vocab", "what"),
    [
        ("o_pairb_mlp", "abc()", "scaled by positive factors of 0.5 to 0.5"),
        ("o_pairb_resid3", "abc()", "its stream was scaled by 3"),
        ("o_pairb_qkrot", "abc()", "the queries and keys of"),
        ("y_upperpad", "abc", "no two differ at all"),
        ("w_hist", "abcd", "no two differ at all"),
        ("w_reverse", "abcd", "no two differ at all"),
        ("w_nested", "abcd", "no two differ at all"),
    ],
)
def test_public_cases_are_certified(name: str, vocab: str, what: str) -> None:
    found = ws.decompile(CASES / f"{name}.npz", vocab=vocab)
    assert found.status == "certified" and found.certificate is not None
    assert what in found.certificate.explain()
