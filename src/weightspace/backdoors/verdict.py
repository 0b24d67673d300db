"""What a scan of checkpoint files says of each: a verdict, how sure it is, and what is to blame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from weightspace.notebook import card

Verdict = Literal["clean", "suspicious", "unreadable", "out_of_scope"]
"""Suspicious: weights as those of backdoored networks. Out of scope: nothing is said of such a network. Unreadable: no
weights could be read, or the file was refused."""
GRAVITY: tuple[Verdict, ...] = ("suspicious", "unreadable", "out_of_scope", "clean")
"""The gravest first: a scan of many files ends as its gravest one."""
EXIT_STATUS: dict[Verdict, int] = {"clean": 0, "suspicious": 1, "unreadable": 3, "out_of_scope": 4}
"""Of `weightspace scan`; 2 is wrong usage."""


@dataclass(frozen=True)
class Blame:
    """A layer or a neuron, and its share of what moved the detector.

    Attributes:
        name: of the layer's kernel, such as "3.weight"; of a neuron also its row, "3.weight[5]", or "class 2" for one
            of the last layer.
        share: of the sum over all layers, or over all neurons.
    """

    name: str
    share: float


@dataclass(frozen=True)
class Finding:
    """What is said of one file.

    Attributes:
        file: its path, as it was given or found.
        verdict: what is said.
        reason: a sentence.
        sha256: of the file; None if it was not read.
        size: bytes; 0 if there is no file.
        probability: of a backdoor where half of all networks have one, calibrated; None where nothing is said.
        p_value: share of clean networks that look at least as suspicious, of those kept for calibration; None as above.
        distance: how far its statistics are from the training zoo's, 1 being the limit; None if it could not be asked.
        layers, neurons: what is to blame, the most suspicious first.
        notes: what else a reader must know, a sentence each.
        seconds: reading and judging, on average of the files judged together.
    """

    file: str
    verdict: Verdict
    reason: str
    sha256: str | None = None
    size: int = 0
    probability: float | None = None
    p_value: float | None = None
    distance: float | None = None
    layers: tuple[Blame, ...] = ()
    neurons: tuple[Blame, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Names come from files: what is no printable text is escaped, so that none can pass for a verdict."""
        for name in ("file", "reason"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        object.__setattr__(self, "notes", tuple(map(printable, self.notes)))

    def to_json(self) -> dict[str, Any]:
        blame = {name: [[b.name, b.share] for b in getattr(self, name)] for name in ("layers", "neurons")}
        return {**self.__dict__, **blame, "notes": list(self.notes)}


@dataclass(frozen=True)
class Scan:
    """What is said of some files.

    Attributes:
        findings: in the order in which the files were given or found.
        detector: its scope and its figures, as its card has them.
        false_alarms: the share of clean networks that this scan calls suspicious, on average.
        seconds: in all, without loading the detector.
    """

    findings: tuple[Finding, ...]
    detector: Mapping[str, Any] = field(default_factory=dict)
    false_alarms: float = 0.05
    seconds: float = 0.0

    def __repr__(self) -> str:
        counted = ", ".join(f"{number} {verdict.replace('_', ' ')}" for verdict, number in self.counts.items())
        return f"<Scan: {counted or 'nothing'}>"

    def _repr_html_(self) -> str:
        rows = [(finding.file, finding.verdict.replace("_", " "), finding.reason) for finding in self.findings]
        bound = {"false alarms": f"at most {self.false_alarms:.1%} of clean networks, on average"}
        return card(repr(self)[1:-1], bound, header=("file", "verdict", "why"), rows=rows)

    @property
    def gravest(self) -> Verdict:
        found: set[Verdict] = {finding.verdict for finding in self.findings}
        for verdict in GRAVITY:
            if verdict in found:
                return verdict
        return "clean"

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.gravest]

    @property
    def counts(self) -> dict[Verdict, int]:
        counted = Counter(finding.verdict for finding in self.findings)
        return {verdict: counted[verdict] for verdict in GRAVITY if counted[verdict]}

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.gravest,
            "exit_status": self.exit_status,
            "counts": self.counts,
            "false_alarms": self.false_alarms,
            "seconds": self.seconds,
            "detector": dict(self.detector),
            "findings": [finding.to_json() for finding in self.findings],
        }


def printable(text: str) -> str:
    """A text with every control character and every half of a surrogate pair escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def worded(verdict: Verdict) -> str:
    """A verdict as a person reads it."""
    return verdict.replace("_", " ")


def summary(scan: Scan, blamed: int = 3) -> str:
    """A scan as a person reads it in a terminal: a line a file, then what it was judged by.

    Args:
        blamed: neurons that are named of a suspicious file.
    """
    lines = []
    for finding in scan.findings:
        lines.append(f"{worded(finding.verdict):<12}  {finding.file}")
        lines.append(f"{'':<14}{finding.reason}")
        if finding.verdict == "suspicious" and finding.neurons:
            named = ", ".join(f"{b.name} ({b.share:.0%})" for b in finding.neurons[:blamed])
            lines.append(f"{'':<14}The neurons that raise it most: {named}.")
        lines += [f"{'':<14}{note}" for note in finding.notes]
    if len(scan.findings) > 1:
        counted = ", ".join(f"{count} {worded(verdict)}" for verdict, count in scan.counts.items())
        lines += ["", f"{len(scan.findings)} files: {counted}; {scan.seconds:.1f} s"]
    lines += ["", *scope_of(scan)]
    return "\n".join(lines)


def scope_of(scan: Scan) -> Sequence[str]:
    """What the detector was trained on, and what that means, in sentences."""
    facts = scan.detector
    if not facts:
        return []
    return [
        f"Judged by a detector of {facts['architecture']}, trained on {facts['networks']:,} of them "
        f"({facts['images']}), backdoored by {facts['attacks']}.",
        f"On average at most {scan.false_alarms:.1%} of clean networks are called suspicious, by "
        f"{facts['calibration']} that were kept apart; of backdoored ones whose attack works, {facts['detected']} at "
        "5%. A network that was trained in another way may fool it: clean means that nothing was seen.",
    ]
