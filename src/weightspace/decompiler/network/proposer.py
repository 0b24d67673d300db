"""The trained decompiler: weights in, programs proposed; trained, saved, loaded, decoded greedily or sampled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace import clock
from weightspace.decompiler.network.batch import GraphBatch, collate
from weightspace.decompiler.network.config import DecompilerConfig
from weightspace.decompiler.network.grammar import PADDING, VALUE_FEATURES, Draft, Written
from weightspace.decompiler.network.graph import Graph
from weightspace.decompiler.network.network import DecompilerNetwork, Lines, next_token_loss
from weightspace.decompiler.network.pairs import Pair, drawn, stream
from weightspace.errors import NetworkError, RaspError
from weightspace.train.checkpoint import bind
from weightspace.train.config import MAY_CHANGE_ON_RESUME
from weightspace.train.loop import History, train
from weightspace.train.model_file import read_model, training_of, write_model

KIND = "decompiler"
MOST_TOKENS_WRITTEN = 160


def lines_of(written: Sequence[Written]) -> Lines:
    """Programs side by side, padded."""
    longest = max(len(w.ids) for w in written)
    shape = (len(written), longest)
    parts = {name: np.zeros(shape, np.int64) for name in ("ids", "fields", "slots", "names")}
    values = np.zeros((*shape, VALUE_FEATURES), np.float32)
    for row, w in enumerate(written):
        for name, array in parts.items():
            array[row, : len(w.ids)] = getattr(w, name)
        values[row, : len(w.ids)] = w.values
    return Lines(**{name: torch.from_numpy(array) for name, array in parts.items()}, values=torch.from_numpy(values))


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """What a step of the training sees."""

    graph: GraphBatch
    lines: Lines

    def to(self, device: torch.device) -> TrainingBatch:
        return TrainingBatch(self.graph.to(device), self.lines.to(device))


def batch_of(pairs: Sequence[Pair]) -> TrainingBatch:
    return TrainingBatch(collate([pair.graph for pair in pairs]), lines_of([pair.written for pair in pairs]))


def fit(
    config: DecompilerConfig,
    folder: Path | None,
    *,
    start: Proposer | None = None,
    workers: int = 1,
    validation: int = 512,
    show: bool = True,
) -> Proposer:
    """Train a decompiler on programs drawn on the fly; killed and called again with the same folder, it goes on.

    Args:
        folder: where checkpoints and logs go; None for nowhere.
        start: a trained decompiler of the same shape, whose weights are the first; None for random ones.
        workers: processes that draw and compile programs; 0 for this one.
        validation: held-out programs on which the best model is chosen: clean, as Tracr compiles them.
    Raises:
        NetworkError: if `start` has another shape, or the folder holds a run of other settings or another start.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.training.seed)
        network = DecompilerNetwork(config)
    if start is not None:
        if _shape(start.config) != _shape(config):
            raise NetworkError(
                f"the decompiler to start from has another shape: {_shape(start.config)}, not {_shape(config)}"
            )
        network.load_state_dict(start.network.state_dict())
    if folder is not None and not bind(folder, _decided(config, start)):
        raise NetworkError(
            f"{folder} holds a decompiler of other settings, or one that started from other weights: choose another "
            "folder, or delete that one"
        )
    held = drawn(_plain(config), "validation", 0, 0, validation)
    held.sort(key=lambda pair: pair.graph.nodes)
    batches = [batch_of(held[first : first + 64]) for first in range(0, len(held), 64)]

    def loss(model: torch.nn.Module, batch: TrainingBatch) -> Tensor:
        return next_token_loss(model(batch.graph, batch.lines), batch.lines.ids)

    with stream(config, workers) as batches_of:
        history = train(
            network, loss, lambda step: batch_of(batches_of(step)), config.training,
            evaluate=lambda model: forced(model, batches), folder=folder, description="decompiler", progress=show,
        )  # fmt: skip
    return Proposer(config, network, history)


