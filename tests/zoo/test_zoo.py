"""Zoos: made, killed, resumed, damaged, checked."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from weightspace.errors import PlaceError, ZooError
from weightspace.files.lock import writing
from weightspace.files.workers import WorkerError
from weightspace.weights.population import Population
from weightspace.zoo import plan as planning
from weightspace.zoo.engine import ProcessEngine, StackedEngine
from weightspace.zoo.engines import engine_of
from weightspace.zoo.making import check_zoo, info, make_zoo
from weightspace.zoo.networks import module_of, spec_of
from weightspace.zoo.plan import Choice, Given, LogUniform, Uniform, ZooConfig, plan
from weightspace.zoo.recipes import ZOO_RECIPES, zoo_recipe
from weightspace.zoo.store import (
    MANIFEST,
    Record,
    Zoo,
    damaged_networks,
    finish,
    shard_path,
    split_of,
    verify,
    write_description,
    write_shard,
)

HERE = ProcessEngine(workers=0)


def tiny(**changes: object) -> ZooConfig:
    config = replace(
        zoo_recipe("digits-small"),
        recipe="tiny",
        count=10,
        shard_size=4,
        image_count=128,
        fixed={"batch_size": 64, "epochs": 1, "test_count": 50},
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a zoo but its lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return make_zoo(tiny(), tmp_path_factory.mktemp("zoos") / "tiny", HERE, show=False)


@pytest.fixture
def copy(zoo: Zoo, tmp_path: Path) -> Path:
    """A copy of the zoo that may be harmed."""
    for name, content in contents(zoo.folder).items():
        (tmp_path / "zoo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "zoo" / name).write_bytes(content)
    return tmp_path / "zoo"


def test_a_zoo_holds_every_network_with_its_seed_hyperparameters_and_curves(zoo: Zoo) -> None:
    assert list(zoo.column("network")) == list(range(10))
    config = tiny()
    for network in zoo.population():
        expected = plan(config, network.metadata["network"])
        assert network.metadata["seed"] == expected.seed
        for name, value in expected.hyperparameters.items():
            assert network.metadata[name] == value
        assert len(network.metadata["test_accuracy_by_epoch"]) == 1
        assert network.metadata["dropped"] is None
        assert network.spec == spec_of(expected.architecture)


def test_a_stored_network_can_be_run_and_has_the_accuracy_that_was_stored(zoo: Zoo) -> None:
    import torch

    from weightspace.zoo.images.loading import load_images
    from weightspace.zoo.images.preparing import channel_statistics, prepare, standardise

    images = prepare(load_images("digits"), count=128)
    pixels = torch.from_numpy(standardise(images.test_images[:50], *channel_statistics(images)))
    for network in zoo.population()[:3]:
        with torch.no_grad():
            answers = module_of(network)(pixels).argmax(1).numpy()
        accuracy = (answers == images.test_labels[:50]).mean()
        assert accuracy == pytest.approx(network.metadata["test_accuracy"], abs=0.021)  # one image on a tie


def test_the_same_zoo_comes_out_of_any_number_of_workers(zoo: Zoo, tmp_path: Path) -> None:
    other = make_zoo(tiny(), tmp_path / "other", ProcessEngine(workers=2), show=False)
    assert contents(other.folder) == contents(zoo.folder)


def test_checkpoints_are_stored_beside_the_last_and_never_cross_a_split(tmp_path: Path) -> None:
    fixed = {"batch_size": 64, "epochs": 3, "test_count": 50, "checkpoints": (0, 1)}
    stored = make_zoo(tiny(fixed=fixed), tmp_path / "stored", HERE, show=False)
    short = make_zoo(tiny(fixed={**fixed, "epochs": 1, "checkpoints": ()}), tmp_path / "short", HERE, show=False)
    every, last = stored.population(checkpoints=True), stored.population()
    assert len(every) == 30 and len(last) == 10
    assert [network.metadata["epoch"] for network in every[:3]] == [0, 1, 3]
    assert {network.metadata["epoch"] for network in last} == {3}
    for number, network in enumerate(short.population()):
        first = every[3 * number + 1]
        np.testing.assert_array_equal(first.weights, network.weights)
        assert first.metadata["test_accuracy"] == network.metadata["test_accuracy"]
        assert len(every[3 * number].metadata["test_accuracy_by_epoch"]) == 0
        assert len({every[3 * number + k].metadata["split"] for k in range(3)}) == 1
    assert check_zoo(stored.folder) == []
    assert info(stored.folder)["networks"] == 10 and info(stored.folder)["checkpoints"] == 30
    before = contents(stored.folder)
    shard_path(stored.folder, 1).unlink()
    make_zoo(tiny(fixed=fixed), stored.folder, HERE, show=False)
    assert contents(stored.folder) == before


@pytest.mark.parametrize("name", [name for name in ZOO_RECIPES if name.endswith("-paper")])
def test_a_recipe_for_a_gpu_makes_its_zoo_when_it_is_made_small(name: str, tmp_path: Path) -> None:
    config = zoo_recipe(name, count=2, images="digits", epochs=2)
    size = 16 if "cnn" not in name else config.image_size
    config = replace(config, image_size=size, image_count=600, fixed={**config.fixed, "test_count": 50})
    made = make_zoo(config, tmp_path / "zoo", HERE, show=False)
    assert len(made.rows()) == 2 and made.description["config"]["recipe"] == name


def test_of_many_sizes_of_networks_the_ends_and_the_median_are_said(tmp_path: Path) -> None:
    space = {**tiny().space, "width": Choice(tuple(range(2, 14)))}
    zoo = make_zoo(tiny(count=40, space=space, architectural=("width",)), tmp_path / "zoo", HERE, show=False)
    sizes = [network.spec.size for network in zoo.population()]
    assert len(set(sizes)) > 8
    said = {"min": min(sizes), "median": int(np.median(sizes)), "max": max(sizes)}
    assert info(zoo.folder)["parameters"] == said


def test_a_checkpoint_after_the_last_epoch_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be stored after epochs \[1, 4\]: name epochs from 0 to 2"):
        make_zoo(tiny(fixed={"batch_size": 64, "epochs": 3, "checkpoints": (1, 4)}), tmp_path, HERE, show=False)


def test_images_drawn_for_each_network_are_chosen_by_a_list_and_epochs_take_later_checkpoints_away() -> None:
    config = zoo_recipe("eilertsen-varied", images="mnist,cifar10-jpeg", epochs=2)
    assert config.space["images"] == Choice(("mnist", "cifar10-jpeg")) and config.images == "mnist"
    assert config.fixed["checkpoints"] == (1,)
    for name in ("eilertsen-varied", "cnn-s", "smallcnn"):
        assert zoo_recipe(name, epochs=1).fixed["checkpoints"] == ()


def test_a_network_can_be_made_alone(zoo: Zoo, tmp_path: Path) -> None:
    """Network 7 of a zoo of 8 is network 7 of a zoo of 10: it depends on recipe, seed and number alone."""
    smaller = make_zoo(tiny(count=8, shard_size=8), tmp_path / "smaller", HERE, show=False)
    np.testing.assert_array_equal(smaller.population()[7].weights, zoo.population()[7].weights)
    reseeded = make_zoo(tiny(count=1, seed=1), tmp_path / "reseeded", HERE, show=False)
    assert not np.array_equal(reseeded.population()[0].weights, zoo.population()[0].weights)


def test_a_killed_zoo_is_resumed_byte_for_byte(tmp_path: Path) -> None:
    """SIGKILL to the parent only: its workers must end by themselves."""
    script = (
        "from pathlib import Path; from tests.zoo.test_zoo import tiny; from weightspace.zoo.making import make_zoo\n"
        "from weightspace.zoo.engine import ProcessEngine\n"
        "if __name__ == '__main__':\n"
        f"    make_zoo(tiny(count=24), Path({str(tmp_path / 'killed')!r}), ProcessEngine(workers=2))\n"
    )
    (tmp_path / "run.py").write_text(script)
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, tmp_path / "run.py"], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "killed" / "shards").glob("0*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / MANIFEST).exists(), "it was not killed in time for this test to mean anything"
    with pytest.raises(ZooError, match="not complete"):
        Zoo.open(tmp_path / "killed")
    resumed = make_zoo(tiny(count=24), tmp_path / "killed", HERE, show=False)
    whole = make_zoo(tiny(count=24), tmp_path / "whole", HERE, show=False)
    assert contents(resumed.folder) == contents(whole.folder)  # and no temporary file is left


def test_a_finished_zoo_is_not_made_again(copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.safetensors")}
    make_zoo(tiny(), copy, HERE, show=False)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.safetensors")} == before


def test_a_flipped_byte_is_found_named_and_repaired(copy: Path, zoo: Zoo) -> None:
    path = shard_path(copy, 1)
    content = bytearray(path.read_bytes())
    content[-1898 * 4 - 10] ^= 0x40  # near the end of the last network but one: number 6
    path.write_bytes(content)
    assert verify(copy) and "network 6 in shards/00001.safetensors" in verify(copy)[0]
    assert [finding.kind for finding in check_zoo(copy)] == ["damage"]
    make_zoo(tiny(), copy, HERE, show=False)
    assert contents(copy) == contents(zoo.folder)


def test_a_flipped_label_is_found_and_repaired(copy: Path, zoo: Zoo) -> None:
    path = shard_path(copy, 2)
    content = bytearray(path.read_bytes())
    content[content.index(b"optimiser") + len(b'optimiser\\": \\"')] ^= 1
    path.write_bytes(content)
    assert "labels differ from their checksum" in verify(copy)[0]
    (copy / MANIFEST).unlink()  # even in a zoo that was never finished
    make_zoo(tiny(), copy, HERE, show=False)
    assert contents(copy) == contents(zoo.folder)


@pytest.mark.parametrize("harm", ["torn", "empty", "missing", "garbage"])
def test_a_harmed_shard_is_one_sentence_and_is_made_again(copy: Path, zoo: Zoo, harm: str) -> None:
    path = shard_path(copy, 0)
    whole = path.read_bytes()
    match harm:
        case "torn":
            path.write_bytes(whole[: len(whole) // 2])
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case "garbage":
            path.write_bytes(b"\x93NUMPY" + bytes(300))
    with pytest.raises(ZooError, match=r"00000\.safetensors"):
        Zoo.open(copy).shard(0)
    assert "00000.safetensors" in verify(copy)[0]
    make_zoo(tiny(), copy, HERE, show=False)
    assert contents(copy) == contents(zoo.folder)


def test_a_harmed_index_or_manifest_is_one_sentence_and_is_made_again(copy: Path, zoo: Zoo) -> None:
    (copy / "index.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ZooError, match="cannot be read"):
        Zoo.open(copy).population()
    make_zoo(tiny(), copy, HERE, show=False)
    (copy / MANIFEST).write_text("{")
    with pytest.raises(ZooError, match="damaged"):
        Zoo.open(copy)
    (copy / MANIFEST).unlink()
    make_zoo(tiny(), copy, HERE, show=False)
    assert contents(copy) == contents(zoo.folder)


def test_what_is_no_zoo_is_left_alone(tmp_path: Path, copy: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ZooError, match="not empty and holds no zoo"):
        make_zoo(tiny(), tmp_path / "mine", HERE, show=False)
    with pytest.raises(ZooError, match="is a file"):
        make_zoo(tiny(), tmp_path / "mine" / "thesis.tex", HERE, show=False)
    with pytest.raises(ZooError, match="is not a zoo"):
        Zoo.open(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    with pytest.raises(ZooError, match=r"another configuration, which differs in count \(10, not 12\)"):
        make_zoo(tiny(count=12), copy, HERE, show=False)
    with pytest.raises(ZooError, match=r"differs in stack \(1, not 4\)"):
        make_zoo(tiny(), copy, ProcessEngine(workers=0, stack=4), show=False)
    description = json.loads((copy / "zoo.json").read_text())
    (copy / "zoo.json").write_text(json.dumps({**description, "format": 99}))
    with pytest.raises(ZooError, match="format 99, this weightspace reads format 1"):
        Zoo.open(copy)


def test_nothing_is_written_before_the_configuration_is_known_to_be_good(tmp_path: Path) -> None:
    """A typo must not claim the folder."""
    with pytest.raises(ValueError, match="'minst'"):
        make_zoo(tiny(images="minst"), tmp_path / "zoo", HERE, show=False)
    with pytest.raises(WorkerError, match="there is no device 'gpu'"):
        make_zoo(tiny(), tmp_path / "zoo", StackedEngine(device="gpu"), show=False)
    assert not (tmp_path / "zoo").exists()
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / ".zoo.json.123.tmp").write_text("{")  # killed while it wrote the description
    make_zoo(tiny(count=2), tmp_path / "zoo", HERE, show=False)
    assert not list((tmp_path / "zoo").glob(".*.tmp"))


@pytest.mark.parametrize("name", ["zoo.json", "manifest.json", "index.parquet", "shards/00001.safetensors"])
def test_no_flipped_bit_goes_unnoticed(copy: Path, name: str) -> None:
    path = copy / name
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(len(whole), size=60):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(place) % 8
        path.write_bytes(flipped)
        try:
            assert check_zoo(copy), f"byte {place} of {name}"
        except ZooError as error:
            assert name in str(error) or "not a zoo" in str(error) or "format" in str(error)
    path.write_bytes(whole)
    assert check_zoo(copy) == []


def test_seeds_of_a_zoo_are_all_different() -> None:
    config = tiny(count=20_000)
    seeds = {planning._seed(config.seed, i) for i in range(20_000)}
    assert len(seeds) == 20_000
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert not seeds & {planning._seed(1, i) for i in range(100)}  # for these two zoos


def test_distributions_of_different_kinds_are_different_zoos() -> None:
    def given(kind: type) -> ZooConfig:
        return tiny(
            space={"optimiser": Choice(("adam",)), "learning_rate": Given("optimiser", {"adam": kind(0.1, 0.2)})}
        )

    assert given(Uniform).to_json() != given(LogUniform).to_json()


def test_many_shards_need_few_open_files(tmp_path: Path) -> None:
    """A zoo of thousands of shards is finished under a limit of 256 open files."""
    folder = leaky(tmp_path / "zoo", "none")
    for number in range(1, 300):
        (folder / "shards" / f"{number:05d}.safetensors").write_bytes(
            (folder / "shards" / "00000.safetensors").read_bytes()
        )
    code = (
        "import resource, sys; from pathlib import Path; from weightspace.zoo.store import finish\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); finish(Path(sys.argv[1]), 300)"
    )
    subprocess.run([sys.executable, "-c", code, folder], check=True)
    assert tiny(count=1_000_000).shard_size == 4
    assert ZooConfig(**{**vars(tiny()), "count": 1_000_000, "shard_size": 0}).shard_size == 2000


def test_a_second_run_into_one_zoo_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    folder = tmp_path / "held"
    with writing(folder), pytest.raises(PlaceError, match=f"process {os.getpid()}"):
        make_zoo(tiny(), folder, HERE, show=False)
    make_zoo(tiny(count=10), folder, HERE, show=False)  # the lock fell with its holder


def test_a_full_disk_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zoo: Zoo) -> None:
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 4:  # description and first shard, each with its directory, fit
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        make_zoo(tiny(), tmp_path / "full", HERE, show=False)
    assert [path.name for path in (tmp_path / "full" / "shards").iterdir()] == ["00000.safetensors"]
    monkeypatch.setattr(os, "fsync", real)
    assert contents(make_zoo(tiny(), tmp_path / "full", HERE, show=False).folder) == contents(zoo.folder)


def test_a_dead_worker_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="a worker process died"):
        ProcessEngine(workers=1).run({0: [plan(tiny(), 0)]}, _die, lambda _: None)
    assert not list(tmp_path.iterdir())


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_stacked_engine_makes_the_same_zoo_up_to_rounding(zoo: Zoo, tmp_path: Path) -> None:
    stacked = make_zoo(tiny(), tmp_path / "stacked", StackedEngine(device="cpu", stack=3), show=False)
    for ours, theirs in zip(stacked.population(), zoo.population(), strict=True):
        close = np.isclose(ours.weights, theirs.weights, rtol=1e-3, atol=1e-4)
        assert close.mean() > 0.99  # entries with a zero gradient may take whole steps of RMSProp
        for name in ("activation", "seed", "split", "network"):
            assert ours.metadata[name] == theirs.metadata[name]


def test_an_engine_estimates_its_time_by_its_workers_and_is_right_by_a_factor() -> None:
    plans = [plan(tiny(fixed={"batch_size": 64, "epochs": 40}), i) for i in range(4)]
    shards = {i: [one] for i, one in enumerate(plans)}
    one, two = (min(ProcessEngine(workers=n).seconds(shards) for _ in range(3)) for n in (1, 2))
    assert 1 < one / two < 4  # twice, but for noise
    start = time.monotonic()
    ProcessEngine(workers=0).run(shards, lambda *_: None, lambda _: None)
    assert 0.2 < one / (time.monotonic() - start) < 5


def test_an_engine_that_cannot_run_says_so() -> None:
    with pytest.raises(WorkerError, match="choose process"):
        engine_of("cluster")
    with pytest.raises(WorkerError, match="no CUDA GPU"):
        StackedEngine(device="cuda").run({}, _die, lambda _: None)


def test_splits_go_by_network_and_have_the_sizes_that_were_asked_for() -> None:
    splits = [split_of(i, seed=0) for i in range(4000)]
    assert splits[:100] == [split_of(i, seed=0) for i in range(100)]
    shares = [splits.count(name) / 4000 for name in ("train", "validation", "test")]
    np.testing.assert_allclose(shares, [0.6, 0.15, 0.25], atol=0.03)  # four standard errors of 4,000 draws
    assert splits != [split_of(i, seed=1) for i in range(4000)]


def test_a_recipe_that_does_not_exist_is_met_with_the_close_one() -> None:
    with pytest.raises(ValueError, match="did you mean 'digits-small'"):
        zoo_recipe("digit-small")
    for name in ZOO_RECIPES:
        assert zoo_recipe(name, count=3, seed=5).count == 3


# -- leaks ------------------------------------------------------------------------------------------------------------


def leaky(folder: Path, leak: str) -> Path:
    """A zoo of random weights, made by hand, with one planted leak."""
    rng = np.random.default_rng(0)
    config = ZooConfig(
        recipe="leaky", count=60, family="digits-cnn", images="digits", space={"optimiser": Choice(("adam", "sgd"))}
    )
    write_description(folder, {"config": json.loads(json.dumps(config.to_json())), "version": "test"})
    plain = spec_of(plan(tiny(), 0).architecture)
    wide = spec_of(plan(tiny(fixed={**tiny().fixed, "width": 9}), 0).architecture)
    records = []
    for i in range(60):
        which = {"order": i // 30, "parity": i % 2, "seed parity": 7 * i % 13 % 2}.get(leak, rng.integers(2))
        optimiser = ("adam", "sgd")[which]
        spec = wide if leak == "shape" and optimiser == "sgd" else plain
        facts = {
            "network": i,
            "seed": i,
            "split": split_of(i, 0),
            "optimiser": optimiser,
            "test_accuracy": 0.5,
            "dropped": None,
        }
        if leak == "seed parity":
            facts["seed"] = 1000 * i + 7 * i % 13
        if leak == "seed" and i == 59:
            facts["seed"] = next(r.facts["seed"] for r in records if r.facts["split"] != facts["split"])
        if leak == "split":
            facts["split"] = "train" if optimiser == "adam" else "test"
        weights = rng.normal(size=spec.size).astype(np.float32)
        if leak == "weights" and i == 59:
            weights = next(r.weights for r in records if r.facts["split"] != facts["split"])
        records.append(Record(spec, weights, facts))
    write_shard(folder, 0, records)
    finish(folder, 1)
    return folder


@pytest.mark.parametrize(
    ("leak", "sentence"),
    [
        ("shape", "label 'optimiser' can be told from the names, shapes"),
        ("order", "label 'optimiser' can be told from the number of the network"),
        ("parity", "label 'optimiser' can be told from the number of the network (remainder"),
        ("seed parity", "label 'optimiser' can be told from the seed (remainder"),
        ("split", "label 'optimiser' can be told from the split"),
        ("weights", "1 networks stand on both sides of a split by their weights"),
        ("seed", "1 networks stand on both sides of a split by their seed"),
    ],
)
def test_a_planted_leak_is_found(tmp_path: Path, leak: str, sentence: str) -> None:
    found = check_zoo(leaky(tmp_path / "zoo", leak))
    assert [finding.kind for finding in found] == ["leak"] * len(found)
    assert any(sentence in finding.text for finding in found), found


def test_a_sound_zoo_has_no_findings(zoo: Zoo, tmp_path: Path) -> None:
    assert check_zoo(leaky(tmp_path / "zoo", "none")) == []
    assert check_zoo(zoo.folder) == []


def test_info_counts_what_is_there(zoo: Zoo) -> None:
    facts = info(zoo.folder)
    assert facts["networks"] == 10
    assert sum(facts["splits"].values()) == 10
    assert facts["parameters"] == [1898]
    assert facts["labels"]["optimiser"] == ["momentum", "adam", "rmsprop"]


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_batch_across_shards_comes_in_the_order_that_was_asked_for(zoo: Zoo) -> None:
    population = zoo.population()
    positions = np.array([9, 0, 5, 0, 3])
    batch = population.read(positions)
    for row, i in zip(batch, positions, strict=True):
        np.testing.assert_array_equal(row, population[int(i)].weights)
    buffer = np.empty_like(batch)
    assert population.read(positions, buffer) is buffer
    np.testing.assert_array_equal(buffer, batch)
    chosen = population.select(positions)
    np.testing.assert_array_equal(chosen[1:3][0].weights, population[0].weights)
    assert population[-1].metadata["network"] == 9
    for beyond in (10, -11):
        with pytest.raises(IndexError):
            population[beyond]


def test_a_population_in_memory_reads_as_one_on_disk(zoo: Zoo) -> None:
    stored = zoo.population()
    memory = Population.of(list(stored))
    np.testing.assert_array_equal(memory.read(np.arange(10)), stored.read(np.arange(10)))
    assert [list(p) for _, p in memory.groups()] == [list(p) for _, p in stored.groups()]
    assert memory.specs == stored.specs


def test_dropped_networks_are_kept_with_their_reason_and_without_weights(tmp_path: Path) -> None:
    config = tiny(
        count=4, fixed={**tiny().fixed, "learning_rate": 1e12}, space={"optimiser": Choice(("momentum", "sgd"))}
    )
    config = replace(config, fixed={**config.fixed, "initialisation": "normal", "activation": "relu"})
    zoo = make_zoo(config, tmp_path / "zoo", HERE, show=False)
    assert len(zoo.population()) == 0
    assert all("diverged" in reason for reason in zoo.column("dropped"))
    assert info(zoo.folder)["dropped"] == {"diverged": 4}
    assert damaged_networks(shard_path(zoo.folder, 0)) == []
