"""Decompiler recipes: what is trained on which programs, how it is evaluated, and the figures beside the published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float

from weightspace.decompiler.decompile import pretrained
from weightspace.decompiler.network.config import DecompilerConfig
from weightspace.decompiler.network.grammar import Draft
from weightspace.decompiler.network.graph import graph_of
from weightspace.decompiler.network.proposer import Proposer, fit
from weightspace.decompiler.paper.flat_config import FlatConfig
from weightspace.decompiler.paper.flat_decoder import FlatDecoder
from weightspace.decompiler.paper.listing import Chunking, Listing, draw_listings, read_listings, score_listings
from weightspace.decompiler.paper.listings import from_listings, on_the_fly
from weightspace.decompiler.proof.verify import certify
from weightspace.evaluation.metrics import Interval, bootstrap_interval
from weightspace.experiments.ladder import held_out
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.program import Program
from weightspace.train.config import TrainingConfig
from weightspace.zoo.programs.program_zoo import ProgramZoo

# -- the paper's experiment (section 3.3) ------------------------------------------------------------------------------

PUBLISHED_LISTING = {
    ("GT", "tokens right"): 0.902,
    ("AR", "tokens right"): 0.735,
    ("AR", "programs, at least 90% of tokens"): 0.320,
    ("AR", "programs, exact"): 0.068,
}
"""The paper's best run, GPT-2 medium on 6 million programs."""
LISTING_CEILING = 0.12
"""Of exact match on programs of fewer than 50,000 parameters, weights as compiled: 60 programs, 0.08 to 0.17 at 95%.

`weightspace decompiler ceiling listing --programs 60`, what chains from the programs that were drawn promise.
"""


def rasp_paper_small() -> FlatConfig:
    """For two cores: width 128, 4 layers, all-zero chunks left out, 38,400 examples; about 20 minutes of one core."""
    return FlatConfig(
        chunking=Chunking(zeros=False),
        width=128,
        depth=4,
        heads=4,
        training=TrainingConfig(
            steps=1_200,
            batch_size=32,
            learning_rate=2e-3,
            weight_decay=1e-2,
            betas=(0.9, 0.98),
            evaluate_every=100,
            checkpoint_every=20,
            device="cpu",
        ),
    )


def rasp_paper() -> FlatConfig:
    """The paper's: GPT-2 medium, 512 chunks of 128, 6 million programs drawn on the fly: a GPU's work of days.

    What the paper does not say (learning rate, batch size) is ours.
    """
    return FlatConfig(
        width=1024,
        depth=24,
        heads=16,
        encoding=64,
        training=TrainingConfig(
            steps=100_000,
            batch_size=64,
            learning_rate=1e-4,
            weight_decay=1e-2,
            precision="bfloat16",
            evaluate_every=1_000,
            checkpoint_every=1_000,
        ),
    )


FLAT_RECIPES: dict[str, Callable[[], FlatConfig]] = {"rasp-paper": rasp_paper, "rasp-paper-small": rasp_paper_small}


def train_flat_decoder(
    config: FlatConfig,
    folder: Path | None = None,
    *,
    zoo: ProgramZoo | None = None,
    workers: int = 1,
    validation: int = 256,
    show: bool = True,
) -> FlatDecoder:
    """Train the paper's decompiler; killed and called again with the same folder, it goes on.

    Args:
        folder: where checkpoints, logs and at the end the model go; None for nowhere.
        zoo: of programs of the paper's distribution, whose training split is used; None to draw them on the fly.
        workers: processes that draw programs; 0 for this one.
        validation: held-out programs by which the best model is chosen.
    Raises:
        TaskError: if the zoo will not do, or the folder holds another run.
    """
    decoder = FlatDecoder(config)
    if zoo is not None:
        training = read_listings(zoo, "train", config.chunking)
        held = read_listings(zoo, "validation", config.chunking, validation)
        data = f"{zoo.config.to_json()} {len(training)}"
        decoder.fit(from_listings(training, config), held, folder, data=data, show=show)
        different = min(len(training), decoder.history.steps * config.training.batch_size)
    else:
        held = draw_listings(
            validation,
            split="validation",
            seed=config.training.seed,
            chunking=config.chunking,
            most_parameters=config.most_parameters,
        )
        with on_the_fly(config, workers) as batches:
            decoder.fit(batches, held, folder, data="on the fly", show=show)
        different = decoder.history.steps * config.training.batch_size
    if folder is not None:
        seen = decoder.history.steps * config.training.batch_size
        decoder.save(folder, {"examples seen": seen, "of so many programs": different})
    return decoder


