"""The help of the command line: of all verbs, of a group, and of one verb."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from weightspace.cli.arguments import EVERYWHERE, REQUIRED, SHORT, Argument, described

STATUSES = {
    0: "done; nothing was found",
    1: "something was found: a leak, a fault, a program that cannot be compiled; of `scan` a suspicious file; of "
    "`lineage` no relative",
    2: "wrong usage, or something given that cannot be used",
    3: "a file that cannot be read or is refused; of `decompile` no proof; of `repair` no class stands out",
    4: "of `scan` and `provenance`: outside of what the detector or the reader knows",
    5: "of `scan --fail-on not-looked-at`: files that were not looked at",
    130: "interrupted",
}
"""Exit statuses of every verb; docs/command-line.md has the same table."""
Verbs = Mapping[str, tuple[Callable[..., int], str]]


def usage(verbs: Verbs, intention: str = "") -> str:
    """Every verb with its sentence; of a group its own, if `intention` names one."""
    chosen = {name: text for name, (_, text) in verbs.items() if name.split()[0] == intention or not intention}
    width = max(map(len, chosen))
    lines = [f"  {name:<{width}}  {text}" for name, text in chosen.items()]
    if intention:
        shown = f"usage: weightspace {intention} VERB [options]\n\n" + "\n".join(lines)
        return f"{shown}\n\nweightspace {intention} VERB --help explains one verb."
    statuses = "\n".join(f"  {status:>3}  {text}" for status, text in STATUSES.items())
    return (
        "usage: weightspace VERB [options]\n\nMeta-models: neural networks that read the weights of other networks.\n\n"
        + "\n".join(lines)
        + f"\n\nexit status\n{statuses}\n\n"
        "weightspace VERB --help explains one verb; weightspace --version prints the version."
    )


def verb_help(verb: Callable[..., int], name: str, known: Sequence[Argument]) -> str:
    """One verb: usage, what it does, operands, options and examples."""
    said, columns = described(verb), min(100, max(60, shutil.get_terminal_size((88, 24)).columns))
    operands = [argument for argument in known if argument.operand]
    needed = [f"--{a.name} {a.value}" for a in known if not a.operand and a.required]
    line = " ".join(["usage:", name, *(argument.value for argument in operands), *needed, "[options]"])
    own = [a for a in known if not a.operand and len(a.path) == 1]
    parts = [line, *(textwrap.fill(paragraph, columns, break_on_hyphens=False) for paragraph in said.text)]
    parts += _section("operands", operands, columns) + _section("options", own, columns)
    for group in dict.fromkeys(a.path[0] for a in known if len(a.path) > 1):
        title = f"options of {group}: {said.parameters.get(group, '')}".rstrip(": .")
        parts += _section(title, [a for a in known if len(a.path) > 1 and a.path[0] == group], columns)
    own_names = {argument.name for argument in known}
    parts += _section("options of every verb", [a for a in EVERYWHERE if a.name not in own_names], columns)
    if said.examples:
        parts.append("examples\n" + "\n".join(f"  {example}" for example in said.examples))
    return "\n\n".join(parts)


def _section(title: str, some: Iterable[Argument], columns: int) -> list[str]:
    rows = [(_left(argument), _right(argument)) for argument in some]
    if not rows:
        return []
    width = min(22, max(len(left) for left, _ in rows))
    lines = [textwrap.fill(title, columns)]
    for left, right in rows:
        text = textwrap.wrap(right, columns - width - 4, break_on_hyphens=False) or [""]
        if len(left) > width:
            lines.append(f"  {left}")
        else:
            lines.append(f"  {left:<{width}}  {text.pop(0)}".rstrip())
        lines += [f"{'':<{width + 4}}{one}" for one in text]
    return ["\n".join(lines)]


def _left(argument: Argument) -> str:
    if argument.operand:
        return argument.value
    short = next((f"{short}, " for short, long in SHORT.items() if long == f"--{argument.name}"), "")
    if argument.kind is bool:
        return f"{short}--[no-]{argument.name}" if argument.default is True else f"{short}--{argument.name}"
    return f"--{argument.name} {argument.value}"


def _right(argument: Argument) -> str:
    """What the docstring says, and the default where it is a value."""
    note = "" if argument.kind is bool else _default(argument.default)
    if argument.required and not argument.operand:
        note = " (has to be given)"
    if argument.kind is bool and argument.default is True:
        note = " (default: yes)"
    if argument.repeated:
        note = " (may be repeated)" if "several times" not in argument.help else ""
    return argument.help + note


def _default(value: Any) -> str:
    if value is REQUIRED or value is None or value == ():
        return ""
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f" (default: {shown})"
