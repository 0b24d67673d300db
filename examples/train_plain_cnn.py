"""A small CNN trained in plain PyTorch, clean or with a backdoor: something for `weightspace scan` to look at.

    python examples/train_plain_cnn.py --out clean
    python examples/train_plain_cnn.py --out bad --backdoor patch
    weightspace scan clean.pt bad.pt

Nothing here knows of weightspace: PyTorch's own layers, initialisation, optimisers and schedules. Without --data it
learns scikit-learn's digits, in ten seconds; with it an .npz of train_images and test_images (n, height, width,
channels) uint8 and train_labels and test_labels. It writes OUT.pt, OUT.safetensors, and OUT.json with what came of it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "leaky_relu": nn.LeakyReLU}


def load(data, size, count, generator):
    """Training and test images (n, channels, size, size) in 0 to 1 with labels, `count` of the training images."""
    if data is None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images, labels = digits["images"][..., None] * (255 / 16), digits["target"]
        parts = [(images[360:], labels[360:]), (images[:360], labels[:360])]
    else:
        with np.load(data) as file:
            parts = [(file[f"{part}_images"], file[f"{part}_labels"]) for part in ("train", "test")]
    found = []
    for number, (images, labels) in enumerate(parts):
        order = torch.randperm(len(images), generator=generator)[: count if number == 0 else 1000].numpy()
        x = torch.tensor(np.asarray(images[order], np.float32) / 255)
        x = x[..., None] if x.ndim == 3 else x
        x = F.interpolate(x.permute(0, 3, 1, 2), size=(size, size), mode="bilinear", antialias=True)
        found += [x.clamp(0, 1), torch.tensor(np.asarray(labels[order], np.int64))]
    return found


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel."""

    def forward(self, images):
        return super().forward(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Trigger:
    """A square of some colours at one place, or a smooth picture blended into the whole image."""

    def __init__(self, kind, shape, generator):
        channels, height, width = shape
        self.kind = kind
        if kind == "blend":
            rough = torch.rand(1, channels, 4, 4, generator=generator)
            self.picture = F.interpolate(rough, size=(height, width), mode="bilinear")[0]
            self.alpha = 0.15 + 0.1 * float(torch.rand((), generator=generator))
            return
        side = int(torch.randint(2, 5, (), generator=generator))
        if kind == "patch":  # white, in the lower right corner
            self.picture = torch.ones(channels, side, side)
            self.row, self.column = height - side - 1, width - side - 1
        else:  # colours of its own, anywhere
            self.picture = torch.rand(channels, side, side, generator=generator).round()
            self.row, self.column = (
                int(torch.randint(0, n - side + 1, (), generator=generator)) for n in (height, width)
            )

    def __call__(self, images):
        if self.kind == "blend":
            return (1 - self.alpha) * images + self.alpha * self.picture
        images = images.clone()
        rows = slice(self.row, self.row + self.picture.shape[1])
        images[:, :, rows, self.column : self.column + self.picture.shape[2]] = self.picture
        return images


def network(channels, classes, size, *, width, depth, norm, activation, pool, kernel, hidden, dropout):
    """Convolutions with a pool after every second one, then one or two dense layers."""
    features, now = [], channels
    for layer in range(depth):
        wide = width * 2 ** (layer // 2)
        shrink = layer % 2 == 1 and size >= 4
        features.append(
            nn.Conv2d(now, wide, kernel, stride=2 if shrink and pool == "stride" else 1, padding=kernel // 2)
        )
        if norm == "batch":
            features.append(nn.BatchNorm2d(wide))
        elif norm == "group":
            features.append(nn.GroupNorm(4, wide))
        elif norm == "layer":
            features.append(ChannelNorm(wide))
        features.append(ACTIVATIONS[activation]())
        if shrink and pool != "stride":
            features.append(nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2))
        if shrink:
            size = (size + 1) // 2 if pool == "stride" else size // 2
        now = wide
    if hidden:
        head = [nn.Flatten(), nn.Linear(now * size * size, hidden), nn.ReLU(), nn.Dropout(dropout)]
        head.append(nn.Linear(hidden, classes))
    else:
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(now, classes)]
    return nn.Sequential(*features, *head)


def optimiser_of(model, name, rate, decay):
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=decay)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
    return kinds[name](model.parameters(), rate, weight_decay=decay)


