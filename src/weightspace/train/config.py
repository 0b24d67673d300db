"""How a model is trained: every choice that decides the result, and a few that do not."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal, get_args

Schedule = Literal["cosine", "linear", "constant"]
Precision = Literal["float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]

MAY_CHANGE_ON_RESUME = ("micro_batches", "checkpoint_every", "device", "compile", "tensorboard", "wandb", "mlflow")
"""Fields of a `TrainingConfig` that decide where and how a run is made, not what it learns."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How `weightspace.train.loop.train` trains a model with AdamW.

    Raises:
        ValueError: if a field is out of its range; the message names the field, what was given and what is allowed.
    """

    steps: int = 10_000
    """Updates of the weights, at least 1."""

    batch_size: int = 64
    """Examples per update, at least 1; the loop itself leaves it to the function that makes batches."""

    micro_batches: int = 1
    """Parts into which each batch is cut, at least 1: they go through the model one after the other, and their
    gradients are added, so that a large batch fits a small memory. Several processes share them."""

    learning_rate: float = 3e-4
    """Peak learning rate, above 0."""

    weight_decay: float = 1e-4
    """Decoupled weight decay of matrices per unit of learning rate, 0 or more."""

    warmup: float = 0.05
    """Fraction of the steps in which the learning rate rises from 0 to its peak, 0 to below 1."""

    schedule: Schedule = "cosine"
    """How the learning rate falls after the warm-up: along half a cosine, along a line, or not at all."""

    final_fraction: float = 0.1
    """Learning rate of the last step as a fraction of the peak, 0 to 1; a constant schedule ignores it."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay per step of AdamW's averages of the gradient and of its square, each 0 to below 1."""

    clip_norm: float | None = 1.0
    """Largest Euclidean norm of the whole gradient, above 0; longer ones are scaled down. None: no clipping."""

    precision: Precision = "float32"
    """Arithmetic of forward and backward passes; with bfloat16 the weights themselves stay float32."""

    compile: bool = False
    """Whether to run the model through torch.compile."""

    seed: int = 0
    """Seed of everything random in the loop, such as dropout, 0 or more."""

    evaluate_every: int = 500
    """Steps between evaluations, at least 1; the last step is always evaluated. The lowest validation loss wins."""

    checkpoint_every: int = 1_000
    """Steps between checkpoints, at least 1; the last step always writes one."""

    patience: int | None = None
    """Evaluations in a row without a better validation loss that end the run, at least 1. None: never."""

    device: Device = "auto"
    """Where to train; auto is the GPU where there is one."""

    tensorboard: bool = False
    """Whether to write TensorBoard events beside losses.csv."""

    # not in the repr, by which folders of older versions are tied to their settings
    wandb: bool = field(default=False, repr=False)
    """Whether to show the run in Weights & Biases too; WANDB_MODE=offline keeps it on this machine."""

    mlflow: bool = field(default=False, repr=False)
    """Whether to show the run in MLflow too, where MLFLOW_TRACKING_URI says."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "micro_batches", "evaluate_every", "checkpoint_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        # Comparisons are chained so that NaN, which compares false with everything, is refused too.
        self._require("learning_rate", 0 < self.learning_rate < inf, "above 0 and finite")
        self._require("weight_decay", 0 <= self.weight_decay < inf, "0 or more and finite")
        self._require("warmup", 0 <= self.warmup < 1, "0 to below 1, a fraction of the steps")
        self._require("final_fraction", 0 <= self.final_fraction <= 1, "0 to 1")
        two = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        self._require("betas", two, "two numbers, each 0 to below 1")
        clips = self.clip_norm is None or 0 < self.clip_norm < inf
        self._require("clip_norm", clips, "above 0 and finite, or None for no clipping")
        self._require("seed", 0 <= self.seed < 2**63, "0 to 2**63 - 1")
        patient = self.patience is None or self.patience >= 1
        self._require("patience", patient, "at least 1, or None to never stop early")
        for name, choice in (("schedule", Schedule), ("precision", Precision), ("device", Device)):
            allowed = get_args(choice)
            self._require(name, getattr(self, name) in allowed, "one of " + ", ".join(allowed))

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {allowed}")
