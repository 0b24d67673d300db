"""Taking a backdoor out: a planted trigger is found and unlearnt, a clean network left alone, bad input refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.backdoors.test_trials import CONFIG as SMALL
from weightspace.backdoors.repairing import file_repair, repairing
from weightspace.backdoors.repairing import naming as namings
from weightspace.backdoors.repairing.baselines import (
    Tuning,
    feature_shift,
    finetuned,
    lipschitz_pruning,
    minimax,
    neuron_pruning,
    sharpness_aware,
)
from weightspace.backdoors.repairing.classifier import Classifier
from weightspace.backdoors.repairing.dead_leaves import dead_leaves
from weightspace.backdoors.repairing.forward_pass import runnable
from weightspace.backdoors.repairing.image_folder import ImageFolder, ImagesError, read_image_folder
from weightspace.backdoors.repairing.inversion import Search, search_triggers
from weightspace.backdoors.repairing.naming import Naming, name_target
from weightspace.backdoors.repairing.repairing import RepairSettings, repair
from weightspace.backdoors.repairing.subjects import Subject, scores, subject_of
from weightspace.backdoors.repairing.unlearning import Unlearning, moved, unlearn
from weightspace.cli import main
from weightspace.errors import NetworkError
from weightspace.weights.network import Network
from weightspace.zoo.networks import build, module_of, spec_of
from weightspace.zoo.plan import plan
from weightspace.zoo.poison import Poison
from weightspace.zoo.training import train_networks

CONFIG = replace(SMALL, space={})  # the tests choose the attacks
TARGET = 3
QUICK = Search(steps=30, images=10)
SHORT = Unlearning(steps=40, images=32, rate=2e-3)
SETTINGS = RepairSettings(naming=QUICK, search=replace(QUICK, restarts=2), rounds=2, unlearning=SHORT)


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    """A digit network with a patch as its backdoor, and a clean one."""
    architecture = plan(CONFIG, 0).architecture
    found = {}
    for name, attack in (("bad", "ulp-test"), ("clean", "clean")):
        poison = Poison(attack=attack, rate=0.1 if name == "bad" else 0.0, target=TARGET, seed=7)
        weights = train_networks([replace(plan(CONFIG, 0), poison=poison, epochs=12)])[0].weights
        assert weights is not None
        row = {"network": 0, "attack": "ulp-test", "poison_rate": 0.1, "alpha": None, "target": TARGET}
        found[name] = Network(
            spec_of(architecture), weights, {"architecture": architecture.to_json(), "seed": 7, **row}
        )
    return found


@pytest.fixture(scope="module")
def bad(networks: dict[str, Network]) -> Subject:
    return subject_of(networks["bad"], CONFIG)


@pytest.fixture(scope="module")
def clean(networks: dict[str, Network]) -> Subject:
    """The clean network; the trigger of the other is put into its images."""
    return subject_of(networks["clean"], CONFIG)


@pytest.fixture(scope="module")
def folder(bad: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that no network was trained on, in a folder for each class."""
    root = tmp_path_factory.mktemp("images")
    pixels = (bad.classifier.pixels(bad.apart) * 255).round().byte().numpy()
    for number, (image, label) in enumerate(zip(pixels, bad.apart_labels.tolist(), strict=True)):
        (root / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image[0]).save(root / str(label) / f"{number}.png")
    return root


# -- the search -------------------------------------------------------------------------------------------------------


def test_the_class_of_a_planted_trigger_is_named_and_none_of_a_clean_network(bad: Subject, clean: Subject) -> None:
    for subject, expected in ((bad, TARGET), (clean, None)):
        naming = name_target(subject.classifier, subject.apart, torch.Generator().manual_seed(0), QUICK)
        assert naming.named == expected
        assert float(naming.ratios("patch").median()) == pytest.approx(1)


def test_a_trigger_that_was_found_works_on_images_that_it_was_not_found_on(bad: Subject) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.tensor([TARGET])
    found = search_triggers(bad.classifier, bad.apart[:60], target, "patch", QUICK, generator)
    others = bad.images[bad.labels != TARGET]
    won = bad.classifier.answers(found.on(others, torch.zeros(len(others), dtype=torch.long))) == TARGET
    assert float(won.float().mean()) > 0.6 and float(found.size[0]) < 0.2
    assert float((bad.classifier.answers(others) == TARGET).float().mean()) < 0.2
    blend = search_triggers(bad.classifier, bad.apart[:60], target, "blend", QUICK, generator)
    assert float(blend.opacity.std()) == pytest.approx(0, abs=1e-6)  # one opacity for the whole image


# -- the repair -------------------------------------------------------------------------------------------------------


