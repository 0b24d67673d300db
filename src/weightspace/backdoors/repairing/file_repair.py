"""The repair of a file: read, repaired by the images of a folder or by synthetic ones, and written as a new file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from weightspace.backdoors.repairing.classifier import Classifier
from weightspace.backdoors.repairing.dead_leaves import dead_leaves
from weightspace.backdoors.repairing.forward_pass import Runnable, runnable
from weightspace.backdoors.repairing.image_folder import ImageFolder, ImagesError, read_image_folder
from weightspace.backdoors.repairing.inversion import KINDS, Triggers, successes
from weightspace.backdoors.repairing.repairing import Repair, RepairSettings, repair
from weightspace.errors import NetworkError
from weightspace.files.atomic import file_hash, write_atomically
from weightspace.files.checkpoints import read
from weightspace.files.tensors import METADATA_KEY

SYNTHETIC = 2_000
"""Dead-leaves images where none are given."""
HELD = 5
"""One image in so many is kept apart from the repair, to measure on."""
SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class FileRepair:
    """What came of a file, for people and programs.

    Attributes:
        fixed: the file that was written; None if it abstained.
        forward_pass: how it is known how the network is run.
        images: how many it was repaired by; measured: how many others it was measured on.
        synthetic: whether these are images of nothing.
        suspect: the class towards which the smallest trigger was found; kind: patch or blend.
        named_by: "images" or "synthetic images": those on which that class stands out more.
        ratio: its size as a share of the median class's, on these; limit: below which it is repaired.
        sizes: of each kind, the mean opacity from 0 to 1 of the smallest trigger towards each class, on these.
        rounds: the same share at the start of each round and at the end, on the images it was repaired by.
        accuracy_before, accuracy_after: on the images that were kept apart, None where their classes are not known.
        agreement: share of these that are answered as before.
        success_before, success_after: share of these, of other answers, that the inverted trigger wins.
        seconds: of one core.
    """

    file: str
    fixed: str | None
    sha256: str | None
    architecture: str
    forward_pass: str
    images: int
    measured: int
    synthetic: bool
    classes: tuple[str, ...]
    suspect: int
    kind: str
    named_by: str
    ratio: float
    limit: float
    sizes: Mapping[str, tuple[float, ...]]
    rounds: tuple[float, ...]
    accuracy_before: float | None
    accuracy_after: float | None
    agreement: float
    success_before: float
    success_after: float
    seconds: float

    @property
    def abstained(self) -> bool:
        """Whether no class stood out, so that nothing was written."""
        return self.fixed is None

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"abstained": self.abstained, **asdict(self)}


@dataclass(frozen=True, eq=False)
class Outcome:
    """A file's repair with what a picture is made of.

    Attributes:
        trigger: the smallest that was found towards the suspect.
        example: (c, h, w) one of the images, standardised.
    """

    found: FileRepair
    classifier: Classifier
    trigger: Triggers
    example: Tensor


def check_fixed(file: Path, fixed: Path) -> None:
    """That a repaired network can be written where it is to be.

    Raises:
        NetworkError: if it is the file that is given, or its name promises another kind of file.
    """
    if fixed.suffix != SUFFIX:
        raise NetworkError(f"--out {fixed} would hold a safetensors file: name it {fixed.stem}{SUFFIX}")
    if fixed.exists() and file.exists() and file.samefile(fixed):
        raise NetworkError(f"--out {fixed} is the file that is given, which is never overwritten: name another file")


def repair_file(
    file: Path,
    folder: Path | None,
    fixed: Path,
    settings: RepairSettings,
    mean: tuple[float, ...] = (),
    deviation: tuple[float, ...] = (),
) -> Outcome:
    """Repair the network of a file and write it to `fixed`; nothing is written if no class stands out.

    Args:
        folder: of clean images, in folders by class or not; None for synthetic ones.
        mean, deviation: by which pixels from 0 to 1 are standardised, one value a channel; those of the images unless
            given.
    Raises:
        UnreadableError: if the file cannot be read.
        NetworkError: if it is out of scope, or `fixed` cannot be written.
        ImagesError: if the images cannot be used, or do not fit the network.
    """
    check_fixed(file, fixed)
    start = time.process_time()
    images = None if folder is None else read_image_folder(folder)
    statistics = None if images is None else _statistics(images.pixels, mean, deviation)
    inputs = None if images is None or statistics is None else _standardised(images.pixels, statistics)
    network = runnable(file, images, inputs)
    channels, height, width = network.architecture.input_shape
    if images is not None and folder is not None:
        images = _fitting(images, folder, (channels, height, width), network)
        pixels, labels = images.pixels, images.labels
    else:
        pixels, labels = dead_leaves((channels, height, width), SYNTHETIC, np.random.default_rng(settings.seed)), None
    statistics = _statistics(pixels, mean, deviation)
    classifier = _classifier(network, statistics)
    if labels is not None and images is not None and len(images.classes) != classifier.classes:
        raise ImagesError(
            f"{folder} has {len(images.classes)} folders of images ({', '.join(images.classes[:4])}, ...), and the "
            f"network tells {classifier.classes} classes apart: give one folder a class, in the network's order"
        )
    x = classifier.standardised(torch.from_numpy(pixels))
    order = torch.from_numpy(np.random.default_rng(settings.seed).permutation(len(x)))
    held, used = order[: len(x) // HELD], order[len(x) // HELD :]
    made = repair(classifier, x[used], settings, synthetic=folder is None)
    sha256 = None if made.abstained else _write(network, made.network, fixed, file)
    apart = None if labels is None else torch.from_numpy(labels)[held]
    found = _found(file, None if made.abstained else fixed, network, classifier, made, x[held], apart)
    names = images.classes if images is not None and images.classes else ()
    classes = names or tuple(str(n) for n in range(classifier.classes))
    facts = {"sha256": sha256, "images": len(used), "synthetic": folder is None, "classes": classes}
    seconds = time.process_time() - start
    report = FileRepair(**found, **facts, limit=made.naming.limit, seconds=round(seconds, 1))
    return Outcome(report, classifier, _smallest(made), x[held][0])


def _found(
    file: Path,
    fixed: Path | None,
    network: Runnable,
    before: Classifier,
    made: Repair,
    images: Tensor,
    labels: Tensor | None,
) -> dict[str, Any]:
    """What was found and measured, on images that were kept apart."""
    naming, trigger = made.naming, _smallest(made)
    one, other = before.answers(images), made.network.answers(images)
    return {
        "file": str(file),
        "fixed": None if fixed is None else str(fixed),
        "architecture": _described(network),
        "forward_pass": network.known_by,
        "measured": len(images),
        "suspect": naming.suspect,
        "kind": naming.kind,
        "named_by": "synthetic images" if naming.synthetic else "images",
        "ratio": round(naming.ratio, 4),
        "sizes": {kind: tuple(round(size, 5) for size in naming.sizes(kind).tolist()) for kind in KINDS},
        "rounds": tuple(round(ratio, 4) for ratio in made.sizes),
        "accuracy_before": None if labels is None else float((one == labels).float().mean()),
        "accuracy_after": None if labels is None else float((other == labels).float().mean()),
        "agreement": float((one == other).float().mean()),
        "success_before": float(successes(before, images, trigger)[0]),
        "success_after": float(successes(made.network, images, trigger)[0]),
    }


def _smallest(made: Repair) -> Triggers:
    """The smallest trigger towards the suspect that was found before anything was unlearnt."""
    naming = made.naming
    first = naming.found[naming.kind].select(torch.tensor([naming.suspect]))
    found = [first, *(one for one in made.triggers if one.kind == naming.kind)]
    best = min(found, key=lambda one: float(one.size.min()))
    return best.select(best.size.argmin()[None])


def _described(network: Runnable) -> str:
    architecture = network.architecture
    kinds = [layer[0] for layer in architecture.layers]
    size = "x".join(map(str, architecture.input_shape))
    return (
        f"{kinds.count('convolution')} convolutions, {architecture.activation}, {network.spec.size:,} weights, {size}"
    )


# -- images -----------------------------------------------------------------------------------------------------------


def _statistics(
    pixels: np.ndarray, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(channels,) mean and deviation: those that are given, else those of the images."""
    channels = pixels.shape[1]
    for name, values in (("mean", mean), ("deviation", deviation)):
        if values and len(values) not in (1, channels):
            raise ImagesError(f"--{name} has {len(values)} values, and the images have {channels} channels")
    if any(value <= 0 for value in deviation):
        raise ImagesError("--deviation takes numbers above 0")
    own = pixels.mean((0, 2, 3)), np.maximum(pixels.std((0, 2, 3)), 1e-3)
    given = (np.asarray(values, np.float32) for values in (mean, deviation))
    chosen = [np.broadcast_to(value, channels) if value.size else mine for value, mine in zip(given, own, strict=True)]
    return chosen[0].astype(np.float32), chosen[1].astype(np.float32)


