"""Models whose heads are built and not trained: cheap, as various as one likes, and labelled by running them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightspace.transformers.loading import load_trained
from weightspace.transformers.trained import TrainedTransformer

MECHANISMS = ("place", "spread", "same", "near", "induction", "other", "random")
"""What a head is built to do, each with a strength and noise that are drawn:

- place: attends so many places back, whatever stands there; most often one
- spread: the same with a wide peak
- same: attends to its own token wherever it stands; near: only close by
- induction: attends to places into which an earlier head has moved its own token
- other: matches tokens by a random map, with nothing to do with being the same
- random: random matrices with a falling spectrum
"""
SHARES = (0.2, 0.12, 0.12, 0.12, 0.16, 0.1, 0.18)
LONGEST = 256


@dataclass(frozen=True)
class PlantedModel:
    """Sizes of a model and of the parts of its stream.

    Attributes:
        tokens: directions that hold the token; `moved` as many that hold what heads have moved, and one constant.
    """

    layers: int
    width: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    base: float
    tokens: int
    constant: float
    noise: float

    @property
    def config(self) -> dict[str, Any]:
        """Settings by TransformerLens's names."""
        return {
            "positional_embedding_type": "rotary",
            "rotary_base": self.base,
            "rotary_dim": self.head_size,
            "n_ctx": LONGEST,
        }

    @classmethod
    def drawn(cls, random: np.random.Generator) -> PlantedModel:
        """Any sizes from those of small models to a quarter of SmolLM2's width."""
        heads = int(random.choice((4, 6, 8)))
        width = int(random.choice((64, 96, 144)))
        return cls(
            layers=int(random.choice((2, 3, 4, 6))),
            width=width,
            heads=heads,
            key_heads=heads // int(random.choice((1, 2))),
            head_size=int(random.choice((16, 32, 64))),
            vocabulary=int(random.choice((48, 96, 160))),
            base=float(random.choice((1e3, 1e4, 1e5, 1e6))),
            tokens=int(width * random.uniform(0.25, 0.45)),
            constant=float(random.uniform(0.4, 1.5)),
            noise=float(random.uniform(0.02, 0.25)),
        )


def planted(seed: int, number: int) -> tuple[PlantedModel, TrainedTransformer]:
    """The model of a number: a pure function of both."""
    random = np.random.default_rng((seed, number, 7))
    model = PlantedModel.drawn(random)
    return model, _Builder(model, random).built()