def held_out_listings(config: FlatConfig, count: int, zoo: ProgramZoo | None = None, seed: int = 1) -> list[Listing]:
    """Test programs, which no training ever sees: of a zoo, or drawn."""
    if zoo is not None:
        return read_listings(zoo, "test", config.chunking, count)
    return draw_listings(
        count, split="test", seed=seed, chunking=config.chunking, most_parameters=config.most_parameters
    )


@dataclass(frozen=True)
class ListingRow:
    """One figure of the paper's experiment.

    Attributes:
        decoding: GT, each line given the true ones before it; or AR, from the weights alone.
        measure: what is measured.
        found: on how many programs what share, with its 95% interval over programs.
        programs: on how many.
        published: by the paper, where it says; on its own programs.
        ceiling: the best that is possible on this target, where it is estimated.
    """

    decoding: str
    measure: str
    found: Interval
    programs: int
    published: float | None = None
    ceiling: float | None = None

    def __str__(self) -> str:
        f = self.found
        beside = "".join(
            f", {name} {value:.1%}"
            for name, value in (("published", self.published), ("ceiling", self.ceiling))
            if value is not None
        )
        return f"{self.decoding} {self.measure}: {f.estimate:.1%} ({f.low:.1%} to {f.high:.1%}){beside}"

    def to_json(self) -> dict[str, Any]:
        return {
            "decoding": self.decoding,
            "measure": self.measure,
            "estimate": self.found.estimate,
            "low": self.found.low,
            "high": self.found.high,
            "programs": self.programs,
            "published": self.published,
            "ceiling": self.ceiling,
        }


def evaluate_flat_decoder(
    decoder: FlatDecoder, listings: Sequence[Listing], *, ceiling: float | None = None, seed: int = 0
) -> list[ListingRow]:
    """The paper's figures on held-out programs, teacher-forced and autoregressive, beside the published ones.

    Tokens that count are those of `decompiler.paper.listing.counted`: no padding. The rows "with padding" count all 75
    fields.

    Args:
        ceiling: of the exact match, as `decompiler.paper.ceiling` estimates it.
        seed: of the bootstrap over programs.
    """
    truth = np.stack([one.lines for one in listings])
    answers = {"GT": decoder.forced(listings), "AR": decoder.decode([one.chunks for one in listings])}
    rows = []
    for decoding, answer in answers.items():
        scores = score_listings(answer, truth)
        measures = {"tokens right": scores.tokens, "fields right, with padding": scores.padded}
        for share in (0.7, 0.9):
            measures[f"programs, at least {share:.0%} of tokens"] = scores.at_least(share)
            measures[f"programs, at least {share:.0%} of fields with padding"] = scores.at_least(share, "padded")
            measures[f"programs, at least {share:.0%} of instructions"] = scores.at_least(share, "instructions")
        measures["instructions right"] = scores.instructions
        measures["programs, exact"] = scores.exact
        for measure, values in measures.items():
            rows.append(
                ListingRow(
                    decoding,
                    measure,
                    bootstrap_interval(values, seed=seed),
                    len(listings),
                    PUBLISHED_LISTING.get((decoding, measure)),
                    ceiling if measure == "programs, exact" and decoding == "AR" else None,
                )
            )
    return rows


