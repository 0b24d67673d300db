"""The three ways to hold a program against given weights: a certificate, its behaviour, its distance."""

from weightspace.decompiler.proof.behaviour import Behaviour, behaviour, compare_behaviour, unread_directions
from weightspace.decompiler.proof.certificate import (
    Certificate,
    Columns,
    certify,
    certify_rewritten,
    certify_transformer,
    compiled_for,
    modes_of,
    permuted,
)
from weightspace.decompiler.proof.distance import Distance, distance, distance_of

__all__ = [
    "Certificate",
    "Columns",
    "certify",
    "certify_rewritten",
    "certify_transformer",
    "Behaviour",
    "behaviour",
    "compare_behaviour",
    "unread_directions",
    "Distance",
    "distance",
    "distance_of",
    "compiled_for",
    "modes_of",
    "permuted",
]
