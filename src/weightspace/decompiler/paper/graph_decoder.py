"""A network alone on the paper's task: weights in, fifteen lines of five fields out, one greedy decode."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.decompiler.network.batch import GraphBatch, collate
from weightspace.decompiler.network.graph import Graph
from weightspace.decompiler.network.network import DecoderLayer
from weightspace.decompiler.network.plain_readers import PlainReader
from weightspace.decompiler.network.reader import Reader
from weightspace.decompiler.paper.graph_examples import SHARD, GraphExample, read_shard, write_shard
from weightspace.decompiler.paper.half_linear import with_half_linears
from weightspace.decompiler.paper.listing import END_ID, FIELDS, START_ID, ended, length_of
from weightspace.decompiler.paper.listing_config import ListingConfig
from weightspace.decompiler.paper.listing_grammar import OPERATIONS, SIZE, WRITTEN, legal
from weightspace.decompiler.paper.ordered_reader import OrderedReader
from weightspace.errors import NetworkError, TaskError
from weightspace.rasp.tokens import MOST_LINES, PAPER, PAPER_VARIABLES
from weightspace.train.checkpoint import bind
from weightspace.train.config import MAY_CHANGE_ON_RESUME
from weightspace.train.loop import History, train
from weightspace.train.model_file import read_model, training_of, write_model

MODEL_FILE = "listing_decoder.safetensors"
KIND = "listing decoder"
MOST_TOKENS = WRITTEN * MOST_LINES
VARIABLE_IDS = np.array([PAPER.ids[4][name] for name in PAPER_VARIABLES])


def ids_of(lines: Int[np.ndarray, "n 15 5"]) -> Int[np.ndarray, "n 60"]:
    """Programs as one token after the other; 0 behind END's operation."""
    ids = lines[:, :, :WRITTEN].copy()
    ids[:, :, 1:] += np.where(ids[:, :, 1:] > 0, OPERATIONS, 0)
    return ids.reshape(len(lines), MOST_TOKENS)


def lines_of(ids: Int[np.ndarray, "n 60"]) -> Int[np.ndarray, "n 15 5"]:
    """The lines of tokens, what stands behind END made padding."""
    lines = np.zeros((len(ids), MOST_LINES, FIELDS), np.int64)
    lines[:, :, :WRITTEN] = ids.reshape(len(ids), MOST_LINES, WRITTEN)
    lines[:, :, 1:WRITTEN] = (lines[:, :, 1:WRITTEN] - OPERATIONS).clip(0)
    lines[:, :, WRITTEN] = VARIABLE_IDS
    return ended(lines)


@dataclass(frozen=True, eq=False)
class ListingBatch:
    """What a step of the training sees: graphs, and (b, 60) ids."""

    graph: GraphBatch
    ids: Tensor

    @staticmethod
    def of(examples: Sequence[GraphExample], settled: bool, whole: bool = True) -> ListingBatch:
        """Args: whole: whether there are 60 tokens, although all programs may be shorter."""
        ids = ids_of(np.stack([example.settled if settled else example.lines for example in examples]))
        most = MOST_TOKENS if whole else int((ids != 0).any(0).nonzero()[0][-1]) + 1
        graphs = collate([example.graph for example in examples])
        return ListingBatch(graphs, torch.from_numpy(np.ascontiguousarray(ids[:, :most])))

    def to(self, device: torch.device) -> ListingBatch:
        return ListingBatch(self.graph.to(device), self.ids.to(device, non_blocking=True))


