"""The pictures of a comparison, as SVG texts: the same figures give the same bytes.

Every picture is as wide as a telephone, so that its letters stay legible there, and takes its colours from
`COLOURS`, so that a page can replace them (the report does, for dark mode). Texts stay texts: names are
shown as they are, never read as mathematics, and set in the font of the page.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from weightspace.evaluation.results import META_MODEL, Confusion, CurvePoint, Row, percent

# Blue and orange of Okabe and Ito's palette: told apart with every kind of colour blindness, and in grey.
COLOURS = {
    "ink": "#1b1f24",
    "muted": "#59636e",
    "line": "#d5dae0",
    "accent": "#0072b2",
    "second": "#d55e00",
    "paper": "#fefefe",
}
"""Every colour that occurs in a picture, by role."""

_WIDTH = 3.7  # inches
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "weightspace",
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": COLOURS["ink"],
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def accuracy_histogram(accuracies: Sequence[float]) -> str:
    """How good the base networks themselves are: counts by final test accuracy, and their median.

    Args:
        accuracies: one a network, 0 to 1, at least one.
    Returns:
        An SVG document.
    Raises:
        ValueError: if there are none.
    """
    if len(accuracies) == 0:
        raise ValueError("there are no accuracies to draw")
    values = 100 * np.asarray(accuracies, dtype=np.float64)
    # 2.5 points wide where the networks differ much, 0.5 where they all do well
    width = 2.5 if values.max() - values.min() > 25 else 0.5
    first, last = np.floor(values.min() / width), np.floor(values.max() / width) + 1
    edges = width * np.arange(first, min(last, 100 / width) + 1)
    if len(edges) < 2:  # all are at 100 %
        edges = np.array([100 - width, 100.0])
    median = float(np.median(values))
    with _drawing(2.5) as figure:
        axes = figure.add_subplot()
        axes.hist(values, bins=edges.tolist(), color=COLOURS["accent"], rwidth=0.9)
        axes.axvline(median, color=COLOURS["ink"], linewidth=1.2)
        right = median > (edges[0] + edges[-1]) / 2
        axes.annotate(
            f"median {median:.1f}%",
            (median, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if right else 5, -1),
            textcoords="offset points",
            horizontalalignment="right" if right else "left",
            verticalalignment="bottom",
        )
        axes.set_xlabel("test accuracy of a base network (%)")
        axes.set_ylabel("networks")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=True))
        axes.grid(axis="y")
        return _svg(figure)


def intervals(rows: Sequence[Row]) -> str:
    """One target: each predictor's accuracy with its 95% interval, against chance and the majority answer.

    Args:
        rows: of one target, at least one; drawn from the top. The meta-model's dot is filled.
    Returns:
        An SVG document; all have one scale, 0 to 100%, so that targets can be compared by eye.
    Raises:
        ValueError: if there are none, or they are of several targets.
    """
    if len({row.target for row in rows}) != 1:
        raise ValueError(f"{len(rows)} rows of several targets or none: give those of one target")
    names = [textwrap.fill(row.predictor, 19, max_lines=2, placeholder=" …") for row in rows]
    with _drawing(0.85 + 0.36 * len(rows)) as figure:
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            first = row.predictor == META_MODEL
            colour = COLOURS["accent"] if first else COLOURS["muted"]
            axes.plot([100 * row.low, 100 * row.high], [place, place], color=colour, linewidth=2.4)
            axes.plot(
                100 * row.accuracy,
                place,
                marker="o",
                markersize=7.5,
                color=colour,
                markerfacecolor=colour if first else COLOURS["paper"],
                markeredgewidth=1.8,
                clip_on=False,  # a dot at 100% is whole
                zorder=3,
            )
        chance, majority = rows[0].chance, rows[0].majority
        axes.axvline(100 * chance, color=COLOURS["second"], linewidth=1.3, dashes=(5, 2.5))
        axes.axvline(100 * majority, color=COLOURS["second"], linewidth=1.7, dashes=(1, 1.6))
        axes.set_xlim(0, 102)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100%"])
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"], labelsize=9.5)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        dashed = Line2D([], [], color=COLOURS["second"], linewidth=1.3, dashes=(5, 2.5))
        dotted = Line2D([], [], color=COLOURS["second"], linewidth=1.7, dashes=(1, 1.6))
        figure.legend(
            [dashed, dotted],
            [f"chance {percent(chance)}", f"majority {percent(majority)}"],
            loc="outside lower right",
            ncols=2,
            handlelength=2,
            borderaxespad=0.1,
        )
        return _svg(figure)


def confusion_picture(confusion: Confusion) -> str:
    """Truth (rows) against answer (columns): counts, shaded by their share of the row.

    Args:
        confusion: any number of classes; from about 12 the counts become small.
    Returns:
        An SVG document.
    """
    counts = np.array(confusion.matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(counts)
    names = [textwrap.shorten(name, 16, placeholder="…") or name[:16] for name in confusion.classes]
    slanted = sum(map(len, names)) > 26
    with _drawing(1.15 + min(0.55 * size, 3.2) + 0.3 * slanted) as figure:
        axes = figure.add_subplot()
        for (row, column), share in np.ndenumerate(shares):
            cell = Rectangle(
                (column - 0.48, row - 0.48),
                0.96,
                0.96,
                facecolor=COLOURS["accent"],
                # opacity over the page's own background, so that one drawing serves light and dark;
                # at most 0.54, so that the ink is legible on every cell in both
                alpha=0.06 + 0.48 * float(share),
                linewidth=0,
            )
            axes.add_patch(cell)
            axes.text(
                column,
                row,
                f"{counts[row, column]}",
                horizontalalignment="center",
                verticalalignment="center_baseline",
                fontsize=max(6, min(10, 88 / size)),
                color=COLOURS["ink"],
            )
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        turn = {"rotation": 35, "horizontalalignment": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(size), names, **(turn if slanted else {}))
        axes.set_yticks(range(size), names)
        axes.tick_params(length=0, labelcolor=COLOURS["ink"])
        axes.spines[:].set_visible(False)
        axes.set_xlabel("answer")
        axes.set_ylabel("truth")
        return _svg(figure)


def training_curves(points: Sequence[CurvePoint]) -> str:
    """Losses, and below them validation accuracy, against the step of training.

    Args:
        points: in the order of steps, at least one; what was not measured is left out.
    Returns:
        An SVG document.
    Raises:
        ValueError: if nothing was measured.
    """
    training = [(p.step, p.training_loss) for p in points if p.training_loss is not None]
    validation = [(p.step, p.validation_loss) for p in points if p.validation_loss is not None]
    accuracy = [(p.step, 100 * p.validation_accuracy) for p in points if p.validation_accuracy is not None]
    if not (training or validation or accuracy):
        raise ValueError("the curve has no measurements to draw")
    losses, lower = bool(training or validation), bool(accuracy)
    with _drawing(0.5 + 1.65 * (losses + lower)) as figure:
        panels = list(figure.subplots(losses + lower, 1, sharex=True, squeeze=False)[:, 0])
        bottom = panels[-1]
        if losses:
            top = panels.pop(0)
            _line(top, training, COLOURS["second"], "training", dashes=(4.0, 1.5))
            _line(top, validation, COLOURS["accent"], "validation")
            top.set_ylabel("loss (nats)")
            top.set_ylim(bottom=0)
            top.legend(loc="upper right", borderaxespad=0, handlelength=2)
        if lower:
            _line(panels[0], accuracy, COLOURS["accent"], "validation")
            panels[0].set_ylabel("validation\naccuracy (%)")
            panels[0].set_ylim(0, 102)
            panels[0].set_yticks([0, 25, 50, 75, 100])
        bottom.set_xlabel("training step")
        bottom.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=True))
        return _svg(figure)


def roc_curves(panels: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Panels of ROC curves, one a question, on white paper for documents.

    Args:
        panels: for each title the curves by name, (points, 2) of false and true positive rates.
    Returns:
        An SVG document.
    Raises:
        ValueError: if there is no panel.
    """
    if not panels:
        raise ValueError("there are no ROC curves to draw")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    dashes = [(), (4.0, 1.5), (1.2, 1.2), (6.0, 1.5, 1.2, 1.5)]
    colours = [COLOURS["accent"], COLOURS["second"], COLOURS["ink"], COLOURS["muted"]]
    with rc_context(_STYLE):
        width, height = 2.6 * columns + 0.4, 2.9 * rows + 0.75
        figure = Figure(figsize=(width, height), facecolor="white")
        figure.subplots_adjust(
            left=0.62 / width,
            right=1 - 0.15 / width,
            top=1 - 0.55 / height,
            bottom=1.25 / height,
            hspace=0.5,
            wspace=0.25,
        )
        for number, (title, curves) in enumerate(panels.items()):
            axes = figure.add_subplot(rows, columns, number + 1)
            axes.plot([0, 1], [0, 1], color=COLOURS["line"], linewidth=1)
            for style, (name, points) in enumerate(curves.items()):
                (line,) = axes.plot(points[:, 0], points[:, 1], color=colours[style % 4], linewidth=1.6, label=name)
                if dashes[style % 4]:
                    line.set_dashes(dashes[style % 4])
            axes.set_title(title, fontsize=9.5)
            axes.set_aspect("equal")
            axes.set_xticks([0, 0.5, 1])
            axes.set_yticks([0, 0.5, 1])
            axes.set_xlabel("false positives")
            axes.set_ylabel("true positives" if number % columns == 0 else "")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=2)
        return _svg(figure, "white")