def listing_experiment(
    name: str,
    folder: Path,
    *,
    zoo: ProgramZoo | None = None,
    programs: int = 2_000,
    ceiling: float | None = LISTING_CEILING,
    steps: int | None = None,
    workers: int = 1,
    show: bool = True,
) -> tuple[FlatDecoder, list[ListingRow], dict[str, Any]]:
    """Train a recipe of `FLAT_RECIPES`, evaluate it on held-out programs.

    Args:
        steps: instead of the recipe's.
    Returns:
        the decoder, the rows of the table, and what it took: examples, seconds of training and of evaluation.
    """
    config = FLAT_RECIPES[name]()
    if steps is not None:
        config = replace(config, training=replace(config.training, steps=steps))
    decoder = train_flat_decoder(config, folder, zoo=zoo, workers=workers, show=show)
    start = perf_counter()
    rows = evaluate_flat_decoder(decoder, held_out_listings(config, programs, zoo), ceiling=ceiling)
    facts = {
        "parameters": decoder.parameters,
        "examples seen": decoder.history.steps * config.training.batch_size,
        "training seconds": decoder.history.seconds,
        "evaluation seconds": perf_counter() - start,
    }
    return decoder, rows, facts


# -- the decompiler of typed programs ---------------------------------------------------------------------------------

LIBRARY_KEYS = (
    "6d78295995d5d53028ca582b5180edc8", "07bab1924eb0c681729b5380c1b47543", "5d682683c47eef2bfdc3ff2a230454d6",
    "35cdb5792cf0bf132c55d1a97b15022e", "f0c858c18b6a556abde65783f5c991f5", "c4027c7e12de227930514e89eaaa57a4",
    "3d0f022a0e1499e51070bcd09f2f3f51", "568d3492e189b91ebbd8f01ff5967043", "dafa415159b2a7a5f69d22b4ddc32850",
    "88e72f108915040200ba33ec99957df0",
)  # fmt: skip
"""Canonical keys of the hand-written programs in `examples/`, in both modes: nothing is trained on them."""


def rasp_typed_small() -> DecompilerConfig:
    """For two cores: 1.5 million parameters, 345,600 programs in about 90 minutes of one core beside one that draws.

    The decompiler that comes with the package is this recipe begun from the weights of an earlier one; see its card.
    """
    return DecompilerConfig(
        other_shapes=0.15,
        fixed=0.15,
        noisy=0.2,
        squeezed=0.1,
        excluded=LIBRARY_KEYS,
        training=TrainingConfig(
            steps=5_400,
            batch_size=64,
            learning_rate=1e-3,
            weight_decay=1e-2,
            warmup=0.03,
            final_fraction=0.02,
            betas=(0.9, 0.98),
            evaluate_every=450,
            checkpoint_every=200,
        ),
    )


def rasp_typed() -> DecompilerConfig:
    """The same at paper scale, 8 million programs drawn on the fly: for a GPU and a dozen cores that draw. Untried."""
    return DecompilerConfig(
        width=384,
        rounds=6,
        message=32,
        depth=6,
        heads=6,
        most_nodes=1_000,
        excluded=LIBRARY_KEYS,
        training=TrainingConfig(
            steps=62_500,
            batch_size=128,
            learning_rate=4e-4,
            weight_decay=1e-2,
            warmup=0.02,
            final_fraction=0.02,
            betas=(0.9, 0.98),
            precision="bfloat16",
            evaluate_every=1_000,
            checkpoint_every=1_000,
        ),
    )


DECOMPILER_RECIPES: dict[str, Callable[[], DecompilerConfig]] = {
    "rasp-typed": rasp_typed,
    "rasp-typed-small": rasp_typed_small,
}


