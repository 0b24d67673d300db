"""The ladder: what each rung does to weights, that it is a function of its seed, and that a folder of it resumes."""

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from weightspace.decompiler import ladder
from weightspace.decompiler.distortion import compressed, noisy, permuted
from weightspace.decompiler.examples import Answers, answers_of, input_codes, share_right
from weightspace.decompiler.ladder import make_ladder
from weightspace.decompiler.proof.certificate import certify_transformer
from weightspace.decompiler.rung import SOUND, load_rung
from weightspace.decompiler.trainable import TrainableTransformer
from weightspace.decompiler.training import RungTraining, finetuned, trained
from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample

HISTOGRAM = """vocab = [0, 1, 2]
max_seq_len = 3
same = Select(PRED_EQ, tokens, tokens)
count = SelectorWidth(same)
large: numerical = Map(x > 1, count)
return large
"""
NEXT = """vocab = [0, 1, 2]
max_seq_len = 3
up = Map((x + 1) % 3, tokens)
both = SequenceMap(x * y, up, indices)
return both
"""
PROGRAMS = [Program.parse(text) for text in (HISTOGRAM, NEXT)]
QUICK = RungTraining(steps=60, least=20, batch=32, check=20)
RUNGS = ("clean", "permuted", "rotated", "noisy-0.03", "compressed-0.75", "finetuned-0.75", "trained")


def bare_of(program: Program) -> BareTransformer:
    return BareTransformer.of(compile_program(program, mode="tracr_compat"))


def wanted_of(bare: BareTransformer) -> Answers:
    return answers_of(bare, input_codes(bare))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("rung", ["clean", "permuted", "rotated", "compressed-1"])
def test_rungs_that_lose_nothing_answer_alike(program: Program, rung: str) -> None:
    bare = bare_of(program)
    made = ladder.make_rung(bare, rung, seed=5)
    assert share_right(made, wanted_of(bare)) == 1.0
    assert all((made.params[name] != array).any() for name, array in bare.params.items() if array.any()) or (
        rung == "clean"
    )


def test_only_an_undone_rung_has_the_compiled_weights() -> None:
    transformer = compile_program(PROGRAMS[0], mode="tracr_compat")
    assert certify_transformer(transformer, permuted(transformer, 1)) is not None
    assert certify_transformer(transformer, noisy(transformer, 1, 0.03)) is None


def test_noise_has_the_size_that_is_said_and_leaves_what_is_all_zero() -> None:
    bare = bare_of(PROGRAMS[1])
    for share in (0.01, 0.1):
        still, loud = permuted(bare, 7), noisy(bare, 7, share)
        noises = [(loud.params[name] - array) / array.std() for name, array in still.params.items() if array.any()]
        assert np.concatenate([noise.ravel() for noise in noises]).std() == pytest.approx(share, rel=0.1)
        assert all(not loud.params[name].any() for name, array in still.params.items() if not array.any())


def test_a_compressed_stream_is_as_narrow_as_said_and_has_the_principal_directions() -> None:
    bare = bare_of(PROGRAMS[1])
    for share in (0.9, 0.75, 0.5):
        assert compressed(bare, 0, share).width == int(np.ceil(share * bare.width))
    streams = np.concatenate(
        [s.reshape(-1, bare.width) for group in input_codes(bare) for s in bare.activations(group).stream]
    )
    best = np.linalg.svd(streams, compute_uv=False)
    narrow = compressed(bare, 0, 0.5)
    # what is kept of the embeddings' stream is no more than the best that as many directions can keep
    kept = sum(float((narrow.tokens[group] ** 2).sum()) for group in input_codes(narrow))
    assert kept <= float((best[: narrow.width] ** 2).sum()) * (1 + 1e-6)
    with pytest.raises(RaspError, match="share"):
        compressed(bare, 0, 1.5)


def test_finetuning_makes_a_broken_network_right() -> None:
    bare = bare_of(PROGRAMS[1])
    wanted = wanted_of(bare)
    before = share_right(compressed(bare, 3, 0.5), wanted)
    after = share_right(finetuned(bare, 3, 0.5, RungTraining(steps=600, batch=64)), wanted)
    assert before < 0.9 < after


def test_a_transformer_learns_a_program_from_its_answers_alone() -> None:
    bare = bare_of(PROGRAMS[1])
    made = trained(bare, 3, RungTraining(steps=1_000, batch=64, rate=0.02))
    assert share_right(made, wanted_of(bare)) == 1.0
    assert {name: array.shape for name, array in made.params.items()} == {
        name: array.shape for name, array in bare.params.items()
    }


