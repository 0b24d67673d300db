"""A scan as SARIF 2.1.0 for the tools that collect findings, and as one HTML file for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from weightspace import __version__
from weightspace.backdoors.score_histogram import draw_histogram, histogram_of
from weightspace.backdoors.summary import counted, groups, judges_of, scope_of, together
from weightspace.backdoors.verdict import PROBABILITY, Finding, Scan, Verdict, worded
from weightspace.files.atomic import write_atomically
from weightspace.pages.page import render_page
from weightspace.project import page

RULES: dict[Verdict, tuple[str, str, str]] = {
    "suspicious": ("WS001", "BackdoorSuspected", "The weights look like those of networks with a backdoor."),
    "unreadable": ("WS002", "Unreadable", "No weights could be read, or the file was refused as it would run code."),
    "out_of_scope": ("WS003", "OutOfScope", "The detector was not trained on such networks and says nothing of it."),
    "not_looked_at": ("WS004", "NotLookedAt", "It may hold weights in a form that is not known, or was not followed."),
}
"""Identifier, name and description of each rule. Files that are clean, allowed, or weightspace's own have none: they
are listed as artifacts."""
HELP: dict[Verdict, str] = {
    "suspicious": "Do not use the file before somebody has looked at it. Ask where it comes from, compare its SHA-256 "
    "with its publisher's, or train it again. A share of clean networks is called suspicious too, as the result says.",
    "unreadable": "Do not load the file. Ask for it as safetensors, or look at it with weightspace inspect.",
    "out_of_scope": "Nothing is known about the file. weightspace backdoors train makes a detector for such networks.",
    "not_looked_at": "Nothing is known about the file. Name it alone, or leave it out with --exclude.",
}
"""What to do about each."""
WHERE = page("docs/backdoors.md")
LEVELS: dict[Verdict, str] = {
    "suspicious": "error",
    "unreadable": "error",
    "out_of_scope": "warning",
    "not_looked_at": "note",
}


def sarif(scan: Scan) -> dict[str, Any]:
    """A scan as a SARIF 2.1.0 log: every file an artifact with its hash, every file that is not clean a result."""
    order = list(RULES)
    results = []
    for index, finding in enumerate(scan.findings):
        if finding.verdict not in RULES:
            continue
        location: dict[str, Any] = {
            "physicalLocation": {"artifactLocation": {"uri": _uri(finding.file), "index": index}}
        }
        if finding.neurons and finding.verdict == "suspicious":
            location["logicalLocations"] = [{"name": blame.name, "kind": "member"} for blame in finding.neurons]
        result: dict[str, Any] = {
            "ruleId": RULES[finding.verdict][0],
            "ruleIndex": order.index(finding.verdict),
            "level": LEVELS[finding.verdict],
            "message": {"text": " ".join([finding.reason, *finding.notes])},
            "locations": [location],
            "properties": {
                PROBABILITY if name == "probability" else name: getattr(finding, name)
                for name in ("probability", "p_value", "distance")
                if getattr(finding, name) is not None
            },
        }
        if finding.sha256 is not None:
            result["fingerprints"] = {"sha256/v1": finding.sha256}
        results.append(result)
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "weightspace",
                        "version": __version__,
                        "semanticVersion": __version__,
                        "informationUri": WHERE,
                        "rules": [
                            {
                                "id": identifier,
                                "name": name,
                                "shortDescription": {"text": text},
                                "fullDescription": {"text": f"{text} {HELP[verdict]}"},
                                "help": {"text": HELP[verdict], "markdown": f"{HELP[verdict]}\n\n[More]({WHERE})"},
                                "helpUri": WHERE,
                                "defaultConfiguration": {"level": LEVELS[verdict]},
                            }
                            for verdict, (identifier, name, text) in RULES.items()
                        ],
                        "properties": {
                            "scope": list(scope_of(scan)),
                            "falseAlarms": scan.false_alarms,
                            "notCheckpoints": dict(scan.not_checkpoints),
                            "leftOut": scan.left_out,
                        },
                    }
                },
                "invocations": [{"executionSuccessful": True, "exitCode": scan.exit_status}],
                "artifacts": [_artifact(finding) for finding in scan.findings],
                "results": results,
            }
        ],
    }


def _artifact(finding: Finding) -> dict[str, Any]:
    found: dict[str, Any] = {"location": {"uri": _uri(finding.file)}, "length": finding.size}
    if finding.sha256 is not None:
        found["hashes"] = {"sha-256": finding.sha256}
    return found | {"properties": {"verdict": finding.verdict}}


def _uri(file: str) -> str:
    """A path as a relative or absolute URI reference; one of the hub stays what it is."""
    text = file if file.startswith("hf://") else Path(file).as_posix()
    return quote(text.encode("utf-8", "backslashreplace"), safe="/:@")


def write_sarif(scan: Scan, path: str | Path) -> None:
    """Write `sarif`, whole or not at all."""
    write_atomically(Path(path), json.dumps(sarif(scan), indent=1, allow_nan=False).encode())


ADVICE: dict[Verdict, str] = {
    "suspicious": "Do not use it yet. Ask whoever made it how it was trained, and compare its hash with what they "
    "published. Try it on images with small patches and patterns: a backdoor shows as one class that wins whatever the "
    "image is. The neurons named with it are where to look first. About as many clean networks as the limit says are "
    "called suspicious too.",
    "unreadable": "Do not load it with a program that executes what is in it. Ask for the same weights as safetensors. "
    "If you expected weights, download it again: it may be cut short.",
    "out_of_scope": "Nothing is said of it, neither good nor bad. A detector for networks of its kind can be trained: "
    "weightspace backdoors train ZOO.",
    "not_looked_at": "Nothing is said of it. Unpack archives and scan what is in them; name links themselves.",
    "clean": "Nothing was seen, which is no proof: the detector misses backdoors, and how many is said below. Use it "
    "as you would use a network of its origin that was not scanned.",
    "allowed": "It is on your list of files that are allowed, by its hash, and was not judged.",
    "ours": "Nothing to do: files of weightspace itself, such as zoos and meta-models.",
}
"""What a person does next with a file, by its verdict."""


def write_scan(scan: Scan, path: str | Path) -> None:
    """Write a scan as one self-contained HTML file, whole or not at all.

    It loads nothing (its own policy forbids it), follows light and dark mode, prints, and reads from 360 px on. Files
    can be sorted, and chosen by verdict and name; the address says how.
    """
    found = histogram_of(scan)
    cards = {"special": scan.detector, "general": scan.general}
    judges = [(told, cards[kind].get("figures")) for kind, told in judges_of(scan).items()]
    text = render_page(
        "weightspace.backdoors",
        "page.html",
        scripts=("page.js",),
        filters={"worded": worded},
        scan=scan,
        groups=list(groups(scan.ordered)),
        together=together,
        counted=counted(scan)[1:],
        judges=judges,
        shown=None if found is None else int(found.scanned.sum()),
        judged=sum(finding.verdict in ("suspicious", "clean") for finding in scan.findings),
        version=__version__,
        advice=ADVICE,
        histogram=None if found is None else draw_histogram(found),
    )
    write_atomically(Path(path), text.encode())
