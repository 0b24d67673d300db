"""What a reader says of one network: classes with probabilities, what each output stands for, and how typical it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from weightspace.provenance.reader import ProvenanceReader
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.zoo.networks import module_of

STRANGE = 0.05
"""p-value below which a network is called unlike those of the zoo."""
NOISE = 64
"""Noise images at which the slopes of a picture are taken."""


@dataclass(frozen=True)
class ClassAnswer:
    """One class of the image set: the probability that it was among the training images, or its share of them."""

    name: str
    value: float


@dataclass(frozen=True)
class Provenance:
    """What a reader says of a network.

    Attributes:
        network: its name.
        question: `classes` or `proportions`.
        images: the image set that the reader knows; that the network was trained on it is assumed, not found.
        classes: the most likely first.
        outputs: which class each output stands for, in their order.
        p_value: the share of networks like those of the zoo that lie as far from them.
        typical: whether that is above `STRANGE`; of a network that is not, the answer means little.
        compared: with what it was compared, in words.
        notes: what else a reader must know.
        templates: of each output a picture (height, width), the mean slope of its answer.
    """

    network: str
    question: str
    images: str
    classes: tuple[ClassAnswer, ...]
    outputs: tuple[str, ...]
    p_value: float
    typical: bool
    compared: str
    notes: tuple[str, ...]
    templates: tuple[np.ndarray, ...]

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        record.pop("templates")
        return record


def provenance(source: Network | str | Path, reader: ProvenanceReader) -> Provenance:
    """What a network was trained on, as a reader sees it.

    Raises:
        NetworkError: if it cannot be read.
        ScopeError: if it is of an architecture that the reader does not know.
    """
    network, notes = reader.network(source)
    alone = Population.of([network])
    said = reader.outputs(alone)[0]
    order = np.argsort(-said, kind="stable")
    p_value = float(reader.typicality.p_values(reader.described(alone))[0])
    facts = reader.facts
    if reader.typicality.least > STRANGE:
        known = len(reader.typicality.away)
        notes = (*notes, f"typicality rests on {known} networks, too few to flag any at {STRANGE:g}: train on more")
    size = facts.get("image_size")
    compared = (
        f"{facts['networks'][0]} networks of {len(reader.architectures)} "
        f"architecture{'s' if len(reader.architectures) > 1 else ''} trained on {reader.images}"
        f"{f' at {size}x{size}' if size else ''} (zoo {facts['recipe']})"
    )
    return Provenance(
        str(source) if isinstance(source, str | Path) else "the network",
        str(facts["question"]),
        reader.images,
        tuple(ClassAnswer(reader.classes[i], float(said[i])) for i in order),
        reader.class_of_outputs(network),
        p_value,
        p_value > STRANGE,
        compared,
        notes,
        tuple(class_templates(network)),
    )


def class_templates(network: Network, seed: int = 0) -> Float[np.ndarray, "outputs h w"]:
    """A picture for each output: what brightens it, the mean over noise images of the slope of its centred answer."""
    module = module_of(network)
    shape = network.metadata["architecture"]["input_shape"]
    x = torch.randn(NOISE, *shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    logits = module(x)
    centred = logits - logits.mean(1, keepdim=True)
    slopes = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0].mean((0, 1)) for column in centred.unbind(1)]
    return torch.stack(slopes).double().numpy()