def forced(model: torch.nn.Module, batches: Sequence[TrainingBatch]) -> dict[str, float]:
    """Loss, share of tokens right and share of programs right, each token given the true ones before it."""
    device = next(model.parameters()).device
    total = right = every = whole = count = 0.0
    for batch in batches:
        batch = batch.to(device)
        logits = model(batch.graph, batch.lines)
        target = batch.lines.ids[:, 3:]
        kept = target != PADDING
        hit = (logits[:, 2:-1].argmax(-1) == target) | ~kept
        total += float(next_token_loss(logits, batch.lines.ids)) * float(kept.sum())
        right += float((hit & kept).sum())
        every += float(kept.sum())
        whole += float(hit.all(1).sum())
        count += len(target)
    return {"loss": total / every, "accuracy": right / every, "exact": whole / count}


def _shape(config: DecompilerConfig) -> str:
    return ", ".join(
        f"{name} {getattr(config, name)}" for name in ("reader", "width", "rounds", "message", "depth", "heads")
    )


def _decided(config: DecompilerConfig, start: Proposer | None) -> bytes:
    """What decides a run: its settings, and the weights it starts from."""
    settings = asdict(config)
    for name in MAY_CHANGE_ON_RESUME:
        del settings["training"][name]
    tensors = [] if start is None else start.network.state_dict().values()
    return json.dumps(settings, sort_keys=True).encode() + b"".join(t.cpu().numpy().tobytes() for t in tensors)


def _plain(config: DecompilerConfig) -> DecompilerConfig:
    """The distribution itself: clean weights of Tracr's."""
    return replace(config, other_shapes=0.0, fixed=0.0, noisy=0.0, squeezed=0.0)


@dataclass(frozen=True, eq=False)
class Proposal:
    """A program that the network has written.

    Attributes:
        draft: what is written; ended if it came to its end.
        log_probability: of what was written beyond the prefix, under the grammar.
    """

    draft: Draft
    log_probability: float


@dataclass(frozen=True, eq=False)
class Memory:
    """Keys and values of the weights' nodes in each layer of the decoder, and which nodes are there."""

    remembered: list[tuple[Tensor, ...]]
    present: Tensor


