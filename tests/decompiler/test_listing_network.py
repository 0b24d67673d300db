"""A network alone on the paper's task: its data on disk, its tokens, its equivariance, its training."""

import numpy as np
import pytest
import torch

from weightspace.decompiler.network.batch import collate
from weightspace.decompiler.network.graph import ANSWER, renamed
from weightspace.decompiler.paper.graph_decoder import (
    ListingBatch,
    ListingDecoder,
    ids_of,
    lines_of,
    listing_loss,
    parts_loss,
)
from weightspace.decompiler.paper.graph_examples import (
    HeldOut,
    draw_examples,
    held_out_programs,
    make_shards,
    pack,
    read_shard,
    shard_path,
    surely_larger,
    unpack,
)
from weightspace.decompiler.paper.listing import target_lines
from weightspace.decompiler.paper.listing_config import ListingConfig
from weightspace.decompiler.paper.listing_grammar import OPERATIONS, legal
from weightspace.errors import NetworkError, TaskError
from weightspace.rasp.canonical import canonical_key
from weightspace.rasp.language import fused
from weightspace.rasp.tokens import PAPER_ARGUMENTS, PAPER_OPERATIONS
from weightspace.rasp.validate import analyse, settings
from weightspace.train.config import TrainingConfig
from weightspace.zoo.programs.splits import split_of


@pytest.fixture(scope="module")
def examples():
    return draw_examples("train", 0, 0, 8)


def small(reader="graph", steps=2, **options):
    training = TrainingConfig(steps=steps, batch_size=4, learning_rate=3e-3, evaluate_every=steps, checkpoint_every=1)
    shape = {"width": 16, "rounds": 1, "message": 4, "depth": 1, "heads": 2, "part": 2, "group": 1, "half": False}
    return ListingConfig(reader=reader, training=training, **{**shape, **options})  # pyright: ignore[reportArgumentType]


def test_examples_are_of_their_split_and_hold_nothing_but_parameters(examples):
    for example in examples:
        assert not example.graph.anchors[:, ANSWER:].any()
        assert example.lines.shape == example.settled.shape == (15, 5)
    held = held_out_programs(3, 5)
    for one in held:
        analysis = analyse(meant := fused(one.program), *settings(meant, None, None), "tracr_compat")
        assert split_of(canonical_key(analysis)) == "test"
        assert sum(array.size for array in one.bare.params.values()) < 50_000
    assert isinstance(held[0], HeldOut)
    assert [str(one.program) for one in held_out_programs(2, 5)] == [str(one.program) for one in held[:2]]