def test_an_untrained_transformer_is_wrong() -> None:
    bare = bare_of(PROGRAMS[1])
    made = trained(bare, 3, RungTraining(steps=1, batch=1, rate=1e-9))
    assert share_right(made, wanted_of(bare)) < 0.5


@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_is_a_function_of_its_seed(rung: str) -> None:
    bare = bare_of(PROGRAMS[0])
    one, same, other = (ladder.make_rung(bare, rung, seed, finetuning=QUICK, from_scratch=QUICK) for seed in (1, 1, 2))
    assert all((array == same.params[name]).all() for name, array in one.params.items())
    if rung != "clean":
        assert any((array != other.params[name]).any() for name, array in one.params.items())


def test_inputs_are_all_there_are_or_a_seeded_sample() -> None:
    bare = bare_of(PROGRAMS[0])
    found = {tuple(row) for group in input_codes(bare) for row in group[:, 1:].tolist()}
    rows = [bare.space.index(token) for token in bare.vocab]
    assert found == {entry for length in (1, 2, 3) for entry in itertools.product(rows, repeat=length)}
    few = [input_codes(bare, seed, most=10) for seed in (1, 1, 2)]
    assert sum(map(len, few[0])) == 10
    assert all((a == b).all() for a, b in zip(few[0], few[1], strict=True))
    assert [group.tolist() for group in few[0]] != [group.tolist() for group in few[2]]


def test_a_number_is_right_if_no_other_that_is_answered_is_nearer() -> None:
    bare = bare_of(PROGRAMS[0])
    assert bare.readout is not None
    wanted = wanted_of(bare)
    assert wanted.numbers is not None
    np.testing.assert_allclose(wanted.numbers, [0, 1], atol=1e-3)
    for factor, right in ((0.8, True), (0.4, False)):
        scaled = replace(bare, readout=bare.readout._replace(directions=factor * bare.readout.directions))
        assert (share_right(scaled, wanted) == 1.0) == right


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.safetensors")
    }


def test_a_killed_ladder_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"finetuning": QUICK, "from_scratch": QUICK, "show_progress": False}
    make_ladder(PROGRAMS, RUNGS, tmp_path / "whole", 9, **settings)
    original, calls = ladder.make_rung, itertools.count()

    def interrupted(*arguments: object, **options: object) -> BareTransformer:
        if next(calls) == 8:
            raise KeyboardInterrupt
        return original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ladder, "make_rung", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_ladder(PROGRAMS, RUNGS, tmp_path / "killed", 9, **settings)
    assert len(hashes(tmp_path / "killed")) == 8
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*.safetensors")}
    make_ladder(PROGRAMS, RUNGS, tmp_path / "killed", 9, **settings)
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_rung_is_read_as_it_was_written(tmp_path: Path) -> None:
    paths = make_ladder(PROGRAMS, ("compressed-0.75",), tmp_path, 9, show_progress=False)
    for path, program in zip(paths, PROGRAMS, strict=True):
        rung = load_rung(path)
        bare = bare_of(program)
        made = ladder.make_rung(bare, rung.name, ladder.seed_of(9, rung.name, str(program)))
        assert all((array == rung.bare.params[name]).all() for name, array in made.params.items())
        assert rung.program == str(program)
        assert rung.right == share_right(rung.bare, wanted_of(bare))
        assert rung.sound == (rung.right >= SOUND)


def test_what_is_wrong_with_a_ladder_is_said(tmp_path: Path) -> None:
    make_ladder(PROGRAMS, ("clean",), tmp_path, 9, show_progress=False)
    with pytest.raises(RaspError, match="another program, rung or seed"):
        make_ladder(PROGRAMS[::-1], ("clean",), tmp_path, 9, show_progress=False)
    with pytest.raises(RaspError, match="no rung 'noisy'"):
        make_ladder(PROGRAMS, ("noisy",), tmp_path, 9, show_progress=False)
    (tmp_path / "clean" / "00000.safetensors").write_bytes(b"torn")
    with pytest.raises(RaspError, match="not a whole safetensors file"):
        load_rung(tmp_path / "clean" / "00000.safetensors")
    with pytest.raises(RaspError, match="steps is at least 1"):
        RungTraining(steps=0)


def test_the_forward_pass_that_is_trained_gives_the_stream_of_the_one_in_numpy() -> None:
    for number, program in enumerate(itertools.islice(sample("typed", seed=5), 4)):
        bare = BareTransformer.of(compile_program(program, mode="tracr_compat"))
        network = TrainableTransformer(bare)
        codes = np.random.default_rng(number).integers(0, len(bare.tokens), (8, bare.max_seq_len + 1))
        given = network.stream(torch.from_numpy(codes), torch.zeros(codes.shape)).detach().numpy()
        np.testing.assert_allclose(given, bare.forward(codes), atol=1e-4)
