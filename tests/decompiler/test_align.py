"""Undoing a rotation or a compression of the stream: what comes back is the compiler's weights, or nothing is said."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.golden import golden
from weightspace.decompiler.lifting.align import align, undo_compression, undo_rotation, with_stream
from weightspace.decompiler.lifting.rewrite import access
from weightspace.decompiler.proof.certificate import certify_transformer
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample
from weightspace.rasp.validate import Mode, NotCompilable


def typed(count: int, mode: Mode = "tracr_compat") -> Iterator[CompiledTransformer]:
    """Transformers of random programs, of fewer than 65,536 parameters each."""
    made = 0
    for program in sample("typed", seed=778):
        try:
            transformer = compile_program(program, mode=mode)
        except NotCompilable:
            continue
        if len(transformer) < 65_536:
            yield transformer
            made += 1
        if made == count:
            return


def orthogonal(width: int, seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    return q * np.sign(np.diag(r))


def turned(transformer: CompiledTransformer, seed: int = 0) -> BareTransformer:
    bare = BareTransformer.of(transformer)
    return with_stream(bare, orthogonal(bare.width, seed))


def answers(bare: BareTransformer) -> np.ndarray:
    """What is read on all inputs of two tokens."""
    assert bare.readout is not None
    codes = bare.encode(list(itertools.product(bare.vocab, repeat=2)))
    return bare.forward(codes) @ bare.readout.directions


def test_a_rotation_of_the_stream_leaves_the_answers_and_a_rotation_of_half_the_matrices_does_not() -> None:
    for transformer in typed(5):
        bare = BareTransformer.of(transformer)
        other = turned(transformer)
        np.testing.assert_allclose(answers(other), answers(bare), atol=2e-3)  # E = 100 on numbers, in float32
        written = {name: array for name, array in other.params.items() if access(name) == "write"}
        broken = replace(bare, params={**bare.params, **written}, readout=other.readout)
        assert np.abs(answers(broken) - answers(bare)).max() > 0.1


def test_the_rotation_of_every_golden_model_is_undone() -> None:
    for number, record in enumerate(golden("tracr_random.json")):
        transformer = compile_program(Program.from_record(record), mode="tracr_compat")
        found = undo_rotation(turned(transformer, number))
        assert found.kind == "rotated", record["id"]
        assert certify_transformer(transformer, found.bare) is not None, record["id"]


@pytest.mark.parametrize("mode", ["tracr_compat", "fixed"])
def test_the_rotation_of_random_programs_is_undone_in_either_mode(mode: Mode) -> None:
    for seed, transformer in enumerate(typed(20, mode)):
        rotated = turned(transformer, seed)
        found = undo_rotation(rotated)
        assert certify_transformer(transformer, found.bare) is not None
        np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(rotated.width), atol=1e-6)
        assert found.residual < 1e-5


def test_without_a_readout_a_rotation_is_undone_up_to_signs_of_numbers() -> None:
    for seed, transformer in enumerate(typed(30)):
        bare = BareTransformer.of(transformer)
        q = orthogonal(bare.width, seed)
        found = undo_rotation(replace(with_stream(bare, q), readout=None))
        signed = np.abs(found.basis @ q.T)
        np.testing.assert_allclose(signed.max(1), 1, atol=1e-4)
        assert sorted(signed.argmax(1).tolist()) == list(range(bare.width))


def test_clean_weights_are_given_back_as_they_are() -> None:
    for transformer in typed(20):
        bare = BareTransformer.of(transformer)
        found = align(bare)
        assert found.kind == "directions"
        assert found.bare is bare


def test_random_and_shuffled_weights_are_neither() -> None:
    for seed, transformer in enumerate(typed(2)):
        bare, random = turned(transformer), np.random.default_rng(seed)
        drawn = {name: random.normal(0, array.std(), array.shape) for name, array in bare.params.items()}
        shuffled = {
            name: array if "embed" in name else random.permutation(array.ravel()).reshape(array.shape)
            for name, array in bare.params.items()
        }
        for params in (drawn, shuffled):
            broken = replace(bare, params={name: array.astype(np.float32) for name, array in params.items()})
            found = align(broken)
            assert found.kind == "neither"
            assert found.bare is broken


def test_without_a_readout_a_compression_is_undone_too() -> None:
    for seed, transformer in enumerate(typed(8)):
        assert align(replace(narrowed(transformer, 0.9, seed), readout=None)).kind == "compressed"


def narrowed(transformer: CompiledTransformer, share: float, seed: int) -> BareTransformer:
    """Over random directions, of which no forward pass survives."""
    bare = BareTransformer.of(transformer)
    return with_stream(bare, orthogonal(bare.width, seed)[:, : int(np.ceil(share * bare.width))])


@pytest.mark.parametrize("share", [0.9, 0.75])
def test_most_compressions_are_undone_although_the_compressed_network_is_broken(share: float) -> None:
    exact = broken = 0
    transformers = list(typed(15))
    for seed, transformer in enumerate(transformers):
        narrow = narrowed(transformer, share, seed)
        broken += bool(np.abs(answers(narrow) - answers(BareTransformer.of(transformer))).max() > 0.1)
        exact += certify_transformer(transformer, undo_compression(narrow).bare) is not None
    assert broken > 0.9 * len(transformers)
    assert exact > 0.8 * len(transformers)  # elsewhere a number's sign or scale is open, or two S-ops are alike


def test_what_a_compression_gave_back_makes_the_same_narrow_weights_again() -> None:
    for seed, transformer in enumerate(typed(10)):
        narrow = narrowed(transformer, 0.75, seed)
        found = align(narrow)
        if found.kind == "compressed":
            again = with_stream(found.bare, found.basis)
            for name, array in narrow.params.items():
                np.testing.assert_allclose(again.params[name], array, atol=0.05 * max(1, np.abs(array).max()))