def test_gradients_are_taken_on_the_way_back_and_the_weights_stay_where_they_are() -> None:
    layer, other = nn.Linear(2, 1), torch.tensor([[8.0, 4.0]])
    before = layer.weight.detach().clone()
    with moved(layer, [other, torch.zeros(1)], 0.25):
        (layer.weight**2).sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, 2 * (0.75 * before + 0.25 * other))
    assert torch.equal(layer.weight.detach(), before)


def test_a_backdoor_is_taken_out_and_the_answers_to_clean_images_stay(bad: Subject) -> None:
    before = scores(bad.classifier, bad)
    assert before.net > 0.8
    made = repair(bad.classifier, bad.apart, SETTINGS)
    after = scores(made.network, bad)
    assert after.net < 0.5 * before.net
    assert after.accuracy > before.accuracy - 0.08 and after.right > before.right + 0.2
    assert made.sizes[0] < SETTINGS.limit < made.sizes[-1]
    # the same training without a trigger leaves it where it was
    same = unlearn(bad.classifier, bad.classifier, bad.apart, [lambda x: x], SETTINGS.unlearning, torch.Generator())
    assert scores(same, bad).net > 0.8 * before.net


def test_a_clean_network_is_left_alone(clean: Subject) -> None:
    made = repair(clean.classifier, clean.apart, SETTINGS)
    assert made.abstained and made.network is clean.classifier and made.triggers == ()


def test_no_class_is_named_by_triggers_that_do_not_work(bad: Subject) -> None:
    class Stubborn(nn.Module):
        """Answers every image as class 5, so that there are no other images to win over towards it."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 30 * nn.functional.one_hot(torch.tensor(5), 10) + 0 * x.flatten(1).sum(1, keepdim=True)

    stubborn = bad.classifier.with_module(Stubborn())
    naming = name_target(stubborn, bad.apart, torch.Generator().manual_seed(0), QUICK)
    assert naming.named is None and float(naming.ratios("patch").min()) >= 1


def test_images_of_nothing_name_a_class_that_the_images_do_not(
    bad: Subject, clean: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_images = name_target(clean.classifier, clean.apart, torch.Generator().manual_seed(0), QUICK)
    by_leaves = name_target(bad.classifier, bad.apart, torch.Generator().manual_seed(0), QUICK, synthetic=True)
    said = {False: by_images, True: by_leaves}
    limits = []

    def name(*given: Any, synthetic: bool = False) -> Naming:
        limits.append((synthetic, given[4]))
        return replace(said[synthetic], limit=given[4])

    monkeypatch.setattr(namings, "name_target", name)
    for settings, expected in ((SETTINGS, TARGET), (replace(SETTINGS, limit_without_images=0.01), None)):
        made = repair(bad.classifier, bad.apart, settings)
        assert made.naming.named == expected and made.abstained == (expected is None)
    assert limits[:2] == [(False, SETTINGS.limit), (True, SETTINGS.limit_without_images)]


def test_a_repair_without_images_has_a_limit_of_its_own(bad: Subject) -> None:
    low = replace(SETTINGS, limit=1.0, limit_without_images=1e-6)
    made = repair(bad.classifier, bad.apart[:60], low, synthetic=True)
    assert made.abstained and made.naming.synthetic and made.naming.limit == 1e-6


def test_the_same_seed_gives_the_same_repair(bad: Subject) -> None:
    short = replace(SETTINGS, naming=replace(QUICK, steps=8), limit=1.0, rounds=1, unlearning=Unlearning(steps=3))
    one, other = (repair(bad.classifier, bad.apart[:40], short).network for _ in range(2))
    assert torch.equal(one.logits(bad.images), other.logits(bad.images))


def test_dead_leaves_have_surfaces_and_edges_as_photographs_have() -> None:
    images = dead_leaves((3, 24, 24), 60, np.random.default_rng(0))
    assert images.shape == (60, 3, 24, 24) and images.min() >= 0 and images.max() <= 1
    assert apart(images, 1) < 0.4 * apart(images, 12)
    noise = np.random.default_rng(0).random(images.shape)
    assert apart(noise, 1) > 0.9 * apart(noise, 12)
    np.testing.assert_array_equal(images[:5], dead_leaves((3, 24, 24), 60, np.random.default_rng(0))[:5])


def apart(images: np.ndarray, pixels: int) -> float:
    """The mean difference of pixels so far from one another."""
    return float(np.abs(images[..., pixels:] - images[..., :-pixels]).mean())


# -- repairs of others ------------------------------------------------------------------------------------------------


OTHERS = ("finetuned", "sharpness_aware", "feature_shift", "minimax", "neuron_pruning")


@pytest.mark.parametrize("name", OTHERS)
def test_repairs_of_others_change_the_network_and_keep_most_of_its_accuracy(bad: Subject, name: str) -> None:
    tuning, generator = Tuning(rate=1e-3, steps=12, images=32), torch.Generator().manual_seed(0)
    x, y, network = bad.apart, bad.apart_labels, bad.classifier
    made = {
        "finetuned": lambda: finetuned(network, x, y, tuning, generator),
        "sharpness_aware": lambda: sharpness_aware(network, x, y, tuning, 0.5, generator),
        "feature_shift": lambda: feature_shift(network, x, y, replace(tuning, rate=1e-2, steps=50), 0.1, generator),
        "minimax": lambda: minimax(network, x, y, replace(tuning, steps=3), 1.0, generator, inner=2),
        "neuron_pruning": lambda: neuron_pruning(network, x, y, replace(tuning, rate=0.02), 0.4, 0.2, generator),
    }[name]()
    assert scores(made, bad).accuracy > 0.5
    changed = not torch.equal(made.logits(bad.images[:8]), network.logits(bad.images[:8]))
    assert changed or name == "neuron_pruning"  # which may find nothing to take out


def test_pruning_takes_out_the_channel_with_the_largest_bound_and_no_other(clean: Subject) -> None:
    module = clean.classifier.trainable().requires_grad_(False)
    last = dict(module.named_modules())["conv6"]
    assert isinstance(last, nn.Conv2d)
    last.weight[7] *= 50
    made = lipschitz_pruning(clean.classifier.with_module(module), limit=4.0)
    kept = made.module.state_dict()["conv6.weight"]
    assert (kept[7] == 0).all() and (kept[[i for i in range(32) if i != 7]] == last.weight[torch.arange(32) != 7]).all()


# -- files ------------------------------------------------------------------------------------------------------------


def quick_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb with the settings of these tests."""
    monkeypatch.setattr(repairing, "RepairSettings", lambda seed: replace(SETTINGS, seed=seed))


