"""Lineage: relatives are found whatever was done to them, strangers are not, and what cannot be compared is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import weightspace as ws
from tests.provenance.families import config, network
from weightspace.cli.dispatch import main
from weightspace.errors import NetworkError
from weightspace.provenance.candidates import candidates_in
from weightspace.provenance.descriptors import descriptors
from weightspace.provenance.filters import balanced_filters, kernel_places
from weightspace.provenance.lineage import lineage, lineage_among
from weightspace.provenance.matching import match_filters
from weightspace.provenance.null import candidate_null, surrogate
from weightspace.weights.network import Network
from weightspace.weights.scaling import random_scales, rescale
from weightspace.weights.symmetry import permute, random_permutation
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.making import check_zoo, make_zoo
from weightspace.zoo.networks import architecture_of, spec_of

HARDEST = ("retarget", "prune", "permute", "rescale")


def moved(given: Network, seed: int = 0, spread: float = 1.0) -> Network:
    rng = np.random.default_rng(seed)
    reordered = permute(given, random_permutation(given.spec, rng))
    return rescale(reordered, random_scales(given.spec, rng, spread, exact=True))


def fresh(seed: int, family: str = "pooled-cnn", **options: object) -> Network:
    spec = spec_of(architecture_of(family, (1, 14, 14), **options))
    weights = np.random.default_rng(seed).normal(0, 0.3, spec.size).astype(np.float32)
    for leaf, place in spec.slices():
        if leaf.role in ("running_variance", "scale"):
            weights[place] = np.abs(weights[place]) + 0.5
    return Network(spec, weights)


@pytest.mark.parametrize(
    ("family", "options"),
    [("pooled-cnn", {}), ("pooled-cnn", {"norm": True, "residual": True}), ("small-mlp", {}), ("digits-cnn", {})],
)
def test_filters_forget_scales_and_follow_the_order_of_neurons(family: str, options: dict[str, bool]) -> None:
    given = fresh(1, family, **options)
    other = moved(given)
    filters = balanced_filters(np.stack([given.weights, other.weights]), given.spec)
    for kernel in kernel_places(given.spec):
        rows = filters[:, kernel.place].reshape(2, *kernel.shape)
        np.testing.assert_allclose((rows**2).sum(2), 1, rtol=1e-4)
    found = match_filters(filters[0], filters[1], given.spec)
    assert found.likeness == pytest.approx(1, abs=1e-3)  # columns are balanced to a relative 1e-6, in float32
    # and the descriptors of the two are the same, which those of a third network are not
    table = descriptors(
        np.concatenate([filters, balanced_filters(fresh(2, family, **options).weights[None], given.spec)]), given.spec
    )
    assert np.abs(table[0] - table[1]).max() < 1e-2
    assert np.abs(table[0] - table[2]).max() > 1e-1


def test_matching_gives_back_the_order_that_neurons_were_put_in() -> None:
    given = fresh(3, "small-mlp")
    order = random_permutation(given.spec, np.random.default_rng(4))
    filters = balanced_filters(np.stack([permute(given, order).weights, given.weights]), given.spec)
    found = match_filters(filters[0], filters[1], given.spec)
    for group in given.spec.groups:
        if group.permutable:
            assert np.array_equal(found.permutation[group.name], order[group.name])


def test_zero_rows_and_columns_stay_zero_and_nothing_becomes_nan() -> None:
    given = fresh(5)
    arrays = {name: array.copy() for name, array in given.arrays().items()}
    arrays["conv1.weight"][2] = 0
    arrays["conv2.weight"][:, 3] = 0
    filters = balanced_filters(given.spec.join(arrays)[None], given.spec)[0]
    assert np.isfinite(filters).all()
    assert not given.spec.split(filters)["conv1.weight"][2].any()


@pytest.mark.parametrize(
    "derivation", [("finetune", "prune", "permute", "rescale"), ("quantise",), ("merge", "permute"), HARDEST]
)
def test_a_child_is_related_to_its_parent_and_not_to_another_one(derivation: tuple[str, ...]) -> None:
    child = network(1, derivation)
    found = lineage(network(0), child)
    assert found.related and found.best.p_value <= 0.01
    stranger = lineage(network(8), child)
    assert not stranger.related
    assert stranger.best.likeness < found.best.likeness - 0.2


def test_a_distilled_network_shares_no_weights_so_it_is_not_found() -> None:
    assert not lineage(network(0), network(1, ("distil",))).related


def test_strangers_are_seldom_called_related() -> None:
    p_values = [lineage(network(8 * i), network(8 * j)).best.p_value for i in range(5) for j in range(i)]
    assert sum(p <= 0.05 for p in p_values) <= 1  # ten pairs
    assert min(p_values) > 0.001


def test_a_surrogate_has_none_of_the_networks_neurons_and_keeps_their_sizes() -> None:
    given = balanced_filters(fresh(6).weights[None], fresh(6).spec)[0]
    mixed = surrogate(given, fresh(6).spec, np.random.default_rng(0))
    assert match_filters(given, mixed, fresh(6).spec).likeness < 0.5
    for kernel in kernel_places(fresh(6).spec):
        np.testing.assert_allclose((mixed[kernel.place].reshape(kernel.shape) ** 2).sum(1), 1, rtol=1e-4)


def test_relatives_among_the_candidates_do_not_hide_each_other() -> None:
    null = candidate_null(np.array([0.2, 0.22, 0.24, 0.21, 0.23] * 6 + [0.9, 0.95]))
    assert null is not None and null.mean < 0.25 and null.p_value(0.8) < 0.001
    assert candidate_null(np.array([0.2, 0.9])) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight parents, two of them in other formats and under other names, and files that are no such networks."""
    place = tmp_path_factory.mktemp("candidates")
    for number in range(8):
        network(8 * number).save(place / f"parent-{number}.safetensors")
    arrays = network(0).arrays()
    (place / "deeper").mkdir()
    wrapped = {"state_dict": {f"module.{name}": torch.from_numpy(array) for name, array in arrays.items()}, "epoch": 3}
    torch.save(wrapped, place / "deeper" / "first.pt")
    save_file({"weight": np.zeros((3, 4), np.float32)}, place / "other.safetensors")
    broken = {name: np.full_like(array, np.nan) for name, array in arrays.items()}
    save_file(broken, place / "nan.safetensors")
    (place / "torn.pt").write_bytes(b"PK\x03\x04 torn")
    (place / "readme.txt").write_text("no network")
    return place


