"""The verb that takes a backdoor out of a file's network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from weightspace.cli.arguments import Positional
from weightspace.cli.options import check_destinations
from weightspace.cli.output import say, say_json
from weightspace.errors import printable

if TYPE_CHECKING:
    from weightspace.backdoors.repairing.file_repair import FileRepair

ABSTAINED = 3
"""Exit status if no class stood out."""


def repair(
    file: Positional[Path],
    out: Path,
    images: Path | None = None,
    report: Path | None = None,
    mean: tuple[float, ...] = (),
    deviation: tuple[float, ...] = (),
    limit: float | None = None,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Look for a backdoor in an image classifier by running it, and write a copy that does not respond to it.

    The smallest trigger towards every class is searched for, with the images and with synthetic ones. If that of one
    class is much smaller than the others', the network is taught to answer images with it as it answers them without;
    else it abstains, and writes nothing (exit status 3). The report, a page and a JSON file, shows the trigger and
    what the repair cost.

    Args:
        file: a checkpoint, of a network whose forward pass is known: see docs/backdoors.md.
        out: the repaired network, a safetensors file; never FILE itself.
        images: a folder of clean images, some hundred if possible: one folder a class in the network's order, or all
            in one place where their classes are not known. Synthetic images of nothing unless given.
        report: the page, with the JSON beside it; beside OUT unless given.
        mean: of the pixels from 0 to 1 that the network was trained on, one number or one a channel; that of the images
            unless given.
        deviation: of these pixels, likewise.
        limit: share of the median class's trigger below which a class stands out; more repairs more, clean networks
            among them. .5 unless given, and .45 by synthetic images.
        seed: of all that is random.
        json: print JSON.

    Examples:
        weightspace repair model.safetensors --images clean --out fixed.safetensors
        weightspace repair model.safetensors --out fixed.safetensors --json
    """
    from weightspace.backdoors.repairing.file_repair import check_fixed, repair_file
    from weightspace.backdoors.repairing.repairing import RepairSettings
    from weightspace.backdoors.repairing.report import write_json, write_report

    page = report if report is not None else out.with_suffix(".html")
    check_fixed(file, out)
    check_destinations(file, {"--out": out, "--report": page, "the JSON of --report": page.with_suffix(".json")})
    if limit is not None and not 0 < limit <= 1:
        raise ValueError(f"--limit takes a share above 0 and up to 1, not {limit}")
    settings = RepairSettings(seed=seed)
    if limit is not None:
        settings = replace(settings, limit=limit, limit_without_images=limit)
    outcome = repair_file(file, images, out, settings, mean, deviation)
    found = outcome.found
    if not found.abstained or report is not None:
        write_report(outcome, page)
        write_json(found, page.with_suffix(".json"))
    say_json(found.to_json()) if json else say(printable_summary(found, page))
    return ABSTAINED if found.abstained else 0


def printable_summary(found: FileRepair, page: Path) -> str:
    """What a person reads in the terminal."""
    named = printable(found.classes[found.suspect])
    size = f"{found.ratio:.0%} of the median class's size"
    if found.abstained and found.ratio < found.limit:
        return (
            f"{printable(found.file)}: a trigger towards class {named} ({size}) was not found a second time, so "
            "nothing was written: give more images, or another --seed"
        )
    if found.abstained:
        return (
            f"{printable(found.file)}: no class stands out (the smallest trigger, towards class {named}, has {size}; "
            f"a network is repaired below {found.limit:.0%}), so nothing was written"
        )
    lines = [
        f"{printable(found.file)}: answers {found.named_by} with a {found.kind} as class {named} ({size})",
        f"the trigger that was found wins {found.success_before:.0%} of the images, now {found.success_after:.0%}",
        f"answered as before: {found.agreement:.1%} of {found.measured} images that the repair did not use",
    ]
    if found.accuracy_before is not None:
        lines.append(f"right answers on these: {found.accuracy_before:.1%}, now {found.accuracy_after:.1%}")
    return "\n".join([*lines, printable(str(found.fixed)), printable(str(page))])
