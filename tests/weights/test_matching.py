"""Matching by structure: one network under many names is known, and what may be another network never is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from weightspace.backdoors.detector import Detector
from weightspace.weights.array_names import parts_of, runs_before, taken_apart
from weightspace.weights.matching import Match, MismatchError, match
from weightspace.weights.spec import NetworkSpec
from weightspace.weights.state_dict import spec_of_state_dict

Shapes = dict[str, tuple[int, ...]]
SPEC: NetworkSpec = Detector.load().spec
OWN: Shapes = {leaf.name: leaf.shape for leaf in SPEC.leaves}


def renamed(rename: Callable[[str, int, str], str]) -> dict[str, str]:
    """New name of each leaf, from what it is (conv, norm, dense), the number of its block, and weight or bias."""
    names = {}
    for leaf in SPEC.leaves:
        found = re.fullmatch(r"(conv|norm|dense)(\d)\.(weight|bias)", leaf.name)
        assert found is not None
        what, number, which = found.groups()
        names[leaf.name] = rename(what, int(number), which)
    return names


def place(what: str, number: int) -> int:
    """Where a layer of the detector stands in a torch.nn.Sequential with activations: conv, norm, activation, ..."""
    return 3 * (number - 1) + (what == "norm")


FLAX = {
    ("conv", "weight"): "kernel",
    ("norm", "weight"): "gamma",
    ("norm", "bias"): "beta",
    ("dense", "weight"): "kernel",
}
COUNTS = ("One", "Two", "Three", "Four", "Five", "Six")


def keras(what: str, number: int, which: str) -> str:
    layer = {"conv": "conv2d", "norm": "batch_normalization", "dense": "dense"}[what]
    suffix = f"_{number - 1}" if number > 1 else ""
    return f"{layer}{suffix}/{FLAX.get((what, which), which)}:0"


NAMINGS: dict[str, Callable[[str, int, str], str]] = {
    "its own": lambda w, n, k: f"{w}{n}.{k}",
    "compiled and parallel": lambda w, n, k: f"_orig_mod.module.{w}{n}.{k}",
    "inside a model": lambda w, n, k: f"model._orig_mod.{w}{n}.{k}",
    "a backbone": lambda w, n, k: f"backbone.{w}{n}.{k}",
    "two wrappers": lambda w, n, k: f"{'head' if w == 'dense' else 'backbone.module'}.{w}{n}.{k}",
    "each layer wrapped": lambda w, n, k: f"{w}{n}.module.{k}",
    "the last layer fc": lambda w, n, k: f"fc.{k}" if w == "dense" else f"{w}{n}.{k}",
    "features and fc": lambda w, n, k: f"fc.{k}" if w == "dense" else f"features.{place(w, n)}.{k}",
    "features and classifier": lambda w, n, k: f"classifier.1.{k}" if w == "dense" else f"features.{place(w, n)}.{k}",
    "one Sequential": lambda w, n, k: f"20.{k}" if w == "dense" else f"{place(w, n)}.{k}",
    "layers": lambda w, n, k: f"fc.{k}" if w == "dense" else f"layers.{n - 1}.{w}.{k}",
    "blocks": lambda w, n, k: f"head.{k}" if w == "dense" else f"encoder.block{n}.{'bn' if w == 'norm' else w}.{k}",
    "a stem": lambda w, n, k: (
        f"head.{k}" if w == "dense" else f"{'stem' if n == 1 else f'layers.{n - 2}'}.{w}.{k}"
    ),
    "lists of layers": lambda w, n, k: f"out.{k}" if w == "dense" else f"{w}s.{n - 1}.{k}",
    "flax words": lambda w, n, k: f"params.{w.title()}_{n - 1}.{FLAX.get((w, k), k)}",
    "Keras": keras,
    "camel case": lambda w, n, k: f"{w}{COUNTS[n - 1]}{k.title()}",
    "snake case": lambda w, n, k: f"net_{w}_{n}_{k}",
    "short": lambda w, n, k: f"{'fc' if w == 'dense' else w}{n}.{k[0]}",
    "counted from nought": lambda w, n, k: f"{w}{n - 1}.{k}",
}  # fmt: skip


def files(names: Mapping[str, str]) -> dict[str, Shapes]:
    """The same arrays in the orders in which a file may have them."""
    given = {own: OWN[leaf] for leaf, own in names.items()}
    mixed = list(np.random.default_rng(0).permutation(sorted(given)))
    return {
        "as it is run": given,
        "by alphabet": dict(sorted(given.items())),
        "mixed": {str(name): given[str(name)] for name in mixed},
        "backwards": dict(reversed(given.items())),
    }


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_network_is_known_under_every_naming_and_in_every_order(naming: str) -> None:
    names = renamed(NAMINGS[naming])
    assert len(set(names.values())) == len(SPEC.leaves)
    for shapes in files(names).values():
        found = match(SPEC, shapes)
        assert dict(zip(OWN, found.names, strict=True)) == names
        assert not found.left_out


def test_names_that_only_have_something_in_front_need_no_word_and_others_are_told() -> None:
    assert match(SPEC, files(renamed(NAMINGS["inside a model"]))["mixed"]).notes == ()
    (note,) = match(SPEC, files(renamed(NAMINGS["features and fc"]))["by alphabet"]).notes
    assert "other names" in note and "features.0.weight is conv1.weight" in note and "all 26" in note


def difference(shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, str] | None = None) -> str:
    with pytest.raises(MismatchError) as caught:
        match(SPEC, shapes, types)
    return str(caught.value)


OTHERS: dict[str, tuple[Callable[[Shapes], Shapes], str]] = {
    "a wider layer": (
        lambda s: s | {"features.6.weight": (32, 16, 3, 3)},
        "its third layer, features.6.weight, is [32, 16, 3, 3]; the detector's, conv3.weight, is [16, 8, 3, 3]",
    ),
    "no bias": (
        lambda s: {name: shape for name, shape in s.items() if name != "features.3.bias"},
        "its second layer, features.3.weight, has no bias; the detector's, conv2.bias, is [8]",
    ),
    "no layer": (
        lambda s: {name: shape for name, shape in s.items() if not name.startswith("fc.")},
        "it has no array for dense1.weight [10, 32] of the detector",
    ),
    "one layer more": (lambda s: s | {"features.20.weight": (32, 32, 1, 1)}, "also holds features.20.weight"),
    "one norm more": (lambda s: s | {"norm.weight": (32,), "norm.bias": (32,)}, "also holds norm.weight [32]"),
    "statistics of batches": (lambda s: s | {"features.1.running_mean": (8,)}, "features.1.running_mean [8]"),
    "the slope of an activation": (lambda s: s | {"features.2.weight": (1,)}, "also holds features.2.weight [1]"),
    "the layout of flax": (
        lambda s: s | {"features.0.weight": (3, 3, 3, 8)},
        "the axes stand in another order, as flax and Keras store them",
    ),
}


@pytest.mark.parametrize("naming", ["features and fc", "its own"])
@pytest.mark.parametrize("other", OTHERS)
def test_another_network_is_told_apart_by_its_first_difference(other: str, naming: str) -> None:
    names = renamed(NAMINGS["features and fc"])
    change, sentence = OTHERS[other]
    changed = change({own: OWN[leaf] for leaf, own in names.items()})
    if naming == "its own":
        back = {own: leaf for leaf, own in names.items()}
        changed = {back.get(name, name): shape for name, shape in changed.items()}
        for own, leaf in (("features.6.weight", "conv3.weight"), ("features.3.weight", "conv2.weight")):
            sentence = sentence.replace(f"layer, {own}", f"layer, {leaf}")
    assert sentence in difference(changed)
    assert len(difference(changed)) < 240


def test_an_extra_layer_of_noughts_is_never_left_out_whatever_its_name() -> None:
    for name in ("conv7.weight", "mean", "extra", "conv1.weight_orig", "aux.0.kernel", "buffer", "std.weight"):
        assert f"also holds {name}" in difference(OWN | {name: (8, 8, 3, 3)})
    for name in ("mask", "norm1.mean", "act1.alpha", "conv1.scale"):
        assert "also holds" in difference(OWN | {name: (8,)})
    assert "act1.alpha" in difference(OWN | {"act1.alpha": (1,)})
    assert "conv7.weight [8, 8, 3, 3] of type I8" in difference(
        OWN | {"conv7.weight": (8, 8, 3, 3)}, dict.fromkeys(OWN, "F32") | {"conv7.weight": "I8"}
    )


@pytest.mark.parametrize("naming", ["its own", "inside a model", "features and fc", "Keras"])
def test_arrays_that_change_nothing_are_left_out_and_told(naming: str) -> None:
    given = files(renamed(NAMINGS[naming]))["by alphabet"]
    front = "model." if naming == "inside a model" else ""
    extra = {
        f"{front}mean": ((3, 1, 1), "F32"),
        f"{front}std": ((3,), "F32"),
        f"{front}normalize.mean": ((1, 3, 1, 1), "F32"),
        f"{front}norm1.num_batches_tracked": ((), "I64"),
        "step": ((), "F32"),
        "n_averaged": ((), "I64"),
        "nothing": ((0,), "F32"),
        "logit_scale": ((), "F32"),
    }
    shapes = given | {name: shape for name, (shape, _) in extra.items()}
    types = dict.fromkeys(given, "F32") | {name: kind for name, (_, kind) in extra.items()}
    found = match(SPEC, shapes, types)
    assert found.names == match(SPEC, given).names
    assert set(found.left_out) == set(extra)
    assert "step" in " ".join(found.notes) and "mean and standard deviation of the inputs" in " ".join(found.notes)


def test_where_two_layers_could_be_exchanged_nothing_is_guessed() -> None:
    words = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove")
    named = renamed(lambda w, n, k: f"{words[n - 1]}_{w}.{k}" if w != "norm" else f"{words[-n]}.{k}")
    for shapes in files(named).values():
        assert "two assignments are possible: " in difference(shapes)
    assert "norm" in difference(dict(files(named)["mixed"])) or "first" in difference(dict(files(named)["mixed"]))


def test_numbers_that_contradict_the_shapes_decide_nothing() -> None:
    backwards = renamed(lambda w, n, k: f"{w}{7 - n}.{k}" if w != "dense" else f"fc.{k}")
    assert "the numbers in its names contradict its shapes" in difference(files(backwards)["mixed"])


def test_a_norm_whose_words_are_unknown_could_be_read_two_ways() -> None:
    unknown = renamed(lambda w, n, k: f"{w}{n}.{'p' if k == 'weight' else 'q'}" if w == "norm" else f"{w}{n}.{k}")
    assert "norm1" in difference(files(unknown)["mixed"])


def test_scale_and_shift_with_exchanged_names_are_read_by_their_names() -> None:
    """As whatever loads the file would: it is another network, and is judged as such."""
    exchanged = renamed(
        lambda w, n, k: f"{w}.{n}.{'beta' if k == 'weight' else 'gamma'}" if w == "norm" else f"{w}.{n}.{k}"
    )
    found = match(SPEC, files(exchanged)["mixed"])
    own = dict(zip(OWN, found.names, strict=True))
    assert own["norm1.weight"] == exchanged["norm1.bias"] == "norm.1.gamma"


def test_two_whole_networks_in_one_state_dict_are_asked_about() -> None:
    both = {f"{where}.{name}": shape for where in ("model", "ema") for name, shape in OWN.items()}
    assert "2 such networks, under ema and model" in difference(both)


def test_layers_of_one_shape_are_told_by_their_numbers_not_by_half_of_their_names() -> None:
    """fc0, fc1, fc2, fc3 are fc1, fc2, fc3, fc4: the three names that agree would be wrong."""
    shapes = {"fc1.weight": (6, 3), "fc2.weight": (6, 6), "fc3.weight": (6, 6), "fc4.weight": (2, 6)}
    spec = spec_of_state_dict(shapes, topology="chain")
    given = {f"fc{i}.weight": shape for i, shape in enumerate(shapes.values())}
    assert match(spec, given).names == ("fc0.weight", "fc1.weight", "fc2.weight", "fc3.weight")
    strange = {"a.weight": (6, 3), "q.weight": (6, 6), "b.weight": (6, 6), "z.weight": (2, 6)}
    with pytest.raises(MismatchError, match=r"b\.weight and q\.weight have the same shape|q\.weight and b\.weight"):
        match(spec, strange)


def test_numbers_alone_under_different_wrappers_are_no_names_that_agree() -> None:
    shapes = {"0.weight": (4, 4), "2.weight": (4, 4), "4.weight": (2, 4)}
    spec = spec_of_state_dict(shapes, topology="chain")
    with pytest.raises(MismatchError, match="two assignments are possible"):
        match(spec, {"b.0.weight": (4, 4), "a.2.weight": (4, 4), "c.4.weight": (2, 4)})


def test_square_kernels_of_flax_may_be_transposed() -> None:
    spec = spec_of_state_dict({"a1.weight": (4, 4), "a2.weight": (4, 4)}, topology="chain")
    with pytest.raises(MismatchError, match="transposed"):
        match(spec, {"Dense_0.kernel": (4, 4), "Dense_1.kernel": (4, 4)})
    assert match(spec, {"Dense_0.weight": (4, 4), "Dense_1.weight": (4, 4)}).names[0] == "Dense_0.weight"


def test_the_networks_of_a_transformer_are_known_behind_prefixes() -> None:
    shapes = {"wte.weight": (9, 4), "h.0.attn.c_attn.weight": (4, 12), "h.0.mlp.c_fc.weight": (4, 16)}
    spec = spec_of_state_dict(shapes)
    found = match(spec, {f"transformer.{name}": shape for name, shape in reversed(shapes.items())})
    assert found == Match(tuple(f"transformer.{name}" for name in shapes), {})


@pytest.mark.parametrize(
    ("name", "layer", "word"),
    [
        ("features.3.weight", ("features", 3), "weight"),
        ("Conv1Kernel", ("conv", 1), "weight"),
        ("bn1.runningMean", ("bn", 1), "mean"),
        ("layer_two/w:0", ("layer", 2), "weight"),
        ("W3", (3,), "weight"),
        ("['params']['Dense_0']['bias']", ("params", "dense", 0), "bias"),
        ("x7f3", ("x", 7, "f", 3), None),
        ("", (), None),
    ],
)
def test_names_are_taken_apart(name: str, layer: tuple[str | int, ...], word: str | None) -> None:
    found = taken_apart(name)
    assert (found.layer, found.word) == (layer, word)
    assert parts_of("a.b/c") == ("a", "b", "c")


def test_numbers_say_which_layer_is_before_and_words_do_not() -> None:
    assert runs_before(("block", 2), ("block", 10)) is True
    assert runs_before(("conv", 2, "d", 1), ("conv", 2, "d")) is False
    assert runs_before(("stem",), ("block", 1)) is None
    assert runs_before(("block", 1, "conv"), ("block", 1, "norm")) is None


def test_names_however_long_take_no_time() -> None:
    """A name of many parts would be compared with each of its endings."""
    long = {name: shape for name, shape in OWN.items() if name != "conv1.weight"} | {"a." * 50_000 + "w": (8, 3, 3, 3)}
    start = time.perf_counter()
    assert len(difference(long)) < 400
    assert "also holds" in difference(OWN | {"9" * 100_000 + ".weight": (2, 2)})
    assert time.perf_counter() - start < 10
