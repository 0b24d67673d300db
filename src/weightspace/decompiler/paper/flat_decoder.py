"""The paper's decompiler: chunks of weights in, a program out line by line, by one causal transformer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.decompiler.paper.flat_config import FlatConfig
from weightspace.decompiler.paper.listing import (
    CLASSES,
    FIELDS,
    MATRICES,
    MOST_LAYERS,
    START_ID,
    Chunking,
    Chunks,
    Listing,
    ended,
)
from weightspace.decompiler.paper.listings import Batches
from weightspace.errors import NetworkError, TaskError
from weightspace.metamodels.embed import squash
from weightspace.rasp.tokens import MOST_LINES
from weightspace.train.checkpoint import bind
from weightspace.train.config import MAY_CHANGE_ON_RESUME
from weightspace.train.loop import History, choose_device, train
from weightspace.train.model_file import read_model, training_of, write_model

MODEL_FILE = "flat_decoder.safetensors"
KIND = "flat decoder"

Past = tuple[Tensor, Tensor]
"""Keys and values (b, heads, t, size) of what stands before."""


@dataclass(frozen=True, eq=False)
class FlatBatch:
    """Examples side by side.

    Attributes:
        values: (b, t, size) float32 chunks, zero where an example has fewer than the largest.
        kinds, layers, places: (b, t) int64, see `Chunks`.
        counts: (b,) int64 chunks of each example.
        lines: (b, 15, 5) int64 programs.
    """

    values: Tensor
    kinds: Tensor
    layers: Tensor
    places: Tensor
    counts: Tensor
    lines: Tensor

    @staticmethod
    def of(chunks: Sequence[Chunks], lines: Sequence[np.ndarray] | None, size: int) -> FlatBatch:
        """Examples of which the programs are all padding unless `lines` has them."""
        counts = np.array([len(one) for one in chunks])
        values = np.zeros((len(chunks), counts.max(), size), dtype=np.float32)
        encodings = np.zeros((3, *values.shape[:2]), dtype=np.int64)
        for row, one in enumerate(chunks):
            values[row, one.rows, one.columns] = one.values
            encodings[:, row, : len(one)] = one.kinds, one.layers, one.places
        written = np.zeros((len(chunks), MOST_LINES, FIELDS), np.int64) if lines is None else np.stack(lines)
        parts = (values, *encodings, counts, written)
        return FlatBatch(*(torch.from_numpy(part) for part in parts))

    @staticmethod
    def of_listings(listings: Sequence[Listing], size: int) -> FlatBatch:
        return FlatBatch.of([one.chunks for one in listings], [one.lines for one in listings], size)

    def to(self, device: torch.device) -> FlatBatch:
        return FlatBatch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


class CausalLayer(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), each token seeing itself and those before it, as GPT-2's."""

    def __init__(self, width: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.qkv, self.out, self.first, self.second):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():  # what writes into the stream starts smaller, so that its variance does not grow
            self.out.weight /= (2 * depth) ** 0.5
            self.second.weight /= (2 * depth) ** 0.5

    def forward(
        self, x: Float[Tensor, "b t d"], past: Past | None = None, mask: Tensor | None = None
    ) -> tuple[Float[Tensor, "b t d"], Past]:
        """Args: past: of what stands before x; mask: (b, 1, t, past + t) what is seen, None for causal."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(b, t, d)))
        x = x + self.dropout(self.second(F.gelu(self.first(self.norm2(x)), approximate="tanh")))
        return x, (k, v)


class FlatNetwork(nn.Module):
    """Chunks and the lines before in, logits of the five fields of the next line out.

    A chunk is embedded linearly; what matrix and what layer it is of, an encoding of its own, is concatenated, and a
    learnt encoding of its place in the matrix is added. A line of a program is one token, the sum of the embeddings of
    its five fields; so is the start, the line PROGRAM_START. Weights go through the inverse hyperbolic sine first (the
    paper does not say how it scales them; Tracr's reach from 1 to some 10,000).
    """

    def __init__(self, config: FlatConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.chunk = nn.Linear(config.chunking.size, width - config.encoding)
        self.kind, self.layer = (
            nn.Embedding(len(MATRICES), config.encoding),
            nn.Embedding(MOST_LAYERS, config.encoding),
        )
        self.place = nn.Embedding(config.chunking.most, width)
        self.fields = nn.ModuleList(nn.Embedding(classes, width) for classes in CLASSES)
        self.line = nn.Embedding(MOST_LINES, width)
        self.layers = nn.ModuleList(
            CausalLayer(width, config.heads, config.depth, config.dropout) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, classes) for classes in CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)
        for head in self.heads:
            assert isinstance(head, nn.Linear)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def embed_chunks(self, batch: FlatBatch) -> Float[Tensor, "b t d"]:
        encoding = self.kind(batch.kinds) + self.layer(batch.layers)
        return torch.cat([self.chunk(squash(batch.values)), encoding], -1) + self.place(batch.places)

    def embed_lines(self, lines: Int[Tensor, "b n 5"], first: int = 0) -> Float[Tensor, "b n d"]:
        """Lines of which the first is number `first`; number 0 is the start."""
        numbers = torch.arange(first, first + lines.shape[1], device=lines.device)
        embedded = [table(field) for table, field in zip(self.fields, lines.unbind(-1), strict=True)]
        return torch.stack(embedded).sum(0) + self.line(numbers)

    def read(self, x: Float[Tensor, "b n d"]) -> tuple[Tensor, ...]:
        """Logits (b, n, classes) of each field."""
        x = self.norm(x)
        return tuple(head(x) for head in self.heads)

    def forward(self, batch: FlatBatch) -> tuple[Tensor, ...]:
        """Logits (b, 15, classes) of each field of each line, given the weights and the true lines before it.

        In each example the start follows right after its last chunk, and what fills up the batch comes last, where
        nothing sees it: so no mask is needed, and an example's answer does not depend on the others'.
        """
        written = torch.cat([_starts(len(batch.lines), batch.lines.device), batch.lines[:, :-1]], 1)
        x = torch.cat([self.embed_chunks(batch), self.embed_lines(written)], 1)  # (b, t + 15, d)
        t = batch.values.shape[1]
        place = torch.arange(x.shape[1], device=x.device)
        counts = batch.counts[:, None]
        order = torch.where(place < counts, place, torch.where(place < counts + MOST_LINES, place - counts + t, 0))
        x = x.gather(1, order[..., None].expand_as(x))
        for layer in self.layers:
            x, _ = layer(x)
        own = counts + torch.arange(MOST_LINES, device=x.device)
        return self.read(x.gather(1, own[..., None].expand(-1, -1, x.shape[-1])))

    def write(self, batch: FlatBatch) -> Int[Tensor, "b 15 5"]:
        """Programs written line by line, the likeliest token of each field; keys and values of what stands are kept.

        The five fields of a line are chosen at once, each by itself, as the paper's summed loss has it.
        """
        b, t = batch.values.shape[:2]
        x, pasts = self.embed_chunks(batch), []
        for layer in self.layers:
            x, past = layer(x)
            pasts.append(past)
        seen = torch.arange(t, device=x.device) < batch.counts[:, None]  # (b, t)
        line, lines = _starts(b, x.device), []
        for number in range(MOST_LINES):
            seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
            x = self.embed_lines(line, number)
            for place, layer in enumerate(self.layers):
                x, pasts[place] = layer(x, pasts[place], seen[:, None, None])
            line = torch.stack([logits.argmax(-1) for logits in self.read(x)], -1)  # (b, 1, 5)
            lines.append(line)
        return torch.cat(lines, 1)


def _starts(count: int, device: torch.device) -> Int[Tensor, "b 1 5"]:
    starts = torch.zeros(count, 1, FIELDS, dtype=torch.int64, device=device)
    starts[..., 0] = START_ID
    return starts


def instruction_loss(logits: Sequence[Tensor], lines: Int[Tensor, "b 15 5"]) -> Tensor:
    """The cross-entropy of an instruction: summed over its fields (Langosco et al., Figure 9), the mean over lines.

    Lines are those of the programs and END, of which only the operation counts; padding counts nothing.
    """
    total = torch.zeros((), device=lines.device)
    for values, truth in zip(logits, lines.unbind(-1), strict=True):
        total = total + F.cross_entropy(values.flatten(0, 1).float(), truth.flatten(), ignore_index=0, reduction="sum")
    return total / (lines[..., 0] != 0).sum()


class FlatDecoder:
    """The paper's decompiler, trained or read from a file.

    Args:
        config: its reading of weights, its size and its training.
    """

    def __init__(self, config: FlatConfig, network: FlatNetwork | None = None, history: History | None = None) -> None:
        self.config = config
        if network is None:
            with torch.random.fork_rng():
                torch.manual_seed(config.training.seed)
                network = FlatNetwork(config)
        self.network, self.history = network, history or History()
        self.facts: Mapping[str, Any] = {}

    @property
    def parameters(self) -> int:
        """Number of its own weights."""
        return sum(p.numel() for p in self.network.parameters())

    # -- learning -----------------------------------------------------------------------------------------------------

    def fit(
        self,
        batches: Batches,
        validation: Sequence[Listing],
        folder: Path | None = None,
        *,
        data: str = "",
        show: bool = False,
    ) -> FlatDecoder:
        """Train on the batches of each step, keep the weights with the lowest loss on `validation`.

        Args:
            folder: where checkpoints and logs go, so that a killed run goes on when it is called again.
            data: what the batches are, such as the zoo's name: a folder does not go on with another.
        Raises:
            TaskError: if there is nothing to validate on, or the folder holds another run.
        """
        if not validation:
            raise TaskError("there must be programs to validate on: draw some of the validation split")
        size = self.config.chunking.size
        if folder is not None:
            self._bind(folder, data, validation)
        ordered = sorted(validation, key=lambda one: len(one.chunks))
        held = [FlatBatch.of_listings(ordered[i : i + 64], size) for i in range(0, len(ordered), 64)]

        def loss(model: nn.Module, batch: FlatBatch) -> Tensor:
            return instruction_loss(model(batch), batch.lines)

        def evaluate(model: nn.Module) -> dict[str, float]:
            device = next(self.network.parameters()).device
            total = lines = right = asked = 0.0
            for batch in held:
                batch = batch.to(device)
                logits = model(batch)
                own = float((batch.lines[..., 0] != 0).sum())
                total, lines = total + float(instruction_loss(logits, batch.lines)) * own, lines + own
                guess = torch.stack([values.argmax(-1) for values in logits], -1)
                right += float(((guess == batch.lines) & (batch.lines != 0)).sum())
                asked += float((batch.lines != 0).sum())
            return {"loss": total / lines, "accuracy": right / asked}

        self.history = train(
            self.network,
            loss,
            lambda step: FlatBatch.of_listings(batches(step), size),
            self.config.training,
            evaluate=evaluate,
            folder=folder,
            description="training the flat decoder",
            progress=show,
        )
        return self

    def _bind(self, folder: Path, data: str, validation: Sequence[Listing]) -> None:
        """Tie a folder to this configuration and these data: its checkpoint must not go on with others."""
        settings = asdict(self.config)
        for name in MAY_CHANGE_ON_RESUME:
            del settings["training"][name]
        facts = json.dumps([settings, data], sort_keys=True).encode() + b"".join(one.key for one in validation)
        if not bind(folder, facts):
            raise TaskError(
                f"{folder} holds a flat decoder of other programs or settings: choose another folder, or delete that"
            )

    # -- answering ----------------------------------------------------------------------------------------------------

    def decode(self, chunks: Sequence[Chunks], batch_size: int = 64) -> np.ndarray:
        """(n, 15, 5) programs written from weights alone (AR); what stands behind an END is padding.

        Raises:
            TaskError: if weights are none, not finite, or of too many chunks.
        """
        return ended(self._answers(chunks, None, batch_size))

    def forced(self, listings: Sequence[Listing], batch_size: int = 64) -> np.ndarray:
        """(n, 15, 5) for each line the likeliest tokens given the true lines before it (GT).

        Behind the true END, which is given, stands padding.
        """
        lines = [one.lines for one in listings]
        answers = self._answers([one.chunks for one in listings], lines, batch_size)
        return np.where(np.reshape(lines, answers.shape) == 0, 0, answers)

    def _answers(self, chunks: Sequence[Chunks], lines: Sequence[np.ndarray] | None, batch_size: int) -> np.ndarray:
        most = self.config.chunking.most
        for number, one in enumerate(chunks):
            if not 0 < len(one) <= most or not np.isfinite(one.values).all():
                what = f"{len(one)} chunks" if np.isfinite(one.values).all() else "a weight that is not finite"
                raise TaskError(f"example {number} has {what}: give 1 to {most} chunks of finite weights")
        device = choose_device(self.config.training.device)
        self.network.to(device).eval()
        order = sorted(range(len(chunks)), key=lambda place: len(chunks[place]))
        answers = np.zeros((len(chunks), MOST_LINES, FIELDS), dtype=np.int64)
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                some = order[start : start + batch_size]
                truth = None if lines is None else [lines[place] for place in some]
                batch = FlatBatch.of([chunks[place] for place in some], truth, self.config.chunking.size).to(device)
                if lines is None:
                    found = self.network.write(batch)
                else:
                    found = torch.stack([logits.argmax(-1) for logits in self.network(batch)], -1)
                answers[some] = found.cpu().numpy()
        return answers

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, facts: Mapping[str, Any] | None = None) -> Path:
        """Write `flat_decoder.safetensors` into a folder: tensors, and as metadata everything needed to use them.

        Args:
            facts: what else to keep, such as the figures; JSON-serialisable.
        """
        record = {
            "config": asdict(self.config),
            "history": self.history.to_json(),
            "facts": dict(facts or {}),
        }
        path = Path(folder) / MODEL_FILE
        write_model(path, KIND, self.network.state_dict(), record)
        return path

    @staticmethod
    def load(folder: str | Path) -> FlatDecoder:
        """Read a decoder that `save` wrote; nothing in the file is executed.

        Raises:
            NetworkError: if there is none, or it is damaged.
        """
        path = Path(folder) / MODEL_FILE if Path(folder).is_dir() else Path(folder)
        tensors, record = read_model(path, KIND, "weightspace decompiler train")
        try:
            options = record["config"]
            training = training_of(options.pop("training"))
            chunking = Chunking(**options.pop("chunking"))
            config = FlatConfig(**options, chunking=chunking, training=training)
            loaded = FlatDecoder(config, history=History(**record["history"]))
            loaded.network.load_state_dict(tensors)
            loaded.facts = record["facts"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise NetworkError(f"{path} is not a whole flat decoder: {error}") from error
        return loaded