def roc_and_calibration(
    curves: Mapping[str, np.ndarray], said: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[str, str]:
    """Of several predictors the ROC curves, and how often answers are right that are given with a probability.

    Each predictor has its own dashes and its own mark, so that it is told without its colour.

    Args:
        curves: by name, (points, 2) of false and true positive rates.
        said: by name, (bins,) mean probability of answers and (bins,) share of them that is right.
    Returns:
        two SVG documents.
    """
    dashes: list[tuple[float, ...]] = [(), (4.0, 1.5), (1.2, 1.2), (6.0, 1.5, 1.2, 1.5)]
    colours = [COLOURS["accent"], COLOURS["second"], COLOURS["ink"], COLOURS["muted"]]
    pictures = []
    for labels in (("false positive rate", "true positive rate"), ("probability, as said", "share that is right")):
        with _drawing(3.9) as figure:
            axes = figure.add_subplot()
            axes.plot([0, 1], [0, 1], color=COLOURS["line"], linewidth=1)
            for number, name in enumerate(curves):
                points = curves[name] if not pictures else np.column_stack(said[name])
                mark = {} if not pictures else {"marker": "osD^"[number % 4], "markersize": 4.5}
                colour = colours[number % 4]
                (line,) = axes.plot(points[:, 0], points[:, 1], color=colour, linewidth=1.6, label=name, **mark)
                if dashes[number % 4]:
                    line.set_dashes(dashes[number % 4])
            axes.set_aspect("equal")
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            axes.set(xlabel=labels[0], ylabel=labels[1])
            figure.legend(loc="outside lower center", ncols=2, handlelength=2.6)
            pictures.append(_svg(figure))
    return pictures[0], pictures[1]


def reliability(probability: np.ndarray, labels: np.ndarray, bins: int = 5) -> str:
    """How often what is said with a probability is so, on white paper for documents.

    Both sides weigh the same, as a calibrated detector takes them to be equally frequent.

    Args:
        probability: (n,) said of each network.
        labels: (n,) 1 where it is so.
    Returns:
        An SVG document.
    Raises:
        ValueError: if a side has no network.
    """
    bad, good = int(labels.sum()), int((1 - labels).sum())
    if not bad or not good:
        raise ValueError(f"reliability needs networks of both sides, not {bad} and {good}")
    weight = np.where(labels == 1, 0.5 / bad, 0.5 / good)
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.2, 3.0), layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=COLOURS["line"], linewidth=1)
        for number in range(bins):
            inside = np.minimum((probability * bins).astype(int), bins - 1) == number
            if not inside.any():
                continue
            said = float(np.average(probability[inside], weights=weight[inside]))
            draws = []
            rng, places = np.random.default_rng(number), np.flatnonzero(inside)
            for _ in range(500):
                some = places[rng.integers(len(places), size=len(places))]
                draws.append(float(np.average(labels[some], weights=weight[some])))
            share = float(np.average(labels[inside], weights=weight[inside]))
            low, high = np.quantile(draws, [0.025, 0.975])
            axes.plot([said, said], [low, high], color=COLOURS["accent"], linewidth=1.4)
            axes.plot(said, share, "o", color=COLOURS["accent"], markersize=5, clip_on=False)
            axes.annotate(
                f"{int(inside.sum())}", (said, share), xytext=(5, -10), textcoords="offset points", fontsize=8
            )
        axes.set_aspect("equal")
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("probability of a backdoor, as said")
        axes.set_ylabel("share that has one")
        return _svg(figure, "white")


def _line(
    axes: Axes,
    points: Sequence[tuple[int, float]],
    colour: str,
    label: str,
    dashes: tuple[float, float] | None = None,
) -> None:
    axes.grid(axis="y")
    if points:
        steps, values = zip(*points, strict=True)
        # a line through one point is invisible
        marker = "o" if len(points) == 1 else None
        (line,) = axes.plot(steps, values, color=colour, linewidth=1.7, label=label, marker=marker)
        if dashes:
            line.set_dashes(dashes)


@contextmanager
def _drawing(height: float) -> Iterator[Figure]:
    """An empty figure of the house style, `height` inches high; no global state of pyplot is touched."""
    with rc_context(_STYLE):
        yield Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="none")


def _svg(figure: Figure, paper: str = "none") -> str:
    for axes in figure.axes:
        axes.set_facecolor(paper)
    out = io.StringIO()
    # without None for each, the file would carry the date and the version of matplotlib
    silent = dict.fromkeys(["Date", "Creator", "Format", "Type"])
    FigureCanvasSVG(figure).print_svg(out, metadata=silent)
    return out.getvalue()