class ListingNetwork(nn.Module):
    """Weights and the beginning of a program in, logits of the next token out."""

    def __init__(self, config: ListingConfig) -> None:
        super().__init__()
        width = config.width
        if config.reader == "graph":
            kind = OrderedReader if config.ordered else Reader
            self.reader: nn.Module = kind(width, config.rounds, config.message)
        else:
            self.reader = PlainReader(width, config.rounds, config.heads, rows=False)
        self.tokens, self.fields = nn.Embedding(SIZE, width), nn.Embedding(WRITTEN, width)
        self.lines = nn.Embedding(MOST_LINES, width)
        self.layers = nn.ModuleList(DecoderLayer(width, config.heads, 0.0) for _ in range(config.depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, SIZE)
        for table in (self.tokens, self.fields, self.lines):
            nn.init.normal_(table.weight, std=0.5)
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            last = layer.mlp[2]
            assert isinstance(last, nn.Linear)
            for linear in (layer.own_out, layer.cross_out, last):
                nn.init.normal_(linear.weight, std=linear.in_features**-0.5 / (3 * config.depth) ** 0.5)
        nn.init.zeros_(self.out.weight)
        allowed = torch.zeros(WRITTEN, SIZE)
        allowed[0, OPERATIONS:] = allowed[1:, :OPERATIONS] = -torch.inf
        allowed[:, 0] = -torch.inf
        self.register_buffer("allowed", allowed, persistent=False)
        if config.half:
            with_half_linears(self)

    def embed(self, ids: Int[Tensor, "b t"], first: int = 0) -> Float[Tensor, "b t d"]:
        """What stands before token `first` and those after it: the start, or the token before."""
        place = torch.arange(first, first + ids.shape[1], device=ids.device)
        return self.tokens(ids) + self.fields(place % WRITTEN) + self.lines(place // WRITTEN)

    def remember(self, g: GraphBatch) -> tuple[list[tuple[Tensor, ...]], Tensor]:
        """What each layer of the decoder keeps of the weights, and which nodes are there."""
        memory, present = self.reader(g)
        return [layer.remember(memory) for layer in self.layers if isinstance(layer, DecoderLayer)], present[
            :, None, None
        ]

    def read(self, x: Float[Tensor, "b t d"], first: int = 0) -> Float[Tensor, "b t v"]:
        """Logits, minus infinity for what a field never holds: operations stand first, arguments after."""
        place = torch.arange(first, first + x.shape[1], device=x.device) % WRITTEN
        return self.out(self.norm(x)) + self.get_buffer("allowed")[place]

    def forward(self, batch: ListingBatch) -> Float[Tensor, "b t v"]:
        remembered, present = self.remember(batch.graph)
        start = torch.full_like(batch.ids[:, :1], START_ID)
        x = self.embed(torch.cat([start, batch.ids[:, :-1]], 1))
        for layer, own in zip(self.layers, remembered, strict=True):
            x, _ = layer(x, own, present)
        return self.read(x)

    def write(self, g: GraphBatch) -> Int[Tensor, "b 60"]:
        """One greedy decode: each time the likeliest token of those that the grammar allows; nothing is taken back."""
        remembered, present = self.remember(g)
        last = torch.full((len(g.present), 1), START_ID, dtype=torch.int64, device=g.present.device)
        past: list[tuple[Tensor, Tensor] | None] = [None] * len(self.layers)
        seen = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=g.present.device)
        written: list[Tensor] = []
        for place in range(MOST_TOKENS):
            x = self.embed(last, place)
            for number, (layer, own) in enumerate(zip(self.layers, remembered, strict=True)):
                x, past[number] = layer(x, own, present, past[number], seen if place else None)
            before = torch.cat(written, 1).cpu().numpy() if written else np.zeros((len(last), 0), np.int64)
            allowed = torch.from_numpy(legal(before)).to(last.device)[:, None]
            last = self.read(x, place).masked_fill(~allowed, -torch.inf).argmax(-1)
            written.append(last)
        return torch.cat(written, 1)


def listing_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Sum of the cross-entropy of each token that is not padding."""
    return F.cross_entropy(logits.flatten(0, 1).float(), ids.flatten(), ignore_index=0, reduction="sum")


def parts_loss(model: nn.Module, parts: Sequence[ListingBatch]) -> Tensor:
    """Mean cross-entropy over all tokens of a batch's parts."""
    total = torch.stack([listing_loss(model(part), part.ids) for part in parts]).sum()
    return total / sum(int((part.ids != 0).sum()) for part in parts)


class ListingDecoder:
    """A trained network that writes listings."""

    def __init__(self, config: ListingConfig, network: ListingNetwork | None = None, history: History | None = None):
        self.config = config
        if network is None:
            with torch.random.fork_rng():
                torch.manual_seed(config.training.seed)
                network = ListingNetwork(config)
        self.network, self.history = network, history or History()
        self.facts: Mapping[str, Any] = {}

    @property
    def parameters(self) -> int:
        """Number of its own weights."""
        return sum(p.numel() for p in self.network.parameters())

    def fit(
        self, data: Path, seed: int, validation: Sequence[GraphExample], folder: Path | None, *, show: bool = False
    ) -> ListingDecoder:
        """Train on shards; killed and called again with the same folder, it goes on.

        Args:
            data: folder of the shards; those that are missing are drawn.
            seed: of the shards.
            validation: held-out examples by which the best weights are chosen.
        Raises:
            TaskError: if the folder holds another run.
        """
        if folder is not None and not bind(folder, self._decided(seed)):
            raise TaskError(f"{folder} holds a listing decoder of other settings: choose another folder, or delete it")
        held = [ListingBatch.of(some, self.config.settled) for some in _batches(validation, 64)]

        def evaluate(model: nn.Module) -> dict[str, float]:
            total = right = asked = 0.0
            for batch in held:
                logits = model(batch)
                own = batch.ids != 0
                total += float(listing_loss(logits, batch.ids))
                right += float(((logits.argmax(-1) == batch.ids) & own).sum())
                asked += float(own.sum())
            return {"loss": total / asked, "accuracy": right / asked}

        self.history = train(
            self.network,
            parts_loss,
            lambda step: self.batch(data, seed, step),
            self.config.training,
            evaluate=evaluate,
            folder=folder,
            description=f"listings, {self.config.reader}",
            progress=show,
        )
        return self

    def batch(self, data: Path, seed: int, step: int) -> list[ListingBatch]:
        """The parts of the batch of a step: a pure function of the configuration, the seed and the step."""
        config = self.config
        count, size = config.group, config.training.batch_size // config.part
        turn, place = divmod(step, count * SHARD // config.training.batch_size)
        begun = step - place  # a group has what was there when it began
        there = config.shards if config.first is None else min(config.shards, config.first + begun // config.growth)
        numbers = tuple((turn * count + i) % there for i in range(count))
        examples = _group(data, seed, numbers)
        parts = _parts(data, seed, numbers, config.part, config.training.seed, turn)
        chosen = parts[place * size : (place + 1) * size]
        return [ListingBatch.of([examples[i] for i in part], config.settled, whole=False) for part in chosen]

    def _decided(self, seed: int) -> bytes:
        settings = asdict(self.config)
        for name in MAY_CHANGE_ON_RESUME:
            del settings["training"][name]
        return json.dumps([settings, seed], sort_keys=True).encode()

    # -- answering ----------------------------------------------------------------------------------------------------

    def decode(self, graphs: Sequence[Graph], batch_size: int = 64) -> np.ndarray:
        """(n, 15, 5) programs written from weights alone, greedily (AR)."""
        answers = np.zeros((len(graphs), MOST_TOKENS), np.int64)
        device = next(self.network.parameters()).device
        self.network.eval()
        order = sorted(range(len(graphs)), key=lambda place: graphs[place].nodes)
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                some = order[start : start + batch_size]
                answers[some] = self.network.write(collate([graphs[i] for i in some]).to(device)).cpu().numpy()
        return lines_of(answers)

    def forced(self, examples: Sequence[GraphExample], batch_size: int = 64) -> np.ndarray:
        """(n, 15, 5) for each token the likeliest given the true ones before it (GT)."""
        found = []
        device = next(self.network.parameters()).device
        self.network.eval()
        with torch.inference_mode():
            for start in range(0, len(examples), batch_size):
                batch = ListingBatch.of(examples[start : start + batch_size], settled=False).to(device)
                found.append(self.network(batch).argmax(-1).cpu().numpy())
        lines = lines_of_forced(np.concatenate(found))
        truth = np.stack([example.lines for example in examples])
        return np.where(truth == 0, 0, lines)

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, facts: Mapping[str, Any] | None = None) -> Path:
        """Write `listing_decoder.safetensors` into a folder: tensors, and as metadata everything needed to use them."""
        record = {"config": asdict(self.config), "history": self.history.to_json(), "facts": dict(facts or {})}
        path = Path(folder) / MODEL_FILE
        write_model(path, KIND, self.network.state_dict(), record)
        return path

    @staticmethod
    def load(folder: str | Path) -> ListingDecoder:
        """Read a decoder that `save` wrote; nothing in the file is executed.

        Raises:
            NetworkError: if there is none, or it is damaged.
        """
        path = Path(folder) / MODEL_FILE if Path(folder).is_dir() else Path(folder)
        tensors, record = read_model(path, KIND, "weightspace decompiler listing")
        try:
            options = record["config"]
            config = ListingConfig(**{**options, "training": training_of(options["training"])})
            loaded = ListingDecoder(config, history=History(**record["history"]))
            loaded.network.load_state_dict(tensors)
            loaded.facts = record["facts"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise NetworkError(f"{path} is not a whole listing decoder: {error}") from error
        return loaded


def lines_of_forced(ids: Int[np.ndarray, "n 60"]) -> Int[np.ndarray, "n 15 5"]:
    """As `lines_of`, with nothing taken away behind an END: what follows was given."""
    lines = np.zeros((len(ids), MOST_LINES, FIELDS), np.int64)
    lines[:, :, :WRITTEN] = ids.reshape(len(ids), MOST_LINES, WRITTEN)
    lines[:, :, 1:WRITTEN] = (lines[:, :, 1:WRITTEN] - OPERATIONS).clip(0)
    lines[:, :, WRITTEN] = VARIABLE_IDS
    return lines


@lru_cache(1)
def _group(data: Path, seed: int, numbers: tuple[int, ...]) -> list[GraphExample]:
    """The examples of several shards; those that are missing are drawn."""
    return [one for number in numbers for one in read_shard(write_shard(data, "train", seed, number))]


@lru_cache(1)
def _parts(data: Path, seed: int, numbers: tuple[int, ...], size: int, shuffle: int, turn: int) -> np.ndarray:
    """(parts, size) places of a group's examples that are alike in lines, heads and nodes, parts in random order."""
    examples, order = _group(data, seed, numbers), np.random.default_rng([shuffle, turn])
    lines = length_of(np.stack([example.lines for example in examples]))
    heads = np.array([len(example.graph.head_layer) for example in examples])
    nodes = np.array([example.graph.nodes for example in examples]) + 8 * order.random(len(examples))
    kept = len(examples) - len(examples) % size
    return order.permutation(np.lexsort([nodes, heads, lines])[:kept].reshape(-1, size))


def _batches(examples: Sequence[GraphExample], size: int) -> list[list[GraphExample]]:
    ordered = sorted(examples, key=lambda example: example.graph.nodes)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


__all__ = ["END_ID", "ListingDecoder", "ListingNetwork", "ListingBatch", "listing_loss", "ids_of", "lines_of"]
