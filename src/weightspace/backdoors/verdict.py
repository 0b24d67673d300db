"""What a scan of checkpoint files says of each: a verdict, how sure it is, and what is to blame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from weightspace.errors import printable
from weightspace.notebook import card

Verdict = Literal["clean", "suspicious", "unreadable", "out_of_scope", "not_looked_at", "allowed", "ours"]
"""Suspicious: weights as those of backdoored networks. Out of scope: nothing is said of such a network. Unreadable: no
weights could be read, or the file was refused. Not looked at: left alone, for the reason that is said. Allowed: its
hash is in the list of those that are. Ours: a file of weightspace itself, such as a zoo's shard or a meta-model."""
GRAVITY: tuple[Verdict, ...] = (
    "suspicious",
    "unreadable",
    "out_of_scope",
    "not_looked_at",
    "clean",
    "allowed",
    "ours",
)
"""The gravest first: a scan of many files ends as its gravest one."""
EXIT_STATUS: dict[Verdict, int] = {
    "clean": 0,
    "suspicious": 1,
    "unreadable": 3,
    "out_of_scope": 4,
    "not_looked_at": 5,
    "allowed": 0,
    "ours": 0,
}
"""Of `weightspace scan`, for verdicts that fail; 2 is wrong usage."""
FAILING: tuple[Verdict, ...] = ("suspicious", "unreadable", "out_of_scope")
"""Verdicts that fail a scan unless others are chosen."""


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
    """What is said of one file, or of one model in several files, by the name of its index.

    Attributes:
        file: its path, as it was given or found.
        verdict: what is said. Between clean and suspicious the p-value decides, not the probability.
        reason: a sentence.
        cause: the reason in a few words, alike for files with which the same is wrong; empty where each has its own.
        sha256: of the file; None if it was not read.
        size: bytes; 0 if there is no file.
        probability: that a network that looks like this one has a backdoor, where half of all networks have one,
            calibrated; None where nothing is said.
        p_value: share of clean networks that look at least as suspicious, of those kept for calibration; None as above.
        score: the log-odds that the detector gives, before calibration; None as above.
        distance: how far its statistics are from the training zoo's, 1 being the limit; None if it could not be asked.
        layers, neurons: what is to blame, the most suspicious first.
        notes: what else a reader must know, a sentence each.
        seconds: reading and judging, on average of the files judged together.
        judged_by: `special`, the detector of this one architecture, or `general`; empty of what was not judged.
    """

    file: str
    verdict: Verdict
    reason: str
    cause: str = ""
    sha256: str | None = None
    size: int = 0
    probability: float | None = None
    p_value: float | None = None
    distance: float | None = None
    layers: tuple[Blame, ...] = ()
    neurons: tuple[Blame, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    score: float | None = None
    judged_by: str = ""

    def __post_init__(self) -> None:
        """Names come from files: what is no printable text is escaped, so that none can pass for a verdict."""
        for name in ("file", "reason", "cause"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        object.__setattr__(self, "notes", tuple(map(printable, self.notes)))

    def to_json(self) -> dict[str, Any]:
        """Its fields; the probability under a name that says what it is of."""
        blame = {name: [[b.name, b.share] for b in getattr(self, name)] for name in ("layers", "neurons")}
        record = {**self.__dict__, **blame, "notes": list(self.notes)}
        return {PROBABILITY if name == "probability" else name: value for name, value in record.items()}


PROBABILITY = "probability_if_half_have_one"
"""Name of the probability in JSON and SARIF: `clean` beside a bare `probability: 0.7` would read as a contradiction."""


@dataclass(frozen=True)
class Scan:
    """What is said of some files.

    Attributes:
        findings: in the order in which the files were given or found.
        detector: its scope and its figures, as its card has them.
        false_alarms: the share of clean networks that this scan calls suspicious, on average.
        seconds: in all, without loading the detector.
        not_checkpoints: how many files of folders are something else, by kind: pictures, text, code.
        left_out: how many files of folders were left out as was asked for.
        failing: the verdicts that fail it.
        notes: what else a reader must know, a sentence each.
        clean_scores: log-odds of the clean networks by which the detector is calibrated, in ascending order.
        general: scope and figures of the detector for other architectures; empty if there was none.
    """

    findings: tuple[Finding, ...]
    detector: Mapping[str, Any] = field(default_factory=dict)
    false_alarms: float = 0.05
    seconds: float = 0.0
    not_checkpoints: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0
    failing: tuple[Verdict, ...] = FAILING
    notes: tuple[str, ...] = ()
    clean_scores: tuple[float, ...] = ()
    general: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        counted = ", ".join(f"{number} {worded(verdict)}" for verdict, number in self.counts.items())
        return f"<Scan: {counted or 'nothing'}>"

    def _repr_html_(self) -> str:
        rows = [(finding.file, worded(finding.verdict), finding.reason) for finding in self.ordered]
        bound = {"false alarms": f"at most {self.false_alarms:.1%} of clean networks, on average"}
        return card(repr(self)[1:-1], bound, header=("file", "verdict", "why"), rows=rows)

    @property
    def ordered(self) -> list[Finding]:
        """The findings, the gravest first; within a verdict in the order in which they were found."""
        return sorted(self.findings, key=lambda finding: GRAVITY.index(finding.verdict))

    @property
    def gravest(self) -> Verdict:
        for verdict in self.counts:
            return verdict
        return "clean"

    @property
    def exit_status(self) -> int:
        """That of the gravest verdict of those that fail, or 0."""
        return next((EXIT_STATUS[verdict] for verdict in self.counts if verdict in self.failing), 0)

    @property
    def counts(self) -> dict[Verdict, int]:
        """Findings by verdict, the gravest first."""
        counted = Counter(finding.verdict for finding in self.findings)
        return {verdict: counted[verdict] for verdict in GRAVITY if counted[verdict]}

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.gravest,
            "exit_status": self.exit_status,
            "failing": list(self.failing),
            "counts": self.counts,
            "not_checkpoints": dict(self.not_checkpoints),
            "left_out": self.left_out,
            "false_alarms": self.false_alarms,
            "decided_by": "suspicious if p_value is at most false_alarms, else clean; the probability does not decide",
            "seconds": self.seconds,
            "notes": list(self.notes),
            "detector": dict(self.detector),
            "general_detector": dict(self.general),
            "findings": [finding.to_json() for finding in self.findings],
        }


def worded(verdict: Verdict) -> str:
    """A verdict as a person reads it."""
    return verdict.replace("_", " ")