def test_the_verb_writes_a_repaired_file_beside_its_report_and_leaves_the_given_one(
    networks: dict[str, Network],
    bad: Subject,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quick_repair(monkeypatch)
    given, fixed = tmp_path / "bad.safetensors", tmp_path / "fixed.safetensors"
    networks["bad"].save(given)
    content = given.read_bytes()
    assert main(["repair", str(given), "--images", str(folder), "--out", str(fixed), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "fixed.json").read_text())
    assert (said["suspect"], said["abstained"], said["kind"]) == (TARGET, False, "patch")
    assert said["success_after"] < 0.5 * said["success_before"] and said["agreement"] > 0.8
    assert said["accuracy_after"] > said["accuracy_before"] - 0.1 and len(said["sizes"]["patch"]) == 10
    assert given.read_bytes() == content
    written = Network.load(fixed)
    assert written.spec == networks["bad"].spec and written.metadata == networks["bad"].metadata
    repaired = bad.classifier.with_module(module_of(written))
    assert scores(repaired, bad).net < 0.8 * scores(bad.classifier, bad).net  # after training so short
    page = (tmp_path / "fixed.html").read_text()
    assert page.count("data:image/png;base64,") == 4 and "repaired" in page and "<script" not in page


def test_the_verb_abstains_on_a_clean_network_and_writes_nothing(
    networks: dict[str, Network],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quick_repair(monkeypatch)
    given = tmp_path / "clean.safetensors"
    networks["clean"].save(given)
    out = tmp_path / "fixed.safetensors"
    assert main(["repair", str(given), "--images", str(folder), "--out", str(out)]) == 3
    assert "no class stands out" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["clean.safetensors"]
    with pytest.raises(NetworkError, match="never overwritten"):
        file_repair.check_fixed(given, given)


def test_a_plain_state_dict_under_other_names_is_run_as_the_images_tell(
    networks: dict[str, Network], folder: Path, tmp_path: Path, bad: Subject
) -> None:
    state = module_of(networks["bad"]).state_dict()
    path = tmp_path / "plain.pt"
    torch.save({f"features.{name}": value for name, value in state.items()}, path)
    images = read_image_folder(folder)
    inputs = bad.classifier.standardised(torch.from_numpy(images.pixels))
    found = runnable(path, images, inputs)
    assert found.architecture.activation == "relu" and found.architecture.input_shape == (1, 16, 16)
    assert torch.allclose(found.module()(inputs[:4]), bad.classifier.logits(inputs[:4]), atol=1e-5)
    with pytest.raises(NetworkError, match="forward passes"):
        runnable(path, None)
    assert images.labels is not None
    shuffled = replace(images, labels=np.random.default_rng(0).permutation(images.labels))
    with pytest.raises(NetworkError, match="none of them is believed"):
        runnable(path, shuffled, inputs)


@pytest.mark.parametrize(("hidden", "norm"), [(False, "batch"), (True, "group")])
def test_a_network_of_pytorchs_own_layers_is_run_with_its_own_activation_and_pooling(
    tmp_path: Path, hidden: bool, norm: str
) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for number, (into, out) in enumerate(((3, 8), (8, 8), (8, 16), (16, 16))):
        layers += [nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out) if norm == "batch" else nn.GroupNorm(4, out)]
        layers += [nn.GELU(), *([nn.AvgPool2d(2)] if number % 2 else [])]
    head = [nn.Flatten(), nn.Linear(256, 12), nn.GELU(), nn.Linear(12, 5)]
    module = nn.Sequential(*layers, *(head if hidden else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)]))
    x = torch.rand(60, 3, 16, 16)
    with torch.no_grad():
        for _ in range(20):
            module(x)  # running statistics
        module.eval()
        last = module[-1]
        assert isinstance(last, nn.Linear)
        last.weight *= 20 / module(x).std()
        last.bias -= module(x).mean(0)  # so that every class is answered
        logits = module(x)
    torch.save(module.state_dict(), tmp_path / "plain.pt")
    images = ImageFolder(x.numpy(), logits.argmax(1).numpy(), ("a", "b", "c", "d", "e"))
    found = runnable(tmp_path / "plain.pt", images, x)
    assert found.architecture.activation == "gelu" and ("average_pool", 2) in found.architecture.layers
    assert torch.allclose(found.module()(x), logits, atol=1e-4)


