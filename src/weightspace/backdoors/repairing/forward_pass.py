"""From a file of weights to a classifier that runs: its own description, or the known forward pass that fits images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.backdoors.repairing.image_folder import ImageFolder
from weightspace.errors import NetworkError
from weightspace.files.checkpoints import Outline, outlines, read
from weightspace.files.tensors import METADATA_KEY
from weightspace.weights.matching import MismatchError, match
from weightspace.weights.modules import load_into_module
from weightspace.weights.network import Network
from weightspace.weights.spec import NetworkSpec
from weightspace.zoo.networks import architecture_of, build, spec_of
from weightspace.zoo.records import Architecture
from weightspace.zoo.varied import NORMS

ACTIVATIONS = ("relu", "gelu", "silu", "leaky_relu")
"""Of which one is tried after another."""
AT_ONCE = 256
"""Images that are answered together."""
Fit = tuple[Architecture, tuple[str, ...], NetworkSpec]
"""An architecture, the file's name of each leaf, and the leaves."""
TOLD = 0.1
"""By how much more of the images a forward pass is right than guessing the commonest class, to be believed."""


@dataclass(frozen=True, eq=False)
class Runnable:
    """A file's network with its forward pass.

    Attributes:
        names: the file's name of each leaf of `spec`, in leaf order.
        known_by: how the forward pass is known, as half a sentence.
    """

    outline: Outline
    architecture: Architecture
    names: tuple[str, ...]
    spec: NetworkSpec
    known_by: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def module(self) -> nn.Module:
        """With the file's weights, in evaluation mode.

        Raises:
            NetworkError: if a weight is NaN or infinite.
        """
        arrays = read(self.outline, self.names)
        own = {leaf.name: arrays[name] for leaf, name in zip(self.spec.leaves, self.names, strict=True)}
        network = Network(self.spec, self.spec.join(own))
        network.check_finite()
        return load_into_module(network, build(self.architecture)).eval()


def runnable(path: str | Path, images: ImageFolder | None, inputs: Tensor | None = None) -> Runnable:
    """The network in a file, and how it is to be run.

    A file of `Network.save` says its architecture. Of any other the arrays are held against every network that the
    families here make with such shapes; weights do not say which activation or pooling is between them, so of those
    that fit, the one with the lowest cross-entropy on the labelled images is taken.

    Args:
        images: as they lie in a folder; `inputs` (n, c, h, w) are the same, standardised.
    Raises:
        UnreadableError: if the file cannot be read.
        NetworkError: if no forward pass is known, or the images do not tell which of several it is.
    """
    found = outlines(path)[0]
    metadata = _own_metadata(found)
    if isinstance(metadata.get("architecture"), Mapping):
        try:
            architecture = Architecture.from_json(metadata["architecture"])
            spec = spec_of(architecture)
            names = match(spec, found.shapes, found.dtypes, whose="its description").names
        except (ValueError, TypeError) as error:
            raise NetworkError(f"{path} does not fit its own description: {error}") from None
        return Runnable(found, architecture, names, spec, "the file says which", metadata)
    fitting = candidates(found, None if images is None else images.pixels.shape[2:])
    if not fitting:
        raise NetworkError(
            f"{path} is out of scope for repair: its forward pass is not known, as its arrays fit no network of the "
            "families that weightspace zoo make trains"
        )
    if images is None or inputs is None or images.labels is None:
        if len(fitting) == 1:
            return Runnable(found, *fitting[0], "the only one known that fits the arrays", metadata)
        raise NetworkError(
            f"{path} fits {len(fitting)} forward passes (activation, pooling and the like are not in the weights): "
            "give --images with one folder a class, by which the right one is told"
        )
    return _told_by_images(path, found, fitting, images, inputs, metadata)