def test_only_what_is_too_large_for_sure_is_left_out_unseen():
    held = held_out_programs(3, 5)
    sizes = [sum(array.size for array in one.bare.params.values()) for one in held]
    assert not any(surely_larger(fused(one.program), size) for one, size in zip(held, sizes, strict=True))
    assert any(surely_larger(fused(one.program), size // 20) for one, size in zip(held, sizes, strict=True))


def test_examples_come_back_from_a_shard_as_they_were(examples):
    for before, after in zip(examples, unpack(pack(examples)), strict=True):
        assert (before.lines == after.lines).all() and (before.settled == after.settled).all()
        for name in before.graph.__dataclass_fields__:
            assert np.array_equal(getattr(before.graph, name), getattr(after.graph, name))
    with pytest.raises(TaskError, match="damaged"):
        unpack(pack(examples)[:-200])


def test_lines_come_back_from_tokens(examples):
    lines = np.stack([example.lines for example in examples])
    assert (lines_of(ids_of(lines)) == lines).all()


@pytest.mark.parametrize("reader", ["graph", "chunks"])
def test_a_greedy_decode_is_what_the_network_says_of_its_own_lines(examples, reader):
    decoder = ListingDecoder(small(reader))
    torch.manual_seed(0)
    for parameter in decoder.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    batch = ListingBatch.of(examples, settled=False)
    decoder.network.eval()
    with torch.inference_mode():
        written = decoder.network.write(batch.graph)
        logits = decoder.network(ListingBatch(batch.graph, written))
        for place in range(written.shape[1]):
            logits[:, place][torch.from_numpy(~legal(written[:, :place].numpy()))] = -torch.inf
    assert (written == logits.argmax(-1)).all() and len(written.unique()) > 3
    assert decoder.decode([example.graph for example in examples]).shape == (8, 15, 5)


def test_all_that_was_drawn_is_legal_and_little_else(examples):
    ids = ids_of(np.stack([example.lines for example in examples]))
    shares = []
    for place in range(ids.shape[1]):
        found = legal(ids[:, :place])
        there = ids[:, place] != 0
        assert found[there, ids[there, place]].all()
        shares += found[there].mean(1).tolist()
    assert np.mean(shares) < 0.15


def test_what_is_not_written_yet_or_of_another_type_is_not_legal():
    width, tokens_id, selector = (PAPER_OPERATIONS.index("SelectorWidth"), *ids_named("tokens", "v1"))
    assert not legal(np.zeros((1, 0), np.int64))[0, width]  # no selector is there to be counted
    select = [PAPER_OPERATIONS.index("Select"), *ids_named("PRED_EQ", "tokens", "tokens")]
    assert not legal(np.array([select[:2]]))[0, selector] and not legal(np.array([select[:3]]))[0, ids_named("indices")]
    counted = legal(np.array([[*select, width]]))[0]
    assert counted[selector] and counted.sum() == 1
    aggregate = [*select, PAPER_OPERATIONS.index("Aggregate")]
    assert legal(np.array([aggregate]))[0, ids_named("indices", "tokens", "v1")].tolist() == [True, True, False]
    assert legal(np.array([[*aggregate, tokens_id]]))[0].nonzero()[0].tolist() == [selector]


def ids_named(*names):
    return [OPERATIONS + PAPER_ARGUMENTS.index(name) for name in names]


def test_shuffled_weights_are_answered_alike(examples):
    graphs = [example.graph for example in examples[:4]]
    random = np.random.default_rng(0)
    others = [renamed(graph, random) for graph in graphs]
    for ordered in (False, True):
        decoder = ListingDecoder(small(ordered=ordered))
        torch.nn.init.normal_(decoder.network.out.weight, std=0.5)
        with torch.inference_mode():
            logits, shuffled = (
                decoder.network(ListingBatch(collate(some), torch.ones(4, 8, dtype=torch.int64)))[..., 1:8][:, ::4]
                for some in (graphs, others)
            )
        assert torch.allclose(logits, shuffled, atol=1e-3) == (not ordered)


def test_the_order_of_directions_is_read_and_not_what_pads_them(examples):
    decoder = ListingDecoder(small(ordered=True))
    graph, large = sorted((example.graph for example in examples), key=lambda one: one.nodes)[:: len(examples) - 1]
    with torch.inference_mode():
        alone, _ = decoder.network.reader(collate([graph]))
        beside, _ = decoder.network.reader(collate([graph, large]))
    count = len(graph.anchors)
    assert torch.allclose(alone[0, :count], beside[0, :count], atol=1e-5)


def test_products_in_bfloat16_give_about_the_same(examples):
    whole, half = (ListingDecoder(small(half=half)) for half in (False, True))
    batch = ListingBatch.of(examples, settled=True)
    for decoder in (whole, half):
        torch.manual_seed(0)
        torch.nn.init.normal_(decoder.network.out.weight, std=0.5)
    with torch.inference_mode():
        exact, near = (decoder.network(batch)[..., 1:8][:, ::4] for decoder in (whole, half))
    assert not torch.equal(exact, near) and (exact - near).abs().max() < 0.05 * exact.abs().max()
    assert whole.parameters == half.parameters


def test_a_part_has_examples_of_alike_size_and_no_more_tokens_than_they_need(examples, tmp_path, monkeypatch):
    monkeypatch.setattr("weightspace.decompiler.paper.graph_decoder.SHARD", 8)
    monkeypatch.setattr("weightspace.decompiler.paper.graph_decoder.write_shard", lambda *words: words)
    monkeypatch.setattr("weightspace.decompiler.paper.graph_decoder.read_shard", lambda _: examples)
    decoder = ListingDecoder(small(shards=1))
    parts = [part for step in range(2) for part in decoder.batch(tmp_path, 0, step)]
    assert sum(len(part.ids) for part in parts) == 8 and all(len(part.ids) == 2 for part in parts)
    assert all((part.ids[:, -1] != 0).any() for part in parts)
    mean = torch.stack([listing_loss(decoder.network(part), part.ids) for part in parts[:2]]).sum()
    tokens = sum(int((part.ids != 0).sum()) for part in parts[:2])
    assert parts_loss(decoder.network, parts[:2]).item() == pytest.approx(mean.item() / tokens)


def test_a_training_goes_on_where_it_was_stopped(examples, tmp_path, monkeypatch):
    monkeypatch.setattr("weightspace.decompiler.paper.graph_decoder.SHARD", 8)
    (tmp_path / "data").mkdir()
    shard_path(tmp_path / "data", "train", 0, 0).write_bytes(pack(examples))
    make_shards(tmp_path / "data", "train", 0, [0], workers=0, show=False)  # it is there already
    whole = ListingDecoder(small(steps=3, shards=1)).fit(tmp_path / "data", 0, examples, None)
    folder = tmp_path / "run"

    class Killed(Exception):
        pass

    broken, steps = ListingDecoder(small(steps=3, shards=1)), []
    own = broken.batch

    def batch(data, seed, step):
        if len(steps) == 2:
            raise Killed
        steps.append(step)
        return own(data, seed, step)

    monkeypatch.setattr(broken, "batch", batch)
    with pytest.raises(Killed):
        broken.fit(tmp_path / "data", 0, examples, folder)
    resumed = ListingDecoder(small(steps=3, shards=1)).fit(tmp_path / "data", 0, examples, folder)
    assert whole.history.training_loss == resumed.history.training_loss
    with pytest.raises(TaskError, match="other settings"):
        ListingDecoder(small(steps=4, shards=1)).fit(tmp_path / "data", 0, examples, folder)
    resumed.save(folder, {"reader": "graph"})
    loaded = ListingDecoder.load(folder)
    graphs = [example.graph for example in examples]
    assert (loaded.decode(graphs) == resumed.decode(graphs)).all() and loaded.facts == {"reader": "graph"}
    read_shard.cache_clear()


def test_files_are_read_one_after_the_other_as_they_are_drawn(examples, tmp_path, monkeypatch):
    monkeypatch.setattr("weightspace.decompiler.paper.graph_decoder.SHARD", 8)
    asked = []
    monkeypatch.setattr(
        "weightspace.decompiler.paper.graph_decoder.write_shard", lambda *words: asked.append(words[-1])
    )
    monkeypatch.setattr("weightspace.decompiler.paper.graph_decoder.read_shard", lambda _: examples)
    decoder = ListingDecoder(small(shards=3, first=1, growth=4))
    for step in range(16):
        decoder.batch(tmp_path, 0, step)
    assert asked[0] == 0 and max(asked[:2]) < 2 and max(asked) == 2


def test_what_is_no_listing_decoder_is_refused(tmp_path):
    with pytest.raises(NetworkError):
        ListingDecoder.load(tmp_path)
    with pytest.raises(ValueError, match="choose 1 to `shards`"):
        small(first=2, shards=1)


def test_targets_can_be_written_for_what_is_held_out():
    assert all(target_lines(one.program).any() for one in held_out_programs(2, 6))