def test_the_parent_of_the_hardest_chain_is_found_in_a_folder_of_many_formats(folder: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.safetensors"
    network(1, HARDEST).save(child)
    found = lineage_among(child, folder)
    assert found.related
    assert {Path(one.name).name for one in found.relations[:2]} == {"parent-0.safetensors", "first.pt"}
    assert not found.relations[2].related
    assert found.compared == 9
    assert found.skipped == {
        "of another architecture": 1,
        "with NaN or infinite weights": 1,
        "that could not be read as a network": 1,
    }


def test_what_was_read_of_files_is_kept_by_their_hashes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, cache = network(1, HARDEST), tmp_path / "cache"
    first = lineage_among(child, folder, cache=cache)
    (kept,) = cache.glob("*.safetensors")
    monkeypatch.setattr("weightspace.provenance.candidates.descriptors", None)  # nothing is described again
    again = lineage_among(child, folder, cache=cache)
    assert [one.name for one in again.relations] == [one.name for one in first.relations]
    monkeypatch.undo()
    kept.write_bytes(b"torn")
    assert lineage_among(child, folder, cache=cache).best.name == first.best.name
    renamed = tmp_path / "renamed"
    shutil.copytree(folder, renamed)
    monkeypatch.setattr("weightspace.provenance.candidates.descriptors", None)
    assert Path(lineage_among(child, renamed, cache=cache).best.name).name == Path(first.best.name).name


def test_candidates_too_large_to_be_held_are_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weightspace.provenance.candidates.HELD", 1)
    found = candidates_in(folder, network(0).spec, whose="the network")
    assert found.held is None
    assert lineage_among(network(1, HARDEST), folder).related


def test_a_zoo_of_families_is_sound_and_its_parents_are_found(tmp_path: Path) -> None:
    made = make_zoo(
        config(count=24, derivations=(HARDEST, ("distil",))), tmp_path / "zoo", ProcessEngine(workers=0), show=False
    )
    assert not [finding for finding in check_zoo(made.folder) if finding.kind == "damage"]
    facts = {name: made.column(name) for name in ("network", "parent", "derivation", "split")}
    for family in range(3):
        members = facts["parent"] == 8 * family
        assert members.sum() == 8 and len(set(facts["split"][members])) == 1
    child = int(np.flatnonzero(facts["derivation"] == "+".join(HARDEST))[0])
    child_network = Network(network(0).spec, made[child].weights)
    relatives = lineage_among(child_network, made.folder, most=8).relations
    assert relatives[0].likeness == pytest.approx(1)  # itself
    assert f"network {facts['parent'][child]}" in [one.name for one in relatives if one.related]


def test_files_without_a_description_are_chained_by_their_shapes(tmp_path: Path) -> None:
    given = fresh(7, "small-mlp")
    for name, one in {"a": given, "b": moved(given)}.items():
        arrays = {f"net.{key}": np.ascontiguousarray(value) for key, value in one.arrays().items()}
        save_file(arrays, tmp_path / f"{name}.safetensors")
    assert lineage(tmp_path / "a.safetensors", tmp_path / "b.safetensors").best.likeness == pytest.approx(1, abs=1e-3)


def test_what_cannot_be_compared_is_said_in_one_sentence(tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    fresh(1).save(one)
    fresh(2, width=12).save(other)
    shutil.copy(one, tmp_path / "copy.safetensors")
    broken = fresh(1).weights.copy()
    broken[3] = np.nan
    Network(fresh(1).spec, broken).save(tmp_path / "nan.safetensors")
    Network(fresh(1).spec, np.zeros_like(broken)).save(tmp_path / "zero.safetensors")
    (tmp_path / "empty").mkdir()
    for second, sentence in {
        other: r"not comparable with .*one.safetensors: .*conv",
        one: "are the same file",
        tmp_path / "copy.safetensors": "are the same file",
        tmp_path / "nan.safetensors": "NaN or infinite",
        tmp_path / "zero.safetensors": "every kernel of .* is constant",
        tmp_path / "missing.pt": "there is no file",
    }.items():
        with pytest.raises(NetworkError, match=sentence):
            ws.lineage(one, second)
    with pytest.raises(NetworkError, match=r"holds no network that can be compared .*holds no checkpoint"):
        ws.lineage(one, tmp_path / "empty")
    with pytest.raises(NetworkError, match="is a folder"):
        ws.lineage(tmp_path / "empty", one)
    with pytest.raises(NetworkError, match="between 0 and 1"):
        ws.lineage(one, other, alarms=0.0)


def test_the_verb_answers_in_words_and_json_with_its_status(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = tmp_path / "child.safetensors"
    network(1, HARDEST).save(child)
    parent, stranger = str(folder / "parent-0.safetensors"), str(folder / "parent-3.safetensors")
    assert main(["lineage", str(child), parent]) == 0
    assert "come from one network" in capsys.readouterr().out
    assert main(["lineage", str(child), stranger]) == 1
    assert "no sign of it" in capsys.readouterr().out
    assert main(["lineage", str(child), str(folder), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["related"] and record["relations"][0]["layers"].keys() == {"conv1.weight", "conv2.weight"}
    assert main(["lineage", str(child), str(tmp_path / "nothing")]) == 2
