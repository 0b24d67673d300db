"""The three ways to hold a program against given weights: a certificate, its behaviour, its distance."""

from weightspace.rasp.behaviour import Behaviour, behaviour, compare_behaviour, unread_directions
from weightspace.rasp.certificate import (
    Certificate,
    Columns,
    certify,
    certify_transformer,
    compiled_for,
    modes_of,
    permuted,
)
from weightspace.rasp.distance import Distance, distance, distance_of

__all__ = [
    "Certificate",
    "Columns",
    "certify",
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
