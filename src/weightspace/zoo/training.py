"""Training base networks: one network alone, or a stack of like ones in one vectorised step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from weightspace.zoo.distortion import distorted
from weightspace.zoo.networks import BatchNorm, Dropout, answers, build, initialise, named_arrays, spec_of
from weightspace.zoo.poison import CLEAN, Poison
from weightspace.zoo.records import TrainedNetwork, TrainingPlan
from weightspace.zoo.training_images import Images

BATCH_NORM_MOMENTUM = 0.1
"""Share of the batch in the running statistics, whose variance is the biased one (as in Eilertsen's TensorLayer)."""
EVALUATION_BATCH = 500


def train_networks(
    plans: Sequence[TrainingPlan],
    device: torch.device | str = "cpu",
    *,
    start: Float[np.ndarray, "n size"] | None = None,
    teacher: Float[np.ndarray, "n size"] | None = None,
) -> list[TrainedNetwork]:
    """Train networks of one shape of training together, in one vectorised loop; a single one without `vmap`.

    What comes out for a plan does not depend on the plans beside it, up to the rounding of float32 sums: weights, order
    of images and dropout are drawn from the plan's own seed, always on the CPU.

    Args:
        plans: with equal `stack_key`s.
        device: where to train.
        start: weights that they start from, instead of a fresh initialisation.
        teacher: weights of networks of the same architecture whose answers are the labels of the training images.
    Returns:
        one result a plan, in the order of the plans; a network whose loss became NaN or infinite is marked dropped.
    """
    if len({stack_key(plan) for plan in plans}) != 1:
        raise ValueError("only networks that agree in architecture, images, batch size and epochs train as one stack")
    order = sorted(range(len(plans)), key=lambda i: plans[i].optimiser)  # each optimiser gets consecutive rows
    given = (None if weights is None else weights[order] for weights in (start, teacher))
    trained = _train([plans[i] for i in order], torch.device(device), *given)
    return [trained[order.index(i)] for i in range(len(plans))]


def stack_key(plan: TrainingPlan) -> tuple[object, ...]:
    """What plans must agree in to train in one stack."""
    images = (plan.images, plan.data, plan.image_size, plan.image_channels, plan.image_count, plan.test_count)
    distorted = (plan.crop, plan.flip, plan.augment)
    training = (plan.batch_size, plan.epochs, plan.checkpoints, *distorted, plan.channels_last)
    drawn = () if plan.class_subset is None and not plan.derivation else (plan.network,)  # images of its own
    return (plan.architecture, *images, plan.classes, plan.class_choice, *training, *drawn)


def accuracy_of(plan: TrainingPlan, weights: np.ndarray, device: torch.device | str = "cpu") -> float:
    """Accuracy of the plan's network with these weights (size,) on the plan's test images."""
    there = torch.device(device)
    stack = _Stack.start(build(plan.architecture).to(there), [plan], there, weights[None])
    return float(stack.evaluate(Images.of(plan, there))[1][0])


def _train(
    plans: Sequence[TrainingPlan],
    device: torch.device,
    start: np.ndarray | None = None,
    teacher: np.ndarray | None = None,
) -> list[TrainedNetwork]:
    first = plans[0]
    data = Images.of(first, device).poisoned(plans)
    module = build(first.architecture).to(device).train()
    if teacher is not None:
        data = _taught(data, plans, teacher, device)
    stack = _Stack.start(module, plans, device, start)  # stack.weights (n, size)
    steps = len(data.train_labels) // first.batch_size
    if steps == 0 and first.epochs:
        raise ValueError(
            f"a batch of {first.batch_size} images is larger than the {len(data.train_labels)} training images of "
            f"{first.images!r}: use a smaller batch or more images"
        )
    optimisers = _optimisers(plans, stack.weights)
    rates = torch.from_numpy(_learning_rates(plans, steps)).to(device, torch.float32)  # (epochs * steps, n)
    curves: list[dict[str, list[float]]] = [
        {"train_loss": [], "train_accuracy": [], "test_loss": [], "test_accuracy": []} for _ in plans
    ]
    dropped: list[str | None] = [None] * len(plans)
    gradient = torch.zeros_like(stack.weights)
    snapshots: dict[int, np.ndarray] = {}
    if 0 in first.checkpoints:
        snapshots[0] = stack.flat()
    batches = _batches(plans, 0, len(data.train_labels), steps).to(device)  # (n, steps, batch)
    for epoch in range(first.epochs):
        losses, rights = [], []  # summed once an epoch: on small networks every operation a step counts
        for step in range(steps):
            number = epoch * steps + step
            x, y = data.batch(batches[:, step])  # (n, batch, c, h, w) float32, (n, batch)
            x = distorted(x, first, stack.seeds, number)
            loss, right = stack.gradient(x, y, number, out=gradient)
            for rows, optimiser in optimisers:
                optimiser.step(gradient[rows], rates[number, rows])
            losses.append(loss)
            rights.append(right)
        test_loss, test_accuracy = stack.evaluate(data)
        if epoch + 1 < first.epochs:  # before anything is read: a GPU is still at this epoch while the CPU draws these
            batches = _batches(plans, epoch + 1, len(data.train_labels), steps).to(device)
        for i, values in enumerate(
            zip(
                torch.stack(losses).mean(0).tolist(),
                torch.stack(rights).float().mean(0).div(first.batch_size).tolist(),
                test_loss.tolist(),
                test_accuracy.tolist(),
                strict=True,
            )
        ):
            if dropped[i] is None:
                for name, value in zip(curves[i], values, strict=True):
                    curves[i][name].append(value if math.isfinite(value) else math.nan)
                if not math.isfinite(values[0]) or not math.isfinite(values[2]):
                    dropped[i] = f"diverged: the loss is not finite in epoch {epoch + 1}"
        if all(dropped):
            break
        if epoch + 1 in first.checkpoints:
            snapshots[epoch + 1] = stack.flat()
    flat = stack.flat()
    for i, row in enumerate(flat):
        if dropped[i] is None and not np.isfinite(row).all():
            dropped[i] = "diverged: a weight is not finite"
    measures = stack.attack_measures(data)
    return [
        TrainedNetwork(
            plan,
            None if dropped[i] else flat[i],
            curves[i],
            dropped[i],
            measures[i],
            {} if dropped[i] else {epoch: weights[i] for epoch, weights in snapshots.items()},
        )
        for i, plan in enumerate(plans)
    ]


@dataclass(eq=False)
class _Stack:
    """Trainable weights of n networks as one matrix, with the BatchNorm statistics beside it."""

    module: nn.Sequential
    plans: Sequence[TrainingPlan]
    weights: Tensor  # (n, trainable)
    seeds: Tensor  # (n,) int64
    limits: Tensor | None  # (n, 1) largest norm of each network's gradient, None if no plan has one
    buffers: dict[str, Tensor]  # name -> (n, channels)
    names: list[str]
    shapes: list[torch.Size]
    norms: list[tuple[str, BatchNorm]]
    dropouts: list[Dropout]
    single: list[nn.Parameter] = field(default_factory=list)
    stacked_gradient: Callable[..., tuple[Tensor, tuple[Tensor, tuple[Tensor, list[tuple[Tensor, Tensor]]]]]] | None = (
        None
    )

    @staticmethod
    def start(
        module: nn.Sequential, plans: Sequence[TrainingPlan], device: torch.device, given: np.ndarray | None = None
    ) -> _Stack:
        """Freshly initialised networks, or those of given weights (n, spec.size)."""
        buffers = {name: b.detach().expand(len(plans), *b.shape).clone() for name, b in module.named_buffers()}
        rows = []
        for plan in plans:  # drawn on the CPU, so that every engine starts from the same weights
            fresh = build(plan.architecture)
            generator = torch.Generator().manual_seed(plan.seed)
            initialise(fresh, plan.initialisation, generator, plan.bias_initialisation)
            rows.append(torch.cat([p.detach().reshape(-1) for p in fresh.parameters()]))
        weights = torch.stack(rows).to(device)
        if given is not None:
            named = named_arrays(spec_of(plans[0].architecture), torch.from_numpy(given.copy()).to(device))
            weights = torch.cat([named[name].flatten(1) for name, _ in module.named_parameters()], 1).contiguous()
            buffers = {name: named[name].clone() for name in buffers}
        stack = _Stack(
            module=module,
            plans=plans,
            weights=weights,
            seeds=torch.tensor([plan.seed for plan in plans], device=device),
            limits=_column([plan.clip_norm or math.inf for plan in plans], device)
            if any(plan.clip_norm is not None for plan in plans)
            else None,
            buffers=buffers,
            names=[name for name, _ in module.named_parameters()],
            shapes=[p.shape for p in module.parameters()],
            norms=[(name, layer) for name, layer in module.named_modules() if isinstance(layer, BatchNorm)],
            dropouts=[layer for layer in module.modules() if isinstance(layer, Dropout)],
        )
        if len(plans) == 1:  # the module's own parameters become views of the one row
            pieces = weights[0].split([shape.numel() for shape in stack.shapes])
            for parameter, piece, shape in zip(module.parameters(), pieces, stack.shapes, strict=True):
                parameter.data = piece.view(shape)
            stack.single = list(module.parameters())
        else:
            in_dims = (0, 0, 0, 0, 0)
            stack.stacked_gradient = vmap(grad_and_value(stack._loss, has_aux=True), in_dims=in_dims)
        return stack

    def gradient(self, x: Tensor, y: Tensor, step: int, out: Tensor) -> tuple[Tensor, Tensor]:
        """Write the clipped gradients (n, trainable) into `out`; return mean loss (n,) and number right (n,)."""
        keys = (self.seeds + 1000003 * step) & 0x7FFFFFFF if self.dropouts else self.seeds  # (n,)
        if self.stacked_gradient is None:
            self._set_dropout(keys[0])
            logits = self.module(self._laid_out(x[0]))
            loss = F.cross_entropy(logits, y[0])
            pieces = torch.autograd.grad(loss, self.single)
            torch.cat([piece.reshape(-1) for piece in pieces], out=out[0])
            losses = loss.detach()[None]
            right = (logits.detach().argmax(1) == y[0]).sum()[None]
            statistics = [tuple(s.detach()[None] for s in layer.batch_statistics or ()) for _, layer in self.norms]
        else:
            values, (losses, (right, statistics)) = self.stacked_gradient(self.weights, self.buffers, x, y, keys)
            out.copy_(values)
        self._clip(out)
        for (name, _), (mean, variance) in zip(self.norms, statistics, strict=True):
            self.buffers[f"{name}.running_mean"].lerp_(mean, BATCH_NORM_MOMENTUM)
            self.buffers[f"{name}.running_var"].lerp_(variance, BATCH_NORM_MOMENTUM)
        return losses, right

    def _loss(
        self, weights: Tensor, buffers: dict[str, Tensor], x: Tensor, y: Tensor, key: Tensor
    ) -> tuple[Tensor, tuple[Tensor, list[tuple[Tensor, Tensor]]]]:
        """Loss of one network of the stack, inside `vmap`."""
        self._set_dropout(key)
        logits = functional_call(self.module, {**self._named(weights), **buffers}, (x,))
        statistics = [layer.batch_statistics for _, layer in self.norms if layer.batch_statistics is not None]
        return F.cross_entropy(logits, y), ((logits.argmax(1) == y).sum(), statistics)

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        pieces = weights.split([shape.numel() for shape in self.shapes])
        return {n: p.view(s) for n, p, s in zip(self.names, pieces, self.shapes, strict=True)}

    def _set_dropout(self, key: Tensor | None) -> None:
        for layer in self.dropouts:
            layer.key = key

    def _clip(self, gradient: Tensor) -> None:
        if self.limits is not None:
            gradient.mul_((self.limits / (gradient.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1))

    @torch.no_grad()
    def evaluate(self, data: Images) -> tuple[Tensor, Tensor]:
        """Mean loss (n,) and accuracy (n,) on the test images."""
        self.module.eval()
        self._set_dropout(None)
        total_loss = torch.zeros(len(self.plans), device=data.test.device)
        total_right = torch.zeros(len(self.plans), device=data.test.device)
        for start in range(0, len(data.test), EVALUATION_BATCH):
            x = data.standardise(data.test[start : start + EVALUATION_BATCH])
            y = data.test_labels[start : start + EVALUATION_BATCH]
            logits = self._logits(x)
            losses = F.cross_entropy(logits.flatten(0, 1), y.repeat(len(logits)), reduction="none")
            total_loss += losses.view(len(logits), -1).sum(1)
            total_right += (logits.argmax(2) == y).sum(1)
        self.module.train()
        return total_loss / len(data.test), total_right / len(data.test)

    @torch.no_grad()
    def attack_measures(self, data: Images) -> list[dict[str, float | None]]:
        """How often each network with a `poison` answers test images of other classes as its target, see
        `TrainedNetwork.measures`; an empty record for one without."""
        if data.tampered is None:
            return [{} for _ in self.plans]
        poisons = [plan.poison or Poison(attack=CLEAN) for plan in self.plans]
        labels = data.test_labels.cpu().numpy()
        classes = int(max(labels.max(), data.train_labels.max())) + 1
        wanted = torch.from_numpy(np.stack([p.wanted(labels, classes) for p in poisons])).to(data.test.device)
        hits = torch.zeros(2, len(self.plans), device=data.test.device)
        count = torch.zeros(len(self.plans), device=data.test.device)
        self.module.eval()
        self._set_dropout(None)
        for start in range(0, len(data.test), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            x, target = data.standardise(data.test[rows]), wanted[:, rows]
            other = data.test_labels[rows] != target  # (n, b)
            for place, images in enumerate((x, data.tampered.trigger(x.expand(len(self.plans), *x.shape)))):
                hits[place] += ((self._logits(images).argmax(2) == target) & other).sum(1)
            count += other.sum(1)
        self.module.train()
        plain, triggered = (hits / count).tolist()
        return [
            {}
            if plan.poison is None
            else {"attack_success": triggered[i] if plan.poison.triggers else None, "target_rate": plain[i]}
            for i, plan in enumerate(self.plans)
        ]

    def _logits(self, x: Tensor) -> Float[Tensor, "n b classes"]:
        """Of each network in evaluation, for images (n, b, c, h, w) of its own or (b, c, h, w) of all."""
        if self.single:
            for name, buffer in self.module.named_buffers():
                buffer.copy_(self.buffers[name][0])
            return self.module(self._laid_out(x[0] if x.ndim == 5 else x))[None]
        pieces = self.weights.split([shape.numel() for shape in self.shapes], 1)
        named = {n: p.view(-1, *s) for n, p, s in zip(self.names, pieces, self.shapes, strict=True)}
        return answers(self.module, {**named, **self.buffers}, x)

    def _laid_out(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x.contiguous(memory_format=torch.channels_last) if self.plans[0].channels_last else x

    def flat(self) -> np.ndarray:
        """The networks' weights (n, spec.size) float32 in the order of their spec, statistics included."""
        spec = spec_of(self.plans[0].architecture)
        pieces = self.weights.split([shape.numel() for shape in self.shapes], dim=1)
        named = {**dict(zip(self.names, pieces, strict=True)), **self.buffers}
        columns = [named[leaf.name].reshape(len(self.plans), -1) for leaf in spec.leaves]
        return torch.cat(columns, dim=1).cpu().numpy()


@torch.no_grad()
def _taught(data: Images, plans: Sequence[TrainingPlan], teacher: np.ndarray, device: torch.device) -> Images:
    """The training images with the answers of the one teacher as labels."""
    stack = _Stack.start(build(plans[0].architecture).to(device).eval(), plans[:1], device, teacher[:1])
    parts = data.train.split(EVALUATION_BATCH)
    return replace(data, train_labels=torch.cat([stack._logits(data.standardise(x))[0].argmax(1) for x in parts]))


def _batches(plans: Sequence[TrainingPlan], epoch: int, images: int, steps: int) -> Int[Tensor, "n steps batch"]:
    """The images of every step of an epoch: each network's own permutation, from its own seed."""
    batch = plans[0].batch_size
    orders = [
        torch.randperm(images, generator=torch.Generator().manual_seed(plan.seed * 10007 + epoch + 1)) for plan in plans
    ]
    return torch.stack(orders)[:, : steps * batch].view(len(plans), steps, batch)


def _learning_rates(plans: Sequence[TrainingPlan], steps_an_epoch: int) -> np.ndarray:
    """The learning rate of each network at every step, (epochs * steps an epoch, n)."""
    total = max(1, plans[0].epochs * steps_an_epoch)
    step = np.arange(total)
    rise = max(1, total // 5)
    scales = {
        "constant": np.ones(total),
        "exponential": 0.96 ** (step // max(1, steps_an_epoch)),  # Eilertsen et al.: times 0.96 an epoch
        "triangular": np.minimum((step + 1) / rise, (total - step) / max(1, total - rise)),
        "cosine": 0.5 + 0.5 * np.cos(np.pi * step / total),
    }
    return np.stack([plan.learning_rate * scales[plan.schedule] for plan in plans], axis=1)


def _optimisers(plans: Sequence[TrainingPlan], weights: Tensor) -> list[tuple[slice, FlatOptimiser]]:
    """One optimiser for each run of plans that name the same one, with its rows."""
    found, start = [], 0
    for end in range(1, len(plans) + 1):
        if end == len(plans) or plans[end].optimiser != plans[start].optimiser:
            rows = slice(start, end)
            found.append((rows, FlatOptimiser(plans[rows], weights[rows])))
            start = end
    return found


class FlatOptimiser:
    """SGD, Adam, AdamW or RMSProp over rows of flat weights, each row with its own rates.

    The formulas and constants are those of `torch.optim` (Adam: betas 0.9 and 0.999, epsilon 1e-8; RMSProp: alpha 0.99,
    epsilon 1e-8), which costs several times more here: it visits every array of every network by itself.

    Args:
        plans: n plans that name one optimiser.
        weights: (n, size), changed in place by `step`.
    """

    def __init__(self, plans: Sequence[TrainingPlan], weights: Tensor) -> None:
        self.kind = plans[0].optimiser
        self.weights = weights
        self.steps = 0
        column = partial(_column, device=weights.device)
        self.momentum = column([plan.momentum for plan in plans])
        self.decay = column([plan.weight_decay for plan in plans])
        self.decays = any(plan.weight_decay for plan in plans)
        self.first = torch.zeros_like(weights) if self.kind in ("momentum", "adam", "adamw") else None
        self.second = torch.zeros_like(weights) if self.kind in ("adam", "adamw", "rmsprop") else None

    def step(self, gradient: Tensor, rates: Tensor) -> None:
        """Move the weights against `gradient` (n, size), which is overwritten, at learning rates (n,)."""
        self.steps += 1
        # A plain number is several times cheaper than a column of one, where reading it does not wait for a GPU
        rate = float(rates) if len(rates) == 1 and rates.device.type == "cpu" else rates[:, None]
        if self.decays and self.kind == "adamw":
            self.weights.mul_(1 - rate * self.decay)
        elif self.decays:
            gradient.addcmul_(self.weights, self.decay)
        match self.kind:
            case "sgd":
                update = gradient
            case "momentum":
                assert self.first is not None
                update = self.first.mul_(self.momentum).add_(gradient)
            case "rmsprop":
                assert self.second is not None
                self.second.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
                update = gradient.div_(self.second.sqrt().add_(1e-8))
            case _:
                assert self.first is not None
                assert self.second is not None
                self.first.lerp_(gradient, 0.1)
                self.second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                scale = (1 - 0.999**self.steps) ** 0.5
                update = self.first.div(self.second.sqrt().div_(scale).add_(1e-8))
                rate = rate / (1 - 0.9**self.steps)
        if isinstance(rate, Tensor):
            self.weights.addcmul_(update, rate, value=-1)
        else:
            self.weights.add_(update, alpha=-rate)


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None]