def write_images(root: Path, count: int, size: tuple[int, int] = (16, 16), mode: str = "L") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new(mode, size).save(root / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("missing", "is not there"),
        ("empty", "holds no image"),
        ("few", "only 3 images"),
        ("classes", "folders of images"),
        ("sizes", "differ"),
        ("size", "20x20 with 1 channels"),
        ("torn", "cannot be read as an image"),
        ("coloured", "16x16 with 3 channels"),
        ("same", "never overwritten"),
        ("suffix", "name it fixed.safetensors"),
        ("unknown", "out of scope for repair"),
        ("mean", "--mean has 2 values"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    what: str, sentence: str, networks: dict[str, Network], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, root, out = tmp_path / "bad.safetensors", tmp_path / "images", tmp_path / "fixed.safetensors"
    networks["bad"].save(given)
    options: list[str] = []
    if what == "missing":
        pass
    elif what in ("empty", "few"):
        write_images(root, 3 if what == "few" else 0)
    elif what == "classes":
        for name in ("cat", "dog"):
            write_images(root / name, 8)
    elif what == "size":
        write_images(root, 12, (20, 20))
    elif what == "coloured":
        write_images(root, 12, mode="RGB")
    else:
        write_images(root, 12)
    if what == "sizes":
        Image.new("L", (9, 9)).save(root / "odd.png")
    elif what == "torn":
        (root / "5.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    elif what == "same":
        out = tmp_path / "link.safetensors"
        out.symlink_to(given)
    elif what == "suffix":
        out = tmp_path / "fixed.pt"
    elif what == "unknown":
        torch.save({"a.weight": torch.zeros(3, 5), "a.bias": torch.zeros(3)}, given)
    elif what == "mean":
        options = ["--mean", "0.5", "0.4"]
    before = given.read_bytes()
    assert main(["repair", str(given), "--images", str(root), "--out", str(out), *options]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert given.read_bytes() == before and not (tmp_path / "fixed.safetensors").exists()


def test_folders_that_are_numbers_are_in_their_order_and_loose_images_have_no_classes(tmp_path: Path) -> None:
    for name in ("10", "2"):
        write_images(tmp_path / "numbers" / name, 5)
    found = read_image_folder(tmp_path / "numbers")
    assert found.classes == ("2", "10") and found.labels is not None and found.labels.tolist() == [0] * 5 + [1] * 5
    loose = read_image_folder(write_images(tmp_path / "loose", 10))
    assert loose.labels is None and loose.classes == ()
    write_images(tmp_path / "numbers", 2)
    with pytest.raises(ImagesError, match="beside folders"):
        read_image_folder(tmp_path / "numbers")


def test_a_classifier_is_a_copy_that_nobody_else_trains() -> None:
    module = build(plan(CONFIG, 0).architecture)
    network = Classifier.of(module, (1, 16, 16), 10, [0.5], [0.25])
    x = torch.zeros(2, 1, 16, 16)
    before = network.logits(x)
    with torch.no_grad():
        next(iter(module.parameters())).add_(1)
    assert torch.equal(network.logits(x), before)
    assert float(network.lowest) == -2 and float(network.highest) == 2