class _Builder:
    """One model on its way: the parts of its stream, and which heads so far look at the last place."""

    def __init__(self, model: PlantedModel, random: np.random.Generator) -> None:
        self.model, self.random = model, random
        basis = np.linalg.qr(random.standard_normal((model.width, model.width)))[0]
        self.token = basis[: model.tokens]
        self.moved = basis[model.tokens : 2 * model.tokens]
        self.constant = basis[-1]
        self.looking: list[np.ndarray] = []  # where each such head has put the token: (tokens, width)
        pairs = model.head_size // 2
        self.frequencies = model.base ** (-np.arange(pairs) / pairs)

    def built(self) -> TrainedTransformer:
        model, random = self.model, self.random
        content = random.standard_normal((model.vocabulary, model.tokens)) @ self.token
        content *= math.sqrt(model.tokens) / np.linalg.norm(content, axis=1, keepdims=True)
        embed = content + model.constant * math.sqrt(model.tokens) * self.constant
        arrays = {"embed.W_E": embed, "unembed.W_U": content.T / model.tokens, "ln_final.w": np.ones(model.width)}
        group = model.heads // model.key_heads
        for number in range(model.layers):
            at, new = f"blocks.{number}", list[np.ndarray]()
            queries, keys, values, outputs = [], [], [], []
            for _ in range(model.key_heads):
                kind = str(random.choice(MECHANISMS, p=SHARES))
                if kind == "induction" and not self.looking:
                    kind = "place"
                query, key, back = self._scores(kind)
                value, output, where = self._written(kind)
                keys.append(self._noisy(key))
                values.append(self._noisy(value))
                for _ in range(group):  # heads of a group do the same with other strength
                    strength = math.exp(random.normal(0, 0.5))
                    queries.append(self._noisy(query * strength))
                    outputs.append(self._noisy(output.T).T * math.exp(random.normal(0, 0.3)))
                if back == 1:
                    new.append(where)
            self.looking += new
            mark = "_" if group > 1 else ""
            named = (("W_Q", queries), (f"{mark}W_K", keys), (f"{mark}W_V", values), ("W_O", outputs))
            arrays |= {f"{at}.attn.{name}": np.stack(each) for name, each in named}
            arrays[f"{at}.ln1.w"] = np.exp(random.normal(0, 0.2, model.width))
            # what reads the stream is built for a gain of one
            for name in ("W_Q", f"{mark}W_K", f"{mark}W_V"):
                arrays[f"{at}.attn.{name}"] /= arrays[f"{at}.ln1.w"][:, None]
        plain = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        return load_trained(plain, config=model.config)

    def _noisy(self, matrix: np.ndarray) -> np.ndarray:
        """A matrix (width, size) with random numbers whose spectrum falls."""
        random, size = self.random, matrix.shape[1]
        spectrum = (1 + np.arange(size)) ** -random.uniform(0.2, 1.2)
        noise = random.standard_normal(matrix.shape) @ (spectrum[:, None] * random.standard_normal((size, size)))
        scale = np.linalg.norm(matrix) if matrix.any() else math.sqrt(size)
        return matrix + self.model.noise * math.exp(random.normal(0, 0.5)) * noise * scale / np.linalg.norm(noise)

    def _scores(self, kind: str) -> tuple[np.ndarray, np.ndarray, int | None]:
        """Queries and keys (width, size), and how many places back a head looks, or None."""
        random, model = self.random, self.model
        none = np.zeros((model.width, model.head_size))
        if kind in ("place", "spread"):
            back = int(random.choice((1, 1, 1, 1, 0, 2, 3, 4)))
            return *self._by_place(back, kind == "spread"), back if kind == "place" else None
        if kind == "same":
            return *self._by_content(self.token, self.token, slow=True, here=bool(random.random() < 0.4)), None
        if kind == "near":
            query, key = self._by_content(self.token, self.token, slow=False)
            place, other = self._by_place(int(random.choice((0, 1))), True)
            share = random.uniform(0.2, 0.8)
            return query + share * place, key + share * other, None
        if kind == "induction":
            read = self.looking[int(random.integers(len(self.looking)))]
            return *self._by_content(self.token, read, slow=True, times=math.exp(random.uniform(0.5, 2.5))), None
        if kind == "other":
            turn = np.linalg.qr(random.standard_normal((model.tokens, model.tokens)))[0]
            return *self._by_content(self.token, turn @ self.token, slow=bool(random.random() < 0.5)), None
        return none, none, None

    def _weights(self, low: float, high: float) -> np.ndarray:
        """How much each rotary pair counts: those with wavelengths in a range, softly."""
        waves = np.log(2 * np.pi / self.frequencies)
        inside = 1 / (1 + np.exp(-3 * (waves - math.log(low)))) / (1 + np.exp(-3 * (math.log(high) - waves)))
        return (inside + 1e-3) * np.exp(self.random.normal(0, 0.5, len(waves)))

    def _by_place(self, back: int, wide: bool) -> tuple[np.ndarray, np.ndarray]:
        """Constant queries and keys whose phases agree `back` places apart."""
        random, model = self.random, self.model
        weights = self._weights(12.0, 120.0) if wide else self._weights(2.0, 40 * math.exp(random.normal(0, 0.5)))
        # along the constant direction scores have to reach some units at the peak
        reach = random.uniform(3, 14) * model.head_size**0.5 / weights.sum()
        share = model.constant**2 / (1 + model.constant**2) * model.width
        length = np.sqrt(reach * weights / share)
        start = random.uniform(0, 2 * np.pi, len(weights))
        query, key = np.zeros((2, model.width, model.head_size))
        half = len(weights)
        for place, angle in ((query, start - back * self.frequencies), (key, start)):
            place[:, :half] = self.constant[:, None] * length * np.cos(angle)
            place[:, half:] = self.constant[:, None] * length * np.sin(angle)
        return query, key

    def _by_content(
        self, own: np.ndarray, other: np.ndarray, *, slow: bool, here: bool = True, times: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Queries and keys that project two parts of the stream onto the same numbers of the head.

        Args:
            here: if not, fast pairs take away from the place itself what slow ones give to all.
        """
        random, model = self.random, self.model
        weights = self._weights(80 * math.exp(random.normal(0, 0.5)), 1e12) if slow else self._weights(2.0, 60.0)
        both = np.sqrt(np.concatenate((weights, weights)))
        project = random.standard_normal((model.tokens, model.head_size)) * both
        units = np.square(project).sum(1).mean()  # what a token scores with itself
        share = model.width / (1 + model.constant**2) / model.tokens
        strength = times * random.uniform(4, 16) * model.head_size**0.5 / (units * share * model.tokens)
        query, key = (project.T @ own).T * math.sqrt(strength), (project.T @ other).T * math.sqrt(strength)
        if not here:
            fast = np.sqrt(np.tile(self._weights(2.0, 30.0), 2))
            against = random.standard_normal((model.tokens, model.head_size)) * fast
            against *= math.sqrt(random.uniform(0.5, 1.5) * strength * units / np.square(against).sum(1).mean())
            query, key = query + (against.T @ own).T, key - (against.T @ other).T
        return query, key

    def _written(self, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values and outputs, (width, size) and (size, width), and where the token was put, (tokens, width)."""
        random, model = self.random, self.model
        project = np.linalg.qr(random.standard_normal((max(model.tokens, model.head_size), model.head_size)))[0]
        project = project[: model.tokens]
        target = self.moved if kind in ("place", "spread") else self.token
        if kind == "random" or random.random() < 0.25:
            target = random.standard_normal((model.tokens, model.width)) / math.sqrt(model.width)
        sign = -1.0 if random.random() < 0.15 else 1.0
        if kind in ("place", "spread"):
            turn = np.linalg.qr(random.standard_normal((model.tokens, model.tokens)))[0]
            target = turn @ target
        size = random.uniform(0.8, 2.5) if kind in ("place", "spread") else random.uniform(0.3, 1.5)
        return self.token.T @ project, sign * size * project.T @ target, target
