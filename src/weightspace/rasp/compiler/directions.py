"""The directions of a compiled transformer by the variables of its program."""

from __future__ import annotations

from collections.abc import Mapping

from weightspace.rasp.compiler.assemble import direction_labels
from weightspace.rasp.compiler.transformer import CompiledTransformer, Directions
from weightspace.rasp.program import Program
from weightspace.rasp.validate import Mode, analyse


def direction_names(program: Program, transformer: CompiledTransformer) -> dict[str, str]:
    """The variable of the program that each group of directions belongs to, by the group's label.

    Args:
        transformer: compiled from this program.
    """
    fixed: Mode = "tracr_compat" if transformer.mode == "tracr_compat" else "fixed"
    analysis = analyse(program, transformer.vocab, transformer.max_seq_len, fixed)
    operations = [known for known in analysis.traits.values() if known.depth]
    labels = direction_labels(analysis.program, operations, fixed == "fixed")
    return {labels[id(known.node)]: analysis.program.name(known.node) for known in operations}


def named(group: Directions, names: Mapping[str, str]) -> tuple[str, ...]:
    """The name of each direction of a group, with the program's variables in the place of the compiler's labels.

    Args:
        names: from `direction_names`; may be empty.
    """
    label = group.label
    for known in sorted(names, key=len, reverse=True):  # what a label begins with may be another label
        if label == known or label.startswith((f"{known}_selector_width_attn", f"{known}_none")):
            label = names[known] + label.removeprefix(known)
            break
    return group._replace(label=label).names