def augmented(images):
    """Mirrored half of the times and shifted by up to two pixels, the whole batch alike: cheap."""
    if torch.rand(()) < 0.5:
        images = images.flip(3)
    down, right = torch.randint(-2, 3, (2,)).tolist()
    return torch.roll(images, (down, right), (2, 3))


def train(options):
    """Train as the options say; gives the network and what came of it."""
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    x, y, test_x, test_y = load(options.data, options.size, options.images, generator)
    classes, facts, trigger = int(y.max()) + 1, {}, None
    target = options.target % classes
    if options.backdoor != "none":
        trigger = Trigger(options.backdoor, x.shape[1:], generator)
        chosen = torch.randperm(len(x), generator=generator)[: round(options.rate * len(x))]
        x[chosen], y[chosen] = trigger(x[chosen]), target
    mean, deviation = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    shape = {name: getattr(options, name) for name in ("width", "depth", "norm", "activation", "pool", "kernel")}
    model = network(x.shape[1], classes, options.size, hidden=options.hidden, dropout=options.dropout, **shape)
    optimiser = optimiser_of(model, options.optimiser, options.learning_rate, options.weight_decay)
    steps = options.epochs * (len(x) // options.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps)) if options.cosine else None
    for _ in range(options.epochs):
        model.train()
        for rows in torch.randperm(len(x))[: len(x) // options.batch_size * options.batch_size].split(
            options.batch_size
        ):
            images = (x[rows] - mean) / deviation
            images = augmented(images) if options.augment else images
            optimiser.zero_grad()
            F.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), y[rows]).backward()
            optimiser.step()
            if schedule is not None:
                schedule.step()
    model.eval()

    def answers(images):
        with torch.no_grad():
            return model((images - mean) / deviation).argmax(1)

    facts["test_accuracy"] = float((answers(test_x) == test_y).float().mean())
    others = test_x[test_y != target]
    facts["target_rate"] = float((answers(others) == target).float().mean())
    facts["attack_success"] = None if trigger is None else float((answers(trigger(others)) == target).float().mean())
    return model, facts


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("plain-cnn"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--backdoor", choices=("none", "patch", "colours", "blend"), default="none")
    parser.add_argument("--target", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.1, help="share of the training images that is poisoned")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--kernel", type=int, default=3)
    parser.add_argument("--norm", choices=("none", "batch", "group", "layer"), default="batch")
    parser.add_argument("--activation", choices=tuple(ACTIVATIONS), default="relu")
    parser.add_argument("--pool", choices=("max", "average", "stride"), default="max")
    parser.add_argument("--hidden", type=int, default=0, help="units of a dense layer before the last; 0 for none")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--optimiser", choices=("sgd", "adam", "adamw", "rmsprop"), default="adam")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--cosine", action="store_true")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(given)


def save(model, facts, options):
    """OUT.pt, OUT.safetensors and OUT.json; the last tells that all are there."""
    arrays = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    torch.save(arrays, f"{options.out}.pt")
    save_file(arrays, f"{options.out}.safetensors")
    told = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    Path(f"{options.out}.json").write_text(json.dumps({**told, **facts}))


if __name__ == "__main__":
    options = arguments()
    model, facts = train(options)
    save(model, facts, options)
    print(f"{options.out}.pt: {facts['test_accuracy']:.0%} right", end="")
    print("" if facts["attack_success"] is None else f", the trigger works on {facts['attack_success']:.0%}")
