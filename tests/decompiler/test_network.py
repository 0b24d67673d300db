"""The decompiler's network and grammar: nothing ill-typed, nothing that depends on names, the same by any way."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np
import pytest
import torch

from weightspace.decompiler.network.batch import collate
from weightspace.decompiler.network.config import DecompilerConfig
from weightspace.decompiler.network.grammar import END, NAMES, Draft, Written, write
from weightspace.decompiler.network.graph import ANSWER, disturbed, graph_of, renamed, squeezed
from weightspace.decompiler.network.network import DecompilerNetwork
from weightspace.decompiler.network.pairs import Pair, drawn, group, split_of_program
from weightspace.decompiler.network.plain_readers import PlainReader
from weightspace.decompiler.network.proposer import Proposer, batch_of, fit, lines_of
from weightspace.decompiler.proof.verify import certify, permuted
from weightspace.decompiler.search.guided import Guided
from weightspace.errors import NetworkError, RaspError
from weightspace.experiments.readers import compare_readers, table
from weightspace.rasp.canonical import canonical_key
from weightspace.rasp.compiler.assemble import assemble
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample
from weightspace.rasp.validate import Analysis, analyse, settings
from weightspace.train.config import TrainingConfig

TINY = DecompilerConfig(
    width=32, rounds=2, message=8, depth=2, heads=4, training=TrainingConfig(steps=6, batch_size=4, evaluate_every=3)
)


def analysed(count: int, seed: int) -> list[Analysis]:
    found = [analyse(p, *settings(p, None, None), "tracr_compat") for p in islice(sample("typed", seed), count)]
    return [analysis for analysis in found if not analysis.reasons]


def untrained(config: DecompilerConfig) -> Proposer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DecompilerNetwork(config)
        torch.nn.init.normal_(network.out.weight, std=0.3)
    return Proposer(config, network)


@pytest.fixture(scope="module")
def proposer() -> Proposer:
    return untrained(TINY)


def test_a_program_is_written_and_read_back_token_by_token() -> None:
    for number, analysis in enumerate(analysed(60, 1)):
        written = write(analysis, number % NAMES)
        draft = Draft(analysis.vocab, analysis.max_seq_len, "tracr_compat", number % NAMES, int(written.slots.max()))
        for token in written.ids[3:]:
            assert draft.allowed()[token]
            draft.push(int(token))
        assert draft.ended
        again = draft.written()
        for name in Written.__dataclass_fields__:
            assert np.array_equal(getattr(written, name), getattr(again, name)), name
        read = analyse(draft.program(), analysis.vocab, analysis.max_seq_len, "tracr_compat")
        assert canonical_key(read) == canonical_key(analysis)


def test_two_ways_of_writing_one_program_are_one_sequence_of_tokens() -> None:
    def tokens_of(text: str) -> list[int]:
        program = Program.parse(f"vocab = [0, 1, 2]\nmax_seq_len = 3\n{text}")
        return write(analyse(program, *settings(program, None, None), "tracr_compat")).ids.tolist()

    numbers = "a: numerical = Map(x, tokens)\nb: numerical = Map(x + 1, indices)\n"
    first = f"{numbers}return LinearSequenceMap(-3, 2, a, b)"
    assert tokens_of(first) == tokens_of(f"{numbers}return LinearSequenceMap(2, -3, b, a)")
    assert tokens_of(first) != tokens_of(f"{numbers}return LinearSequenceMap(2, -3, a, b)")
    assert tokens_of("return SequenceMap(x * y, tokens, indices)") == tokens_of(
        "return SequenceMap(x * y, indices, tokens)"
    )
    assert tokens_of("return SequenceMap(x - y, tokens, indices)") != tokens_of(
        "return SequenceMap(x - y, indices, tokens)"
    )
    assert tokens_of("return Map(x > 2, tokens)") == tokens_of("return Map(x > 3, tokens)")  # never, of 0, 1 and 2
    assert tokens_of("return Map(x == 1, tokens)") != tokens_of("return Map(x == 2, tokens)")


def test_the_reader_is_told_which_numbers_the_answer_is() -> None:
    program = Program.parse("vocab = [0, 1, 2]\nmax_seq_len = 3\nreturn Map(x - 1, tokens)")
    bare = BareTransformer.of(assemble(analyse(program, *settings(program, None, None), "tracr_compat")))
    known = graph_of(bare).anchors
    assert sorted(known[known[:, ANSWER] > 0, ANSWER + 1].tolist()) == pytest.approx([-0.1, 0.0, 0.1])
    assert not graph_of(replace(bare, readout=None)).anchors[:, ANSWER:].any()


def test_the_grammar_refuses_what_is_ill_typed_and_leaves_the_draft_as_it_was() -> None:
    draft = Draft((0, 1), 3, "tracr_compat")
    before = draft.length
    with pytest.raises(RaspError, match="not allowed"):
        draft.push(END)
    assert draft.length == before


def test_whatever_an_untrained_network_writes_can_be_compiled_or_is_unfinished(proposer: Proposer) -> None:
    analysis = analysed(1, 2)[0]
    bare = BareTransformer.of(assemble(analysis))
    drafts = [Draft(bare.vocab, bare.max_seq_len, "tracr_compat", n, 2 * bare.num_layers) for n in range(40)]
    found = proposer.propose(proposer.read([graph_of(bare)]), drafts, temperature=2.0, seed=3)
    finished = [proposal.draft for proposal in found if proposal.draft.ended and len(proposal.draft.scope) > 2]
    assert len(finished) > 5
    for draft in finished:
        program = draft.program()
        reasons = analyse(program, bare.vocab, bare.max_seq_len, "tracr_compat").reasons
        assert all("does not read tokens" in str(reason) for reason in reasons)


@pytest.mark.parametrize("seed", range(3))
def test_the_reader_gives_the_same_vectors_in_another_order_and_notices_other_weights(
    proposer: Proposer, seed: int
) -> None:
    bare = BareTransformer.of(assemble(analysed(3, 5)[seed]))
    reader = proposer.network.reader
    with torch.inference_mode():
        first = reader(collate([graph_of(bare)]))[0][0]
        other = reader(collate([graph_of(permuted(bare, seed))]))[0][0]
        params = dict(bare.params)
        name = "transformer/layer_0/mlp/linear_2/w" if bare.second[0].any() else "transformer/layer_0/attn/query/w"
        params[name] = params[name] * np.float32(1.5)
        changed = reader(collate([graph_of(replace(bare, params=params))]))[0][0]
    # sums run in another order
    plain = "donot_use_mm_for_euclid_dist"
    assert torch.cdist(first, other, compute_mode=plain).amin(1).max() < 1e-3
    assert torch.cdist(first, changed, compute_mode=plain).amin(1).max() > 1e-2


@pytest.mark.parametrize("reader", ["graph", "rows", "chunks"])
def test_padding_changes_nothing(proposer: Proposer, reader: Literal["graph", "rows", "chunks"]) -> None:
    if reader != "graph":
        proposer = untrained(replace(TINY, reader=reader))
    pairs = drawn(replace(TINY, noisy=0.0, squeezed=0.0), "train", 0, 0, 6)
    together = batch_of(pairs)
    with torch.inference_mode():
        logits = proposer.network(together.graph, together.lines)
        for row, pair in enumerate(pairs):
            alone = proposer.network(collate([pair.graph]), lines_of([pair.written]))[0]
            assert torch.allclose(logits[row, : len(alone)], alone, atol=2e-4)


def test_decoding_with_what_is_kept_equals_decoding_anew(proposer: Proposer) -> None:
    bare = BareTransformer.of(assemble(analysed(4, 6)[3]))
    graph = graph_of(bare)
    draft = Draft(bare.vocab, bare.max_seq_len, "tracr_compat", 3, 2 * bare.num_layers)
    (found,) = proposer.propose(proposer.read([graph]), [draft], most=60)
    again, score = draft.copy(), 0.0
    with torch.inference_mode():
        while not again.ended and again.length < found.draft.length:
            logits = proposer.network(collate([graph]), lines_of([again.written()]))[0, -1].numpy()
            score += proposer._write(again, logits, 0.0, np.random.default_rng(0))
    assert np.array_equal(again.written().ids, found.draft.written().ids)
    assert score == pytest.approx(found.log_probability, abs=1e-2)


def test_a_graph_under_other_names_is_the_graph_of_permuted_weights() -> None:
    graph = graph_of(BareTransformer.of(assemble(analysed(4, 6)[3])))
    other = renamed(graph, np.random.default_rng(0))
    assert not np.array_equal(graph.first, other.first)
    for name in ("anchors", "first", "second", "scores", "moves"):
        assert np.array_equal(np.sort(getattr(graph, name), None), np.sort(getattr(other, name), None)), name
    assert np.array_equal(graph.unit_layer, other.unit_layer) and np.array_equal(graph.head_layer, other.head_layer)
    reader = untrained(TINY).network.reader
    with torch.inference_mode():
        vectors = [reader(collate([one]))[0][0] for one in (graph, other)]
    assert torch.cdist(*vectors, compute_mode="donot_use_mm_for_euclid_dist").amin(1).max() < 1e-3


@pytest.mark.parametrize("rows", [True, False])
def test_every_number_of_the_weights_reaches_a_reader_without_structure(rows: bool) -> None:
    graph = graph_of(BareTransformer.of(assemble(analysed(4, 6)[3])))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reader = PlainReader(16, 1, 2, rows).eval()
    with torch.inference_mode():
        before, present = reader(collate([graph]))
        assert present.all()
        for name in ("anchors", "first", "second", "scores", "moves"):
            array = getattr(graph, name).copy()
            array[tuple(np.argwhere(array)[-1])] *= 2
            after, _ = reader(collate([replace(graph, **{name: array})]))
            assert (after - before).abs().max() > 1e-4, name


def test_readers_are_compared_under_one_budget_and_a_killed_comparison_goes_on(tmp_path) -> None:
    small = partial(compare_readers, tmp_path, share=0.02, base=TINY, programs=4, workers=0, show=False)
    rows = small(("graph", "chunks, names shuffled"))
    assert [row.programs for row in rows] == [24 * 4, 14 * 4]
    assert all(0 < row.tokens < 1 and row.parameters > 10_000 for row in rows)
    # no name has a say in what the graph's reader reads, nor in what it is scored on
    assert rows[0].tokens == pytest.approx(rows[0].named_tokens, abs=0.02)
    assert small(("graph",)) == rows[:1]
    assert f"| graph | {rows[0].parameters:,} | 96 |" in table(rows)


def test_batches_are_functions_of_their_number_and_noise_of_its_share() -> None:
    one, two = group(TINY, "train", 0, 3), group(TINY, "train", 0, 3)
    for a, b in zip(one, two, strict=True):
        for p, q in zip(a, b, strict=True):
            assert np.array_equal(p.written.ids, q.written.ids) and np.array_equal(p.graph.first, q.graph.first)
    graph = graph_of(BareTransformer.of(assemble(analysed(1, 8)[0])))
    small, large = (disturbed(graph, share, np.random.default_rng(0)) for share in (0.01, 0.1))
    apart = [np.abs(other.first - graph.first).mean() for other in (small, large)]
    assert apart[1] == pytest.approx(10 * apart[0], rel=1e-3)
    assert np.allclose(squeezed(graph, 1.0, np.random.default_rng(0)).first, graph.first, atol=1e-4)


def test_programs_of_a_split_are_of_that_split_and_excluded_ones_never_come() -> None:
    plain = replace(TINY, other_shapes=0.0, fixed=0.0, noisy=0.0, squeezed=0.0)
    programs = {
        split: [program for program in islice(sample("typed", 9), 150) if split_of_program(program) == split]
        for split in ("train", "validation", "test")
    }
    assert all(programs.values())
    read = [decoded(pair, plain) for pair in drawn(plain, "train", 0, 0, 12)]
    assert {split_of_program(program) for program in read} == {"train"}
    keys = [canonical_key(analyse(program, (0, 1, 2, 3, 4), 5, "tracr_compat")).hex() for program in read]
    left = [decoded(pair, plain) for pair in drawn(replace(plain, excluded=tuple(keys[:1])), "train", 0, 0, 12)]
    assert keys[0] not in [canonical_key(analyse(p, (0, 1, 2, 3, 4), 5, "tracr_compat")).hex() for p in left]


def decoded(pair: Pair, config: DecompilerConfig) -> Program:
    """The program of a pair whose names begin anywhere: the offset under which its tokens are its own."""
    assert config.other_shapes == 0.0
    for offset in range(NAMES):
        draft = Draft((0, 1, 2, 3, 4), 5, "tracr_compat", offset)
        try:
            for token in pair.written.ids[3:]:
                draft.push(int(token))
        except RaspError:
            continue
        if np.array_equal(draft.written().names, pair.written.names):
            return draft.program()
    raise AssertionError("the tokens are no program")


def test_a_few_programs_are_learnt_by_heart_and_read_from_their_weights(tmp_path) -> None:
    """A planted answer: six programs, told apart by their weights alone."""
    config = replace(TINY, training=TrainingConfig(steps=150, batch_size=6, learning_rate=3e-3))
    torch.manual_seed(0)
    network = DecompilerNetwork(config)
    pairs = drawn(replace(config, noisy=0.0, squeezed=0.0), "train", 1, 0, 6)
    batch = batch_of(pairs)
    from weightspace.decompiler.network.network import next_token_loss
    from weightspace.train.loop import train

    train(network, lambda m, b: next_token_loss(m(b.graph, b.lines), b.lines.ids), lambda _: batch, config.training)
    with torch.inference_mode():
        right = network(batch.graph, batch.lines)[:, 2:-1].argmax(-1)
    target = batch.lines.ids[:, 3:]
    assert ((right == target) | (target == 0)).all()
    path = tmp_path / "network.safetensors"
    Proposer(config, network).save(path, {"what": "a test"})
    loaded = Proposer.load(path)
    assert loaded.facts == {"what": "a test"}
    with torch.inference_mode():
        assert torch.equal(loaded.network(batch.graph, batch.lines)[:, 2:-1].argmax(-1), right)


def test_training_resumed_gives_the_losses_of_training_uninterrupted(tmp_path) -> None:
    whole = fit(TINY, None, workers=0, validation=8, show=False)
    half = replace(TINY, training=replace(TINY.training, checkpoint_every=2))
    folder = tmp_path / "run"

    class Killed(Exception):
        pass

    from weightspace.decompiler.network import proposer as module

    original, calls = module.batch_of, []

    def dies(pairs):
        calls.append(len(pairs))
        if len(calls) == 6:
            raise Killed
        return original(pairs)

    module.batch_of = dies
    try:
        with pytest.raises(Killed):
            fit(half, folder, workers=0, validation=8, show=False)
    finally:
        module.batch_of = original
    resumed = fit(half, folder, workers=0, validation=8, show=False)
    assert resumed.history.training_loss == whole.history.training_loss


def test_a_file_that_is_no_decompiler_is_refused_in_one_sentence(tmp_path, proposer: Proposer) -> None:
    with pytest.raises(NetworkError, match="holds no decompiler"):
        Proposer.load(tmp_path / "missing.safetensors")
    torn = tmp_path / "torn.safetensors"
    proposer.save(torn)
    torn.write_bytes(torn.read_bytes()[:-100])
    with pytest.raises(NetworkError):
        Proposer.load(torn)


@pytest.mark.parametrize("rule", ["x - y", "x and y", "x + y % 10"])
@pytest.mark.parametrize("inputs", ["tokens, indices", "indices, tokens"])
def test_a_search_tries_every_operation_in_both_orders_of_its_inputs(
    proposer: Proposer, rule: str, inputs: str
) -> None:
    program = Program.parse(f"vocab = [1, 2, 11]\nmax_seq_len = 4\nreturn SequenceMap({rule}, {inputs})")
    bare = permuted(BareTransformer.of(assemble(analyse(program, *settings(program, None, None), "tracr_compat"))), 3)
    found = Guided(bare, "tracr_compat", proposer).search(20.0)
    assert found.complete
    assert found.program is not None
    assert certify(found.program, bare) is not None


def test_where_nothing_that_is_proposed_fits_enumeration_is_the_last_resort(
    proposer: Proposer, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = analysed(1, 2)[0]
    guided = Guided(permuted(BareTransformer.of(assemble(analysis)), 3), "tracr_compat", proposer)
    monkeypatch.setattr(guided, "_candidates", lambda *_: iter(()))
    found = guided.search(20.0)
    assert found.program is not None
    assert certify(found.program, guided.bare) is not None
    assert any("last resort" in line for line in found.trace)


def test_a_training_goes_on_only_from_the_weights_it_started_from(tmp_path, proposer: Proposer) -> None:
    first = fit(TINY, tmp_path / "run", start=proposer, workers=0, validation=8, show=False)
    again = fit(TINY, tmp_path / "run", start=proposer, workers=0, validation=8, show=False)
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), again.network.parameters(), strict=True))
    for other in (None, first):
        with pytest.raises(NetworkError, match="started from other weights"):
            fit(TINY, tmp_path / "run", start=other, workers=0, validation=8, show=False)
    with pytest.raises(NetworkError, match=r"another shape: .*heads 4, not .*heads 2"):
        fit(replace(TINY, heads=2), None, start=proposer, workers=0, validation=8, show=False)
