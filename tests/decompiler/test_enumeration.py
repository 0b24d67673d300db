"""Enumeration: every operation of the `typed` language is held against its own block of the weights."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from weightspace.decompiler.proof.verify import certify, permuted
from weightspace.decompiler.search.enumeration import enumerate_program
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.language import Aggregate, Map, Select, SelectorWidth, SequenceMap, SOp, indices, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample
from weightspace.rasp.validate import Mode, NotCompilable

MODES: tuple[Mode, ...] = ("tracr_compat", "fixed")


def sampled(count: int, mode: Mode, seed: int) -> Iterator[BareTransformer]:
    def all_of_them() -> Iterator[BareTransformer]:
        for number, program in enumerate(sample("typed", seed)):
            try:
                made = compile_program(program, mode=mode)
            except NotCompilable:
                continue
            if len(made) <= 20_000:
                yield permuted(BareTransformer.of(made), number)

    return islice(all_of_them(), count)


def bare_of(output: SOp, mode: Mode = "fixed", length: int = 4) -> BareTransformer:
    program = Program.of(output, vocab=range(4), max_seq_len=length)
    return permuted(BareTransformer.of(compile_program(program, mode=mode)), 1)


def noisy(bare: BareTransformer, share: float, seed: int = 0) -> BareTransformer:
    """Gaussian noise by each matrix's own standard deviation; what is zero throughout stays so."""
    random = np.random.default_rng(seed)
    params = {
        name: (array + random.normal(0, share, array.shape) * array.std()).astype(np.float32)
        for name, array in bare.params.items()
    }
    return replace(bare, params=params)


@pytest.mark.parametrize("mode", MODES)
def test_clean_programs_are_explained_and_certified(mode: Mode) -> None:
    for bare in sampled(3, mode, 51):
        found = enumerate_program(bare, budget=10)
        assert found.complete
        assert found.program is not None
        assert certify(Program.parse(str(found.program)), bare) is not None
        assert found.misfit < 1e-3


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1])
def test_under_noise_the_program_of_the_clean_weights_is_found(share: float) -> None:
    certified = 0
    for seed, bare in enumerate(sampled(3, "tracr_compat", 52)):
        found = enumerate_program(noisy(bare, share, seed), budget=10)
        certified += found.program is not None and certify(found.program, bare) is not None
    assert certified >= 2


def test_the_misfit_of_the_right_program_is_that_of_noise() -> None:
    bare = bare_of(SequenceMap("x * y", Map("x + 1", tokens), indices))
    assert 0.5 < enumerate_program(noisy(bare, 0.05)).misfit < 1.5


def test_two_equal_operations_are_told_apart_by_what_reads_them() -> None:
    one, other = (SequenceMap("x and y", tokens, indices) for _ in range(2))
    bare = bare_of(SequenceMap("x and y", one, other), "tracr_compat")
    found = enumerate_program(bare)
    assert found.program is not None
    assert certify(found.program, bare) is not None


def test_what_reads_a_value_makes_the_search_go_back_to_what_made_it() -> None:
    bare = bare_of(Aggregate(Select(Map("x - 1", tokens), indices, "EQ"), tokens))
    found = enumerate_program(bare)
    assert found.complete
    assert "Map(x - 1, tokens)" in str(found.program)


def test_two_widths_that_share_a_cleaning_unit_are_both_explained() -> None:
    widths = [SelectorWidth(Select(tokens, tokens, name)) for name in ("EQ", "LT")]
    bare = bare_of(SequenceMap("x - y", *widths), "tracr_compat")
    found = enumerate_program(bare)
    assert found.program is not None
    assert certify(found.program, bare) is not None


def test_weights_of_no_typed_program_are_never_explained() -> None:
    bare = bare_of(SequenceMap("(x + 2 * y) % 3", tokens, indices))
    found = enumerate_program(bare, budget=2)
    assert not found.complete
    random = np.random.default_rng(0)
    embeddings = {name: array for name, array in bare.params.items() if "embed" in name}
    params = {name: random.normal(size=array.shape).astype(np.float32) for name, array in bare.params.items()}
    assert not enumerate_program(replace(bare, params=params | embeddings), budget=2).complete


def test_a_budget_is_kept_and_a_best_guess_given() -> None:
    bare = next(sampled(1, "fixed", 53))
    start = time.perf_counter()
    found = enumerate_program(bare, budget=0.0)
    assert not found.complete
    assert time.perf_counter() - start < 2


@pytest.mark.slow
def test_at_least_a_thousand_operations_are_checked_in_a_second() -> None:
    found = [enumerate_program(bare) for bare in sampled(30, "fixed", 54)]
    assert sum(f.checked for f in found) / sum(f.seconds for f in found) > 1_000
