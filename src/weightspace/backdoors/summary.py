"""A scan as a person reads it in a terminal: the gravest first, files with which the same is wrong in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from weightspace.backdoors.verdict import Finding, Scan, worded

ALONE = 3
"""So many files with which the same is wrong are still told one by one."""
CLEAN_ALONE = 10
"""So many clean files are still told one by one."""
NAMED = 3
"""Files that a line of many names."""
_INDENT = " " * 15
_FOOLED = "A network that was trained in another way may fool it: clean means that nothing was seen."


def summary(scan: Scan, blamed: int = 3) -> str:
    """A scan as text: a file or files of one kind, then the next, and what they were judged by.

    Args:
        blamed: neurons that are named of a suspicious file.
    """
    lines: list[str] = []
    for findings in groups(scan.ordered):
        if len(findings) == 1:
            lines += _alone(findings[0], blamed)
        else:
            lines.append(f"{worded(findings[0].verdict):<13}  {together(findings)}")
    lines += ["", *counted(scan)] if len(scan.findings) > 1 or scan.not_checkpoints or scan.left_out else []
    lines += ["", *scan.notes] if scan.notes else []
    lines += ["", *scope_of(scan)]
    return "\n".join(lines)


def groups(findings: Sequence[Finding]) -> Iterator[list[Finding]]:
    """Findings as they are told: suspicious ones alone, many of one verdict and cause together, in the order given."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        cause = "" if finding.verdict in ("clean", "ours") else finding.cause or finding.reason
        alike.setdefault((finding.verdict, cause), []).append(finding)
    for (verdict, _), several in alike.items():
        most = {"clean": CLEAN_ALONE, "ours": 1}.get(verdict, ALONE)
        if len(several) > most and verdict != "suspicious":
            yield several
        else:
            yield from ([finding] for finding in several)


def _alone(finding: Finding, blamed: int) -> list[str]:
    lines = [f"{worded(finding.verdict):<13}  {finding.file}", f"{_INDENT}{finding.reason}"]
    if finding.verdict == "suspicious" and finding.neurons:
        named = ", ".join(f"{b.name} ({b.share:.0%})" for b in finding.neurons[:blamed])
        lines.append(f"{_INDENT}The neurons that raise it most: {named}.")
    return lines + [f"{_INDENT}{note}" for note in finding.notes]


def together(findings: Sequence[Finding]) -> str:
    """Several files of one verdict and cause in one line, without the verdict."""
    verdict, cause = findings[0].verdict, findings[0].cause or f"of each of which is said: {findings[0].reason[:-1]}"
    if verdict == "ours":
        kinds = Counter(finding.cause for finding in findings)
        told = ", ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common())
        return f"{len(findings):,} files of weightspace itself, which are not judged: {told}"
    if verdict == "clean":
        least = min(finding.p_value or 0.0 for finding in findings)
        cause = f"in which nothing was seen: at least {least:.0%} of clean networks look at least as suspicious"
    named = ", ".join(finding.file for finding in findings[:NAMED])
    more = f", and {len(findings) - NAMED:,} more" if len(findings) > NAMED else ""
    return f"{len(findings):,} files {cause}: {named}{more}"


def counted(scan: Scan) -> list[str]:
    """How many files were judged and how, and how many were not and why, in sentences."""
    by_verdict = ", ".join(f"{count:,} {worded(verdict)}" for verdict, count in scan.counts.items())
    lines = [f"{len(scan.findings):,} files: {by_verdict}; {scan.seconds:.1f} s"]
    if scan.not_checkpoints:
        kinds = sorted(scan.not_checkpoints.items(), key=lambda item: (-item[1], item[0]))
        told = ", ".join(f"{count:,} {kind}" for kind, count in kinds)
        lines.append(f"No checkpoints, and not looked at any further: {told}.")
    if scan.left_out:
        lines.append(f"Left out by --include and --exclude: {scan.left_out:,} files or folders.")
    return lines


def scope_of(scan: Scan) -> Sequence[str]:
    """What judged, what it was trained on, and what that means, in sentences."""
    return [sentence for told in judges_of(scan).values() for sentence in told]


def judges_of(scan: Scan) -> dict[str, tuple[str, str]]:
    """Two sentences of each detector that judged, "special" or "general": what it was trained on, and its figures."""
    by = {finding.judged_by for finding in scan.findings}
    told: dict[str, tuple[str, str]] = {}
    if "special" in by:
        facts = scan.detector
        told["special"] = (
            f"Judged by a detector of {facts['architecture']}, trained on {facts['networks']:,} of them "
            f"({facts['images']}), backdoored by {facts['attacks']}.",
            f"On average at most {scan.false_alarms:.1%} of clean networks are called suspicious, by "
            f"{facts['calibration']} that were kept apart; of backdoored ones whose attack works, {facts['detected']} "
            f"at 5%. {_FOOLED}",
        )
    if "general" in by and scan.general:
        facts = scan.general
        told["general"] = (
            f"Judged by the general detector of {facts['architecture']}, made of {facts['networks']:,} networks "
            f"({facts['images']}), backdoored by {facts['attacks']}.",
            f"On average about {scan.false_alarms:.1%} of networks without a backdoor are called suspicious, by the "
            f"{facts['calibration']} of them that have none, each judged by a fit that had not seen it; of those with "
            f"one that works, {facts['detected']} at 5%, and of each file it is said how many of its kind. {_FOOLED}",
        )
    return told