def _standardised(pixels: np.ndarray, statistics: tuple[np.ndarray, np.ndarray]) -> Tensor:
    mean, deviation = (torch.from_numpy(np.array(values)).reshape(-1, 1, 1) for values in statistics)
    return (torch.from_numpy(pixels) - mean) / deviation


def _fitting(images: ImageFolder, folder: Path, shape: tuple[int, int, int], network: Runnable) -> ImageFolder:
    """The images, if they are of the network's shape; grey ones become coloured for a network of three channels.

    Raises:
        ImagesError: if they do not fit.
    """
    if images.pixels.shape[1] == 1 and shape[0] == 3:
        images = ImageFolder(np.repeat(images.pixels, 3, 1), images.labels, images.classes)
    if images.pixels.shape[1:] != shape:
        given, wanted = (
            "x".join(map(str, one[1:])) + f" with {one[0]} channels" for one in (images.pixels.shape[1:], shape)
        )
        raise ImagesError(
            f"the images of {folder} are {given}, and {network.outline.path} takes {wanted}: convert them"
        )
    return images


def _classifier(network: Runnable, statistics: tuple[np.ndarray, np.ndarray]) -> Classifier:
    module, shape = network.module(), network.architecture.input_shape
    with torch.no_grad():
        classes = int(module(torch.zeros(1, *shape)).shape[1])
    return Classifier.of(module, shape, classes, statistics[0].tolist(), statistics[1].tolist())


# -- writing ----------------------------------------------------------------------------------------------------------


def _write(network: Runnable, made: Classifier, fixed: Path, file: Path) -> str:
    """Write the repaired network with the names and types that the file has, and what else it holds; gives its hash.

    Raises:
        NetworkError: if the file holds what safetensors does not.
    """
    state = {name: value.detach().numpy() for name, value in made.module.state_dict().items()}
    arrays = {name: np.ascontiguousarray(a) for name, a in read(network.outline, [*network.outline.floating]).items()}
    for leaf, name in zip(network.spec.leaves, network.names, strict=True):
        arrays[name] = np.ascontiguousarray(state[leaf.name].reshape(arrays[name].shape), np.float32)
    metadata = {"repaired": json.dumps({"from": file.name, "sha256": file_hash(file)})}
    if METADATA_KEY in network.outline.metadata:
        metadata[METADATA_KEY] = network.outline.metadata[METADATA_KEY]
    write_atomically(fixed, save(arrays, metadata))
    return file_hash(fixed)
