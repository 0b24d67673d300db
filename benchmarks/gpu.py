"""What a GPU makes of the three heavy paths: base networks in stacks, the meta-model, the decompiler with its programs.

`python -m benchmarks.gpu` is made to take under eight minutes on one GPU; `--small` runs all of it on the CPU in less
than one, which says nothing but that it runs. It downloads nothing, and of what the package depends on it needs torch,
numpy, jaxtyping and safetensors alone: images are noise, programs and weights are drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import record
from benchmarks.zoo import plain_loop
from weightspace.decompiler.network.config import DecompilerConfig
from weightspace.decompiler.network.network import DecompilerNetwork, next_token_loss
from weightspace.decompiler.network.pairs import GROUP, stream
from weightspace.decompiler.network.proposer import TrainingBatch, batch_of
from weightspace.files.workers import cores
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.contract import Target
from weightspace.metamodels.embed import TokenBatch
from weightspace.metamodels.learner import Answering
from weightspace.metamodels.metamodel import Transformer
from weightspace.train.config import TrainingConfig
from weightspace.train.loop import to_device, train
from weightspace.weights.slots import Room
from weightspace.zoo.engine import StackedEngine
from weightspace.zoo.plan import plan
from weightspace.zoo.recipes import zoo_recipe
from weightspace.zoo.records import TrainingPlan
from weightspace.zoo.training import stack_key

MINUTES = {"zoo": 3.0, "metamodel": 5.0}
"""Minutes after the start in which nothing more of a kind is begun; the decompiler takes less than two more."""
RECIPES_IMAGES = 50_000
"""Training images of the recipes' own sets, or a little more."""
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "V100": 125e12,
    "T4": 65e12,
}
"""Dense 16-bit operations a second with tensor cores, as NVIDIA's data sheets have them, by a part of a device's name:
the first that occurs in it counts."""


@dataclass(frozen=True)
class Sizes:
    """How large everything is that is measured.

    Attributes:
        seconds: how long each figure is measured, about.
        images: training images of the synthetic set; a fifth as many are for testing.
        zoos: recipe, networks in a stack, one figure each.
        metamodels: width, depth, heads, chunk, tokens and batch of each.
        decompiler: what is trained on programs drawn on the fly.
        compiled: whether the meta-model is measured under torch.compile too.
    """

    seconds: float
    images: int
    zoos: tuple[tuple[str, int], ...]
    metamodels: tuple[tuple[int, int, int, int, int, int], ...]
    decompiler: DecompilerConfig
    compiled: bool


FULL = Sizes(
    seconds=12.0,
    images=20_000,
    zoos=(
        ("cnn-s-paper", 512),
        ("backdoors-paper", 32),
        ("smallcnn-paper", 512),
        ("cnn-s-paper", 64),
        ("backdoors-paper", 8),
        ("cnn-s-paper", 2048),
    ),
    # the paper's on its backdoor networks; the same on 1,024 small ones; one of GPT-2 medium's size
    metamodels=((256, 6, 4, 1024, 72, 64), (256, 6, 4, 128, 64, 1024), (1024, 24, 16, 1024, 256, 32)),
    decompiler=DecompilerConfig(
        width=384,
        rounds=6,
        message=32,
        depth=6,
        heads=6,
        most_nodes=1_000,
        training=TrainingConfig(steps=100_000, batch_size=128, precision="bfloat16"),
    ),
    compiled=True,
)
SMALL = Sizes(
    seconds=0.3,
    images=200,
    zoos=(("cnn-s-paper", 4),),
    metamodels=((32, 1, 2, 16, 8, 4),),
    decompiler=DecompilerConfig(
        width=16,
        rounds=1,
        message=4,
        depth=1,
        heads=2,
        lengths=(4,),
        training=TrainingConfig(steps=100_000, batch_size=4),
    ),
    compiled=False,
)


