"""Networks alone on the paper's task: the graph's reader and flat chunks, trained for the same minutes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any, Literal

import numpy as np
import torch

from weightspace.decompiler.paper.graph_decoder import ListingDecoder, parts_loss
from weightspace.decompiler.paper.graph_examples import (
    GraphExample,
    held_out_programs,
    make_shards,
    read_shard,
    shard_path,
    weights_graph,
)
from weightspace.decompiler.paper.listing import length_of, score_listings, target_lines
from weightspace.decompiler.paper.listing_config import ListingConfig
from weightspace.errors import TaskError
from weightspace.evaluation.metrics import bootstrap_interval
from weightspace.experiments.paper_decompiling import measures_of
from weightspace.files.atomic import write_atomically
from weightspace.train.config import TrainingConfig

VALIDATION = 512
"""Held-out programs by which the best weights are chosen."""
TIMED = 26
"""Steps that are timed to find how many fit into the minutes."""
BUDGET_FILE = "budget.json"
DATA_SEED = 0
PAPER_SHORTEST = 5
"""Lines of the shortest programs of the paper's own experiment; ours have 3 or more."""


def listing_recipe(
    reader: Literal["graph", "chunks"], shards: int, steps: int, first: int | None = None, growth: int = 50
) -> ListingConfig:
    """1.5 million parameters; the same decoder, data and learning-rate schedule for both readers."""
    return ListingConfig(
        reader=reader,
        shards=shards,
        first=first,
        growth=growth,
        training=TrainingConfig(
            steps=steps,
            batch_size=64,
            learning_rate=1e-3,
            weight_decay=1e-2,
            warmup=0.02,
            schedule="linear",
            final_fraction=0.0,
            betas=(0.9, 0.98),
            evaluate_every=max(1, steps // 8),
            checkpoint_every=50,
            device="cpu",
        ),
    )


def train_listing(
    reader: Literal["graph", "chunks"],
    folder: Path,
    data: Path,
    *,
    minutes: float = 35.0,
    shards: int = 48,
    first: int | None = None,
    growth: int = 50,
    steps: int | None = None,
    workers: int = 0,
    programs: int = 1_000,
    show: bool = True,
) -> dict[str, Any]:
    """Train a network for so many minutes; killed and called again with the same folder, it goes on.

    Programs are drawn before, and count for none of the minutes.

    Args:
        shards, first, growth: files of programs, how many are needed before it begins, and after how many steps one
            more is read; see `ListingConfig`.
        steps: instead of minutes.
        programs: held out, on which it is scored; 0 for none.
    Returns:
        what it took and its figures, JSON-serialisable.
    Raises:
        TaskError: if minutes, steps or shards will not do, or the folder holds another run.
    """
    if not 0 < minutes < float("inf") or shards < 1 or workers < 0 or (steps is not None and steps < 1):
        raise TaskError(
            f"{minutes:g} minutes, {shards} shards, {steps} steps and {workers} workers will not do: give minutes "
            "above 0, at least 1 shard and step, and 0 or more workers"
        )
    make_shards(data, "validation", DATA_SEED, [0], workers=0, show=show)
    make_shards(data, "train", DATA_SEED, range(first or shards), workers=workers, show=show)
    held = read_shard(shard_path(data, "validation", DATA_SEED, 0))[:VALIDATION]
    chosen = steps or _steps(reader, folder, data, minutes, first or shards, held)
    config = listing_recipe(reader, shards, chosen, first, growth)
    decoder = ListingDecoder(config).fit(data, DATA_SEED, held, folder, show=show)
    facts = {
        "reader": reader,
        "parameters": decoder.parameters,
        "programs": shards * 1_024,
        "examples seen": decoder.history.steps * config.training.batch_size,
        "training seconds": round(decoder.history.seconds),
        "validation": decoder.history.evaluations,
    }
    if programs:
        facts["held out"] = figures_of(decoder, programs, 1)
    decoder.save(folder, facts)
    return facts


def figures_of(decoder: ListingDecoder, count: int, seed: int) -> dict[str, dict[str, list[float]]]:
    """The paper's figures of a network on held-out weights as they were compiled: each with its 95% interval.

    GT: each token given the true ones before it; AR: one greedy decode from the weights alone, of all programs and of
    those that are as long as the paper's.
    """
    held = held_out_programs(count, seed)
    truth = np.stack([target_lines(one.program) for one in held])
    graphs = [weights_graph(one.bare) for one in held]
    examples = [GraphExample(lines, lines, graph) for lines, graph in zip(truth, graphs, strict=True)]
    decoded, every = decoder.decode(graphs), np.ones(count, bool)
    long = length_of(truth) >= PAPER_SHORTEST
    answers = {"GT": (decoder.forced(examples), every), "AR": (decoded, every), "AR, 5 lines or more": (decoded, long)}
    found: dict[str, dict[str, list[float]]] = {}
    for name, (given, asked) in answers.items():
        if not asked.any():
            continue
        found[name] = {}
        for measure, values in measures_of(score_listings(given[asked], truth[asked])).items():
            interval = bootstrap_interval(values, seed=0)
            found[name][measure] = [interval.estimate, interval.low, interval.high]
    return found


def _steps(
    reader: Literal["graph", "chunks"],
    folder: Path,
    data: Path,
    minutes: float,
    shards: int,
    held: Sequence[GraphExample],
) -> int:
    """How many steps fit, measured once for a folder, evaluations on the way counted too."""
    path = folder / BUDGET_FILE
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["minutes"] != minutes:
            raise TaskError(f"{folder} was begun for {kept['minutes']:g} minutes: go on with them, or choose another")
        return kept["steps"]
    decoder = ListingDecoder(listing_recipe(reader, shards, 1_000))
    optimiser = torch.optim.AdamW(decoder.network.parameters())
    each = []
    decoder.batch(data, DATA_SEED, 0)  # which reads the first files
    for step in range(TIMED):
        started = process_time()
        batch = decoder.batch(data, DATA_SEED, step)
        parts_loss(decoder.network, batch).backward()
        optimiser.step()
        optimiser.zero_grad()
        each.append(process_time() - started)
    own = float(np.mean(each[2:]))
    evaluation = own / 3 * len(held) / 64
    steps = max(1, int((60 * minutes - 9 * evaluation) / own))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"minutes": minutes, "steps": steps, "seconds a step": own}).encode())
    return steps


def answers_of(folders: Sequence[Path], count: int, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What networks write of held-out weights as they were compiled, one greedy decode each, and what was drawn."""
    held = held_out_programs(count, seed)
    truth = np.stack([target_lines(one.program) for one in held])
    graphs = [weights_graph(one.bare) for one in held]
    names = {"graph": "a network alone, graph", "chunks": "a network alone, flat chunks"}
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for folder in folders:
        decoder = ListingDecoder.load(folder)
        name = names[decoder.config.reader]
        while name in found:
            name += ", again"
        found[name] = (decoder.decode(graphs), truth)
    return found