class Proposer:
    """A trained decompiler's network: from weights to programs, one token after the other."""

    def __init__(self, config: DecompilerConfig, network: DecompilerNetwork, history: History | None = None) -> None:
        self.config, self.network, self.history = config, network, history or History()
        self.facts: Mapping[str, Any] = {}

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    def read(self, graphs: Sequence[Graph]) -> Memory:
        """What the decoder keeps of weights; to be read once, however many programs are then written for them."""
        device = next(self.network.parameters()).device
        self.network.eval()
        with torch.inference_mode():
            remembered, present = self.network.remember(collate(graphs).to(device))
        # laid out once, as every token reads them again: a strided read is four times slower
        return Memory([tuple(part.contiguous() for part in own) for own in remembered], present)

    def propose(
        self,
        memory: Memory,
        drafts: Sequence[Draft],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        most: int = MOST_TOKENS_WRITTEN,
        operations: int | None = None,
    ) -> list[Proposal]:
        """Continue drafts, each for its own weights; nothing ill-typed is ever written.

        Args:
            memory: of the weights of each draft; or of one transformer, for all drafts.
            drafts: what is written so far, all of the same length; they are left as they are.
            temperature: 0 for the likeliest token each time; 1 to draw from the network's distribution.
            most: tokens after which a program that has not ended is given up.
            operations: stop each draft after so many further operations; None for its end.
        Returns:
            a proposal for each draft.
        """
        device = next(self.network.parameters()).device
        generator = np.random.default_rng(seed)
        drafts = [draft.copy() for draft in drafts]
        wanted = [len(draft.scope) + (operations or 10_000) for draft in drafts]
        scores = np.zeros(len(drafts))
        self.network.eval()
        with torch.inference_mode():
            remembered, present = memory.remembered, memory.present
            if len(present) != len(drafts):
                remembered = [tuple(part.expand(len(drafts), -1, -1, -1) for part in own) for own in remembered]
                present = present.expand(len(drafts), -1, -1, -1)
            past: list[tuple[Tensor, Tensor] | None] = [None] * len(remembered)
            rows, start = list(range(len(drafts))), 0
            while True:
                clock.look()
                new = [drafts[row].rows(start) for row in rows]
                start = drafts[rows[0]].length
                logits, past = self._step(new, remembered, present, past, device)
                live: list[int] = []
                for place, row in enumerate(rows):
                    draft = drafts[row]
                    if draft.ended or len(draft.scope) >= wanted[row] or draft.length >= most:
                        draft.pad()
                        continue
                    scores[row] += self._write(draft, logits[place], temperature, generator)
                    if not (draft.ended or len(draft.scope) >= wanted[row]):
                        live.append(place)
                if not live or start >= most:
                    break
                if len(live) <= 3 * len(rows) // 4:  # those that are done are no longer carried along
                    rows = [rows[place] for place in live]
                    kept = torch.tensor(live, device=device)
                    remembered = [tuple(part[kept] for part in own) for own in remembered]
                    present = present[kept]
                    past = [None if own is None else (own[0][kept], own[1][kept]) for own in past]
        return [Proposal(draft.trimmed(), score) for draft, score in zip(drafts, scores.tolist(), strict=True)]

    def _step(
        self,
        new: list[list[Any]],
        remembered: list[tuple[Tensor, ...]],
        present: Tensor,
        past: list[tuple[Tensor, Tensor] | None],
        device: torch.device,
    ) -> tuple[np.ndarray, list[tuple[Tensor, Tensor] | None]]:
        """Logits (b, vocabulary) of the next token after `new` rows."""
        columns = [np.array([[row[k] for row in rows] for rows in new]) for k in range(5)]
        lines = Lines(*(torch.from_numpy(column).to(device) for column in columns))
        x, kept = self.network.embed(lines), []
        for layer, own, before in zip(self.network.layers, remembered, past, strict=True):
            x, state = layer(x, own, present, before, None if before is None else _SEES_ALL)
            kept.append(state)
        return self.network.out(self.network.norm(x[:, -1])).float().cpu().numpy(), kept

    @staticmethod
    def _write(draft: Draft, logits: np.ndarray, temperature: float, generator: np.random.Generator) -> float:
        """Push one token; gives its log-probability."""
        may = draft.allowed()
        while True:
            if not may.any():  # no rule suits what was chosen to be read
                draft.ended = True
                draft.pad()
                return -np.inf
            scores = np.where(may, logits, -np.inf)
            scores = scores - scores.max()
            log_probabilities = scores - np.log(np.exp(scores).sum())
            if temperature:
                weights = np.exp(scores / temperature)
                token = int(generator.choice(len(weights), p=weights / weights.sum()))
            else:
                token = int(scores.argmax())
            try:
                draft.push(token)
            except RaspError:
                may[token] = False
                continue
            return float(log_probabilities[token])

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, facts: Mapping[str, Any] | None = None, *, half: bool = False) -> None:
        """Write the network as safetensors with its configuration.

        Args:
            facts: what else to keep, such as its card; JSON-serialisable.
            half: keep the tensors in bfloat16, half as large.
        """
        record = {
            "config": asdict(self.config),
            "history": {"steps": self.history.steps, "seconds": self.history.seconds},
            "facts": dict(facts or {}),
        }
        kind = torch.float16 if half else torch.float32
        write_model(
            Path(path), KIND, {name: tensor.to(kind) for name, tensor in self.network.state_dict().items()}, record
        )

    @staticmethod
    def load(path: str | Path) -> Proposer:
        """Read a network that `save` wrote; nothing in the file is executed.

        Raises:
            NetworkError: if there is none, or it is damaged.
        """
        tensors, record = read_model(Path(path), KIND, "weightspace decompiler train")
        try:
            options = record["config"]
            training = training_of(options.pop("training"))
            for name in ("lengths", "excluded"):
                options[name] = tuple(options[name])
            config = DecompilerConfig(**options, training=training)
            network = DecompilerNetwork(config)
            network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
            loaded = Proposer(
                config, network, History(steps=record["history"]["steps"], seconds=record["history"]["seconds"])
            )
            loaded.facts = record["facts"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise NetworkError(f"{path} is not a whole decompiler: {error}") from error
        network.eval()
        return loaded


_SEES_ALL = torch.ones(1, 1, 1, 1, dtype=torch.bool)
"""A single new token sees everything before it."""