def _own_metadata(found: Outline) -> Mapping[str, Any]:
    try:
        record = json.loads(found.metadata[METADATA_KEY])
    except (KeyError, ValueError, RecursionError):
        return {}
    metadata = record.get("metadata") if isinstance(record, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _told_by_images(
    path: str | Path,
    found: Outline,
    fitting: Sequence[Fit],
    images: ImageFolder,
    inputs: Tensor,
    metadata: Mapping[str, Any],
) -> Runnable:
    """Of the forward passes that fit the arrays the one with the lowest cross-entropy on the images, see `_surest`.

    Raises:
        NetworkError: if none is right on more images than chance would have it.
    """
    labels = torch.from_numpy(images.labels)
    channels = fitting[0][0].input_shape[0]
    if inputs.shape[1] not in (1, channels):
        raise NetworkError(f"the images have {inputs.shape[1]} channels, and {path} takes {channels}: convert them")
    inputs = inputs.expand(-1, channels, -1, -1)
    right, wrong = [], []  # shares, and losses (images,), of each
    for one in fitting:
        module = Runnable(found, *one, "").module()
        with torch.no_grad():
            logits = torch.cat([module(part) for part in inputs.split(AT_ONCE)])
        if int(labels.max()) >= logits.shape[1]:
            raise NetworkError(
                f"{path} tells {logits.shape[1]} classes apart, and the images lie in {len(images.classes)} folders: "
                "give one folder a class, in the network's order"
            )
        right.append(float((logits.argmax(1) == labels).float().mean()))
        wrong.append(F.cross_entropy(logits, labels, reduction="none").numpy())
    best = _surest(wrong)
    commonest = Counter(labels.tolist()).most_common(1)[0][1] / len(labels)
    if right[best] < commonest + TOLD:
        raise NetworkError(
            f"{path} is out of scope for repair: of the {len(fitting)} forward passes that fit its arrays the best is "
            f"right on {right[best]:.0%} of the images, so that none of them is believed (are the folders in the order "
            "of the network's classes, and the pixels standardised as it expects, see --mean and --deviation?)"
        )
    how = "the only one known that fits the arrays"
    if len(fitting) > 1:
        how = (
            f"of {len(fitting)} that fit the arrays the one with the lowest cross-entropy on the images, "
            f"which is right on {right[best]:.0%} of them"
        )
    return Runnable(found, *fitting[best], how, metadata)


def _surest(losses: Sequence[np.ndarray]) -> int:
    """The first of the losses (images,) that no later one is below by more than two standard errors.

    LeakyReLU answers nearly as ReLU does, and then either may be lower by chance: the more usual stands first.
    """
    best = 0
    for number, loss in enumerate(losses):
        apart = losses[best] - loss
        if apart.mean() > 2 * apart.std() / np.sqrt(len(apart)):
            best = number
    return best


# -- every network that the families make with such shapes ------------------------------------------------------------


def candidates(found: Outline, size: tuple[int, int] | None) -> list[Fit]:
    """Architectures of the known families whose arrays a file has, with the file's name of each.

    Args:
        size: height and width of an image, if known: where the dense layer reads every pixel, it must fit.
    """
    shapes = found.floating
    kernels = [shape for shape in shapes.values() if len(shape) == 4]
    dense = [shape for shape in shapes.values() if len(shape) == 2]
    if not kernels or not dense:
        return []
    wanted = Counter(shape for shape in shapes.values() if shape)
    height, width = size or (32, 32)
    first = next((shape for shape in kernels if shape[1] in (1, 3)), kernels[0])
    fitting: list[Fit] = []
    for architecture in _possible((first[1], height, width), shapes, kernels, dense):
        try:
            own = Counter(tuple(value.shape) for value in build(architecture).state_dict().values() if value.ndim)
        except (ValueError, RuntimeError):
            continue
        if own != wanted:
            continue
        try:
            spec = spec_of(architecture)
            names = match(spec, found.shapes, found.dtypes, whose="a known family").names
        except MismatchError:
            continue
        if architecture not in [known for known, _, _ in fitting]:
            fitting.append((architecture, names, spec))
    # the activation changes no array: all with the most usual one first
    return [(replace(one, activation=name), names, spec) for name in ACTIVATIONS for one, names, spec in fitting]


def _possible(
    input_shape: tuple[int, int, int],
    shapes: Mapping[str, Sequence[int]],
    kernels: Sequence[Sequence[int]],
    dense: Sequence[Sequence[int]],
) -> Iterator[Architecture]:
    """Networks of the families, and plain ones, that may have made arrays of such shapes."""
    for family, options in _options(shapes, kernels, dense):
        try:
            yield architecture_of(family, input_shape, **options)
        except ValueError:
            continue
    for norm, pooling in product(_norms(shapes, kernels, dense), ("max", "average", "stride")):
        made = _plain(input_shape, kernels, dense, norm, pooling)
        if made is not None:
            yield made


def _norms(
    shapes: Mapping[str, Sequence[int]], kernels: Sequence[Sequence[int]], dense: Sequence[Sequence[int]]
) -> tuple[str, ...]:
    """Normalisations that have as many vectors as there are, if there is one after each convolution."""
    vectors = sum(len(shape) == 1 for shape in shapes.values()) - len(kernels) - len(dense)
    return {0: ("none",), 2 * len(kernels): ("layer", "group"), 4 * len(kernels): ("batch",)}.get(vectors, ())


def _plain(
    input_shape: tuple[int, int, int],
    kernels: Sequence[Sequence[int]],
    dense: Sequence[Sequence[int]],
    norm: str,
    pooling: str,
) -> Architecture | None:
    """Convolutions in the order of the file with a pool of 2 after every second one, then one dense layer on the mean
    of all pixels, or two on all pixels: what `examples/train_plain_cnn.py` trains. None if the pixels do not halve."""
    layers: list[tuple[Any, ...]] = []
    side = min(input_shape[1:])
    for number, (out, _, kernel, _) in enumerate(kernels):
        shrinks = number % 2 == 1 and side >= 4
        if shrinks and side % 2:
            return None
        stride = 2 if shrinks and pooling == "stride" else 1
        layers += [("convolution", int(out), int(kernel), stride, "same"), *([NORMS[norm]] if norm in NORMS else [])]
        layers += [("activation",), *([(f"{pooling}_pool", 2)] if shrinks and pooling != "stride" else [])]
        side //= 2 if shrinks else 1
    head: list[tuple[Any, ...]] = [("global_average_pool",)] if len(dense) == 1 else [("flatten",)]
    for number, (out, _) in enumerate(dense):
        head += [("activation",)] * (number > 0) + [("dense", int(out))]
    return Architecture(input_shape=input_shape, layers=(*layers, *head), activation="relu")


def _options(
    shapes: Mapping[str, Sequence[int]], kernels: Sequence[Sequence[int]], dense: Sequence[Sequence[int]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Families with options that may have made arrays of such shapes."""
    channels = sorted({int(shape[0]) for shape in kernels})
    width, classes = channels[0], min(int(shape[0]) for shape in dense)
    yield "backdoor-cnn", {"width": width, "classes": classes}
    yield "digits-cnn", {"width": width}
    yield "cnn-s", {}
    yield "small-cnn", {}
    norms = _norms(shapes, kernels, dense)
    growths = (1.0, 1.5, 2.0) if len(channels) > 1 else (1.0,)
    kernel = max(int(shape[2]) for shape in kernels)
    for norm, growth, pooling, residual, head in product(
        norms, growths, ("max", "average", "stride"), (False, True), ("average", "max", "flatten")
    ):
        yield (
            "varied-cnn",
            {
                "width": width,
                "growth": growth,
                "convolutions": len(kernels),
                "kernel": kernel,
                "norm": norm,
                "pooling": pooling,
                "residual": residual,
                "head": head,
                "classes": classes,
            },
        )