def wait(device: torch.device) -> None:
    """Until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# -- base networks --------------------------------------------------------------------------------------------------


def noise_images(folder: Path, count: int) -> None:
    """A set of 32x32 pictures of noise, in the form of `cifar10-subset`."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", count), ("test", count // 5)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(n) % 10
    np.savez(folder / "cifar10_lossless_subset.npz", **arrays)


def like_plans(recipe: str, count: int, images: Path, size: Sizes) -> list[TrainingPlan]:
    """`count` plans of a recipe on pictures of noise that all train in one stack: those of its commonest shape."""
    config = replace(zoo_recipe(recipe, images="cifar10-subset", count=64), data=str(images))
    config = replace(config, image_count=None, image_size=None)  # 32x32, whatever the recipe's: to resize needs Pillow
    plans = [plan(config, i) for i in range(64)]
    common = Counter(map(stack_key, plans)).most_common(1)[0][0]
    alike = [one for one in plans if stack_key(one) == common]
    chosen = [replace(alike[i % len(alike)], network=i, seed=i, epochs=1, checkpoints=()) for i in range(count)]
    return [replace(one, test_count=min(500, size.images // 5)) for one in chosen]


def seconds_a_step(run: Callable[[list[TrainingPlan]], object], plans: list[TrainingPlan], size: Sizes) -> float:
    """Of training, without what is done once: the difference between a longer and a shorter run, by their steps."""
    most = size.images // plans[0].batch_size

    def timed(steps: int) -> float:
        start = time.perf_counter()
        run([replace(one, image_count=steps * one.batch_size) for one in plans])
        return time.perf_counter() - start

    timed(2)  # warm: kernels are chosen, memory is taken
    first, second = timed(2), timed(8)
    each = max(1e-5, (second - first) / 6)
    steps = min(most, 8 + int(size.seconds / each))
    return each if steps < 16 else (timed(steps) - first) / (steps - 2)


def measure_zoo(device: torch.device, size: Sizes, folder: Path, until: float) -> list[dict[str, Any]]:
    """Rows of the stacked engine against the plain loop, both on the device; none is begun after `until`.

    Networks a second are of the recipe's own training, epochs and all, at the rate of the steps that were timed. The
    plain loop does without attacks, and so has a little less to do.
    """
    noise_images(folder, size.images)
    rows: list[dict[str, Any]] = []
    loops: dict[str, float] = {}
    for recipe, stack in size.zoos:
        plans = like_plans(recipe, stack, folder, size)
        batch, name = plans[0].batch_size, str(device)
        whole = zoo_recipe(recipe)
        updates = whole.fixed["epochs"] * RECIPES_IMAGES // batch  # of one network of the recipe
        row: dict[str, Any] = {"recipe": recipe, "stack": stack, "batch": batch}
        rows.append(row)
        if time.perf_counter() > until:
            row["failed"] = "the time was up"
            continue

        def loop(plans: list[TrainingPlan], name: str = name) -> None:
            plain_loop(plans, name)
            wait(device)

        def engine(plans: list[TrainingPlan], stack: int = stack, name: str = name) -> None:
            StackedEngine(device=name, stack=stack).run({0: plans}, lambda *_: None, lambda _: None)
            wait(device)

        if recipe not in loops:
            loops[recipe] = seconds_a_step(loop, plans[:1], size)
        try:
            step = seconds_a_step(engine, plans, size)
        except ValueError as error:  # the engine's one sentence, such as that memory ran out
            row["failed"] = str(error)
            continue
        row |= {
            "images_per_s": round(stack * batch / step),
            "plain_loop_images_per_s": round(batch / loops[recipe]),
            "ratio_to_plain_loop": round(stack * loops[recipe] / step, 2),
            "networks_per_s": round(stack / (step * updates), 4),
            "plain_loop_networks_per_s": round(1 / (loops[recipe] * updates), 5),
            "updates_a_network": updates,
        }
    return rows


# -- the meta-model -------------------------------------------------------------------------------------------------


def product_rate(device: torch.device, size: Sizes) -> float:
    """Operations a second of one large matrix product in 16 bits, or of a smaller one in 32 on a CPU."""
    cuda = device.type == "cuda"
    n, kind = (8192, torch.bfloat16) if cuda else (512, torch.float32)
    a = torch.randn(n, n, device=device, dtype=kind)
    return 2 * n**3 / seconds_a_call(lambda: a @ a, device, size.seconds / 4)


def seconds_a_call(step: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Of `step`, over about so many seconds."""
    for _ in range(3):
        step()
    wait(device)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds or count < 3:
        for _ in range(5):  # the clock is not read while the device is busy
            step()
        count += 5
        wait(device)
    return (time.perf_counter() - start) / count


def peak_of(device: torch.device, measured: float) -> tuple[float, str]:
    """The peak that utilisation is a share of, and where it comes from."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    for part, peak in PEAKS.items():
        if device.type == "cuda" and part in name:
            return peak, f"the data sheet of {part}: {peak / 1e12:g} dense 16-bit TFLOP/s"
    return measured, f"no data sheet of {name} is known here: a plain matrix product as it was measured"


def flops_a_step(width: int, depth: int, chunk: int, tokens: int, batch: int) -> float:
    """Of a training step, multiply and add counted as two, backward as twice forward: matrices of every layer, the
    embedding, and attention's two products."""
    matrices = depth * 12 * width * width + chunk * width
    return 3 * 2 * batch * tokens * (matrices + depth * 2 * tokens * width)


def measure_metamodels(device: torch.device, size: Sizes, until: float) -> dict[str, Any]:
    """Utilisation of whole training steps (forward, backward, clipping, AdamW), as the training loop takes them."""
    product = product_rate(device, size)
    peak, source = peak_of(device, product)
    rows = []
    for compiled in (False, True) if size.compiled else (False,):
        for width, depth, heads, chunk, tokens, batch in size.metamodels:
            row: dict[str, Any] = {"width": width, "depth": depth, "chunk": chunk, "tokens": tokens, "batch": batch}
            row["compiled"] = compiled
            rows.append(row)
            if time.perf_counter() > until:
                row["failed"] = "the time was up"
                continue
            try:
                step = _metamodel_step(device, (width, depth, heads, chunk, tokens, batch), compiled, size.seconds)
            except RuntimeError as error:  # memory that ran out, or a compiler that is missing
                row["failed"] = str(error).splitlines()[0][:200]
                continue
            rate = flops_a_step(width, depth, chunk, tokens, batch) / step
            row |= {"step_ms": round(1000 * step, 3), "tflops": round(rate / 1e12, 4), "mfu": round(rate / peak, 4)}
    return {"peak": source, "plain_product_tflops": round(product / 1e12, 3), "rows": rows}


def _metamodel_step(
    device: torch.device, shape: tuple[int, int, int, int, int, int], compiled: bool, seconds: float
) -> float:
    """Seconds a step of the training loop on one batch that stays on the device."""
    width, depth, heads, chunk, tokens, batch = shape
    torch.manual_seed(0)
    targets = tuple(Target(name, tuple(name + c for c in "abcd")) for name in "xyz")
    answering = Answering(targets, ((0.0, 1.0),) * 3)
    config = MetaModelConfig(chunk_size=chunk, width=width, depth=depth, heads=heads, pooling="mean")
    model = Transformer(config, tokens, sum(answering.sizes), Room(0))
    mask = torch.ones(batch, tokens, dtype=torch.bool)
    read = TokenBatch(torch.randn(batch, tokens, chunk), mask, torch.rand(batch, tokens, 72)).to(device)
    labels = torch.randint(4, (batch, 3)).float().to(device)

    def loss(network: nn.Module, examples: tuple[TokenBatch, Tensor]) -> Tensor:
        return answering.loss(network(examples[0]), examples[1])

    precision = "bfloat16" if device.type == "cuda" else "float32"
    settings = TrainingConfig(steps=100_000, device=_kind(device), precision=precision, compile=compiled)
    return Clock(lambda _: (read, labels)).steps(model, loss, settings, seconds, warm=10)


def _kind(device: torch.device) -> Any:
    return "cuda" if device.type == "cuda" else "cpu"


class _Enough(Exception):
    """The clock has seen enough."""


@dataclass
class Clock:
    """Batches of a training loop, timed as the loop asks for them.

    Attributes:
        batch: of a step.
        waited: seconds that the loop waited for batches after the warm steps.
        taken: steps after the warm ones.
    """

    batch: Callable[[int], Any]
    waited: float = 0.0
    taken: int = 0

    def steps(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        config: TrainingConfig,
        seconds: float,
        warm: int,
    ) -> float:
        """Seconds a step of `train`, over about so many seconds after `warm` steps."""
        start, device = 0.0, torch.device(config.device)

        def timed(step: int) -> Any:
            nonlocal start
            if step == warm:
                wait(device)
                start = time.perf_counter()
            before = time.perf_counter()
            if step > warm + 2 and before - start > seconds:
                wait(device)
                raise _Enough
            batch = self.batch(step)
            if step >= warm:
                self.waited += time.perf_counter() - before
                self.taken = step + 1 - warm
            return batch

        with suppress(_Enough):
            train(model, loss, timed, replace(config, seed=0))
        return (time.perf_counter() - start) / self.taken


# -- the decompiler -------------------------------------------------------------------------------------------------


def measure_decompiler(device: torch.device, size: Sizes, workers: int) -> dict[str, Any]:
    """Programs a second, drawn and compiled by CPU cores while the device trains, and how long it is idle for them.

    Idle is what the same steps gain on batches that lie on the device already: the loop runs ahead of a GPU, so that
    the time it waits for a batch is no measure of it; that one is given too.
    """
    config = size.decompiler
    settings = replace(config.training, device=_kind(device))
    settings = settings if device.type == "cuda" else replace(settings, precision="float32")

    def loss(model: nn.Module, batch: TrainingBatch) -> Tensor:
        return next_token_loss(model(batch.graph, batch.lines), batch.lines.ids)

    kept: list[TrainingBatch] = []

    def model() -> nn.Module:
        torch.manual_seed(0)
        return DecompilerNetwork(config)

    warm = GROUP
    with stream(config, workers) as batches:

        def drawn(step: int) -> TrainingBatch:
            batch = batch_of(batches(step))
            if step < GROUP:  # one group: every size of batch once
                kept.append(to_device(batch, device))
            return batch

        # What the workers have made ahead when the clock starts is seconds' worth: the clock runs for a minute
        clock = Clock(drawn)
        streamed = clock.steps(model(), loss, settings, 5 * size.seconds, warm)
    fed = Clock(lambda step: kept[step % GROUP]).steps(model(), loss, settings, size.seconds, warm)
    batch = config.training.batch_size
    return {
        "programs_per_s": round(batch / streamed, 1),
        "programs_per_s_if_never_waiting": round(batch / fed, 1),
        "idle_share": round(max(0.0, 1 - fed / streamed), 3),
        "loop_waits_share": round(clock.waited / (streamed * clock.taken), 3),
        "workers": workers,
        "steps": clock.taken,
        "batch": batch,
    }


# -- the table ------------------------------------------------------------------------------------------------------


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows under the names of all their columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells)


def main(arguments: Sequence[str] = ()) -> int:
    """Measure and print; status 0 with one sentence where there is no GPU and the CPU was not asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny sizes, on the CPU: that it runs")
    parser.add_argument("--device", default=None, help="cuda, cuda:1, ... or cpu")
    parser.add_argument("--workers", type=int, default=None, help="processes that draw programs; one a core less one")
    parser.add_argument("--only", choices=("zoo", "metamodel", "decompiler"), help="one of the three alone")
    parser.add_argument("--out", type=Path, help="also write the JSON there")
    options = parser.parse_args(list(arguments))
    try:
        device = torch.device(options.device or ("cpu" if options.small else "cuda"))
    except RuntimeError:
        parser.error(f"there is no device {options.device!r}: choose cuda, cuda:0, cuda:1, ... or cpu")
    if options.workers is not None and options.workers < 0:
        parser.error(f"{options.workers} workers: choose 0 or more")
    if options.out is not None and not options.out.parent.is_dir():
        parser.error(f"there is no folder {options.out.parent} for {options.out.name}: make it first")
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA GPU here, so nothing is measured: --small runs all of it on the CPU")
        return 0
    if device.type == "cuda":
        torch.cuda.set_device(device)
    size = SMALL if options.small or device.type == "cpu" else FULL
    workers = max(1, cores() - 1) if options.workers is None else options.workers
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "cpu_cores": cores(),
    }
    start = time.perf_counter()

    def write() -> None:
        """After each part, so that a run that is cut short leaves what it had measured."""
        figures["seconds"] = round(time.perf_counter() - start, 1)
        if options.out is not None:
            options.out.write_text(json.dumps(figures, indent=1) + "\n")

    if options.only in (None, "zoo"):
        with tempfile.TemporaryDirectory() as folder:
            figures["zoo"] = measure_zoo(device, size, Path(folder), start + 60 * MINUTES["zoo"])
        print(f"\nbase networks, stacked against one after the other on {figures['device']}\n{table(figures['zoo'])}")
        write()
    if options.only in (None, "metamodel"):
        figures["metamodel"] = measure_metamodels(device, size, start + 60 * MINUTES["metamodel"])
        print(f"\nthe meta-model; MFU of {figures['metamodel']['peak']}\n{table(figures['metamodel']['rows'])}")
        write()
    if options.only in (None, "decompiler"):
        figures["decompiler"] = measure_decompiler(device, size, workers)
        print(f"\nthe decompiler, its programs drawn meanwhile\n{table([figures['decompiler']])}", flush=True)
    write()
    record.keep("gpu" if size is FULL else "gpu-small.local", figures)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import sys

    sys.exit(main(sys.argv[1:]))