def train_decompiler(
    name: str,
    folder: Path,
    *,
    steps: int | None = None,
    start: Path | None = None,
    workers: int = 1,
    show: bool = True,
) -> dict[str, Any]:
    """Train a recipe of `DECOMPILER_RECIPES` or `FLAT_RECIPES`; killed and called again, it goes on.

    Args:
        start: a decompiler whose weights are the first, instead of random ones; not of the paper's experiment.
    Returns:
        what came out, JSON-serialisable.
    Raises:
        ValueError: if there is no such recipe, it takes no start, or `workers` is negative.
        NetworkError: if `start` is no decompiler of this shape.
    """
    if workers < 0:
        raise ValueError(f"{workers} workers cannot draw programs: give 0 for none, 1 or more")
    if name in FLAT_RECIPES and start is not None:
        raise ValueError(f"the recipe {name!r} starts from random weights: leave --start out")
    if name in FLAT_RECIPES:
        _, rows, facts = listing_experiment(name, folder, steps=steps, workers=workers, show=show)
        return {"recipe": name, "facts": facts, "rows": [row.to_json() for row in rows]}
    if name not in DECOMPILER_RECIPES:
        known = ", ".join([*DECOMPILER_RECIPES, *FLAT_RECIPES])
        raise ValueError(f"no decompiler recipe is named {name!r}: there are {known}")
    config = DECOMPILER_RECIPES[name]()
    if steps is not None:
        config = replace(config, training=replace(config.training, steps=steps))
    first = None if start is None else Proposer.load(start)
    proposer = fit(config, folder, start=first, workers=workers, show=show)
    before = {} if first is None else first.facts
    facts = {
        "recipe": name,
        "parameters": proposer.parameters,
        "programs seen": proposer.history.steps * config.training.batch_size + before.get("programs seen", 0),
        "training seconds": round(proposer.history.seconds) + before.get("training seconds", 0),
    }
    proposer.save(folder / "decompiler.safetensors", facts, half=True)
    return facts


def evaluate_decompiler(
    path: Path | None = None,
    *,
    count: int = 1_000,
    seed: int = 2024,
    lengths: Sequence[int] = (),
    shape: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The figures of a decompiler's card: one greedy program for each of `count` held-out clean transformers.

    Args:
        path: of the network; None for the one that comes with the package.
        lengths, shape: of the programs, see `held_out`.
    Returns:
        the share certified and its 95% interval over programs, by length too, and programs a second.
    """
    proposer = pretrained() if path is None else Proposer.load(path)
    programs = held_out(count, seed, lengths, shape)
    targets = [BareTransformer.of(compile_program(program, mode="tracr_compat")) for program in programs]
    right, seconds = greedy_certified(proposer, targets)
    sizes = np.array([len(program) for program in programs])
    interval = bootstrap_interval(right, seed=0)
    return {
        "programs": count,
        "seed": seed,
        "certified": interval.estimate,
        "interval": [interval.low, interval.high],
        "by operations": {int(n): [float(right[sizes == n].mean()), int((sizes == n).sum())] for n in np.unique(sizes)},
        "programs a second": count / seconds,
    }


def greedy_certified(
    proposer: Proposer, targets: Sequence[BareTransformer], batch_size: int = 64
) -> tuple[Float[np.ndarray, " targets"], float]:
    """For each transformer whether the one program written greedily is certified, and the seconds of all decoding."""
    count = len(targets)
    found: list[Program | None] = [None] * count
    start = perf_counter()
    graphs = [graph_of(target) for target in targets]
    order = sorted(range(count), key=lambda i: graphs[i].nodes)
    for first in range(0, count, batch_size):
        some = order[first : first + batch_size]
        drafts = [
            Draft(t.vocab, t.max_seq_len, "tracr_compat", 0, 2 * t.num_layers) for t in (targets[i] for i in some)
        ]
        memory = proposer.read([graphs[i] for i in some])
        for i, proposal in zip(some, proposer.propose(memory, drafts), strict=True):
            found[i] = proposal.draft.program() if proposal.draft.ended and len(proposal.draft.scope) > 2 else None
    seconds = perf_counter() - start
    right = np.array(
        [
            program is not None and certify(program, target, mode="tracr_compat") is not None
            for program, target in zip(found, targets, strict=True)
        ],
        float,
    )
    return right, seconds
