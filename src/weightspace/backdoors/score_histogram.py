"""Where the scores of scanned networks lie among those of clean ones, as one picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from weightspace.backdoors.verdict import Scan

BINS = 24
_WIDTH, _HIGH, _MIDDLE, _EDGE = 720, 250, 120, 12
"""Of the picture, in its own units; the line between clean networks, above, and scanned ones, below; the margin."""


@dataclass(frozen=True)
class Histogram:
    """Counts of scores, clean networks and scanned ones side by side.

    Attributes:
        edges: (bins + 1,) log-odds.
        clean: (bins,) networks of the calibration.
        scanned: (bins,) networks of this scan.
        limit: the score from which a network is called suspicious.
    """

    edges: np.ndarray
    clean: np.ndarray
    scanned: np.ndarray
    limit: float


def histogram_of(scan: Scan) -> Histogram | None:
    """The histogram of a scan; None if no network was judged, or the scores of clean ones are not known."""
    scores = np.array([finding.score for finding in scan.findings if finding.score is not None])
    clean = np.array(scan.clean_scores)
    if not len(scores) or not len(clean):
        return None
    every = np.concatenate([scores, clean])
    low, high = float(every.min()), float(every.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    return Histogram(edges, np.histogram(clean, edges)[0], np.histogram(scores, edges)[0], _limit(scan))


def _limit(scan: Scan) -> float:
    """The score above which a network is called suspicious."""
    clean = np.sort(np.array(scan.clean_scores))
    # p = (1 + clean ones at least as high) / (1 + clean ones), as `Calibration.p_value` has it
    most = int(np.floor(scan.false_alarms * (1 + len(clean)) + 1e-9)) - 1
    return float(clean[len(clean) - most - 1]) if most < len(clean) else float(clean[0])


def draw_histogram(found: Histogram) -> Markup:
    """The picture as SVG that takes its colours from the page: clean networks upwards, scanned ones downwards."""
    low, high = float(found.edges[0]), float(found.edges[-1])

    def x(score: float) -> float:
        return round(_EDGE + (_WIDTH - 2 * _EDGE) * (score - low) / (high - low), 1)

    parts = []
    for counts, up, kind in ((found.clean, True, "clean"), (found.scanned, False, "scanned")):
        most = max(1, int(counts.max()))
        for i, count in enumerate(counts.tolist()):
            if count:
                left, right = x(float(found.edges[i])), x(float(found.edges[i + 1]))
                tall = round(90 * count / most, 1)
                top = _MIDDLE - 1 - tall if up else _MIDDLE + 1
                parts.append(
                    f'<rect class="{kind}" x="{left + 1}" y="{top}" width="{max(1, right - left - 2)}" height="{tall}">'
                    f"<title>{count} from {found.edges[i]:.2f} to {found.edges[i + 1]:.2f}</title></rect>"
                )
    limit = min(max(x(found.limit), _EDGE), _WIDTH - _EDGE)
    anchor = "end" if limit > _WIDTH / 2 else "start"
    beside = -6 if anchor == "end" else 6
    parts += [
        f'<line class="axis" x1="{_EDGE}" x2="{_WIDTH - _EDGE}" y1="{_MIDDLE}" y2="{_MIDDLE}"/>',
        f'<line class="limit" x1="{limit}" x2="{limit}" y1="8" y2="{_HIGH - 28}"/>',
        f'<text x="{limit + beside}" y="18" text-anchor="{anchor}">limit: suspicious from here</text>',
        f'<text class="soft" x="{_EDGE}" y="{_HIGH - 8}">{low:.1f}</text>',
        f'<text class="soft" x="{_WIDTH - _EDGE}" y="{_HIGH - 8}" text-anchor="end">{high:.1f}</text>',
        f'<text class="soft" x="{_WIDTH / 2}" y="{_HIGH - 8}" text-anchor="middle">'
        "score (log-odds of a backdoor)</text>",
    ]
    above = int(found.scanned[found.edges[:-1] >= found.limit].sum())
    alt = (
        f"Histogram of scores from {low:.1f} to {high:.1f}: {int(found.clean.sum())} clean networks, "
        f"{int(found.scanned.sum())} scanned; the limit is {found.limit:.2f}, and {above} scanned are in bars above it."
    )
    head = Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}">').format(alt, _WIDTH, _HIGH)
    return head + Markup("".join(parts)) + Markup("</svg>")
