"""Compiled weights made harder to read without training: reordered, turned, noisy, compressed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from weightspace.decompiler.examples import input_codes
from weightspace.decompiler.lifting.align import with_stream
from weightspace.decompiler.proof.certificate import permuted as reordered
from weightspace.errors import RaspError
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.transformer import CompiledTransformer


def clean(transformer: CompiledTransformer | BareTransformer, seed: int = 0) -> BareTransformer:  # noqa: ARG001
    """The weights as they were compiled, without the names of directions."""
    return transformer if isinstance(transformer, BareTransformer) else BareTransformer.of(transformer)


def permuted(transformer: CompiledTransformer | BareTransformer, seed: int) -> BareTransformer:
    """Directions, hidden units, heads and the columns within heads in a random order; nothing else changes."""
    return reordered(clean(transformer), seed)


def rotated(transformer: CompiledTransformer | BareTransformer, seed: int) -> BareTransformer:
    """Permuted weights, the residual stream turned by a random orthogonal matrix Q, evenly drawn (Haar).

    Every matrix W that reads the stream becomes Q^T W, every one that writes to it W Q, the embeddings too; the readout
    follows.
    """
    bare = permuted(transformer, seed)
    random = np.random.default_rng([seed, 2])
    q, r = np.linalg.qr(random.standard_normal((bare.width, bare.width)))
    return with_stream(bare, q * np.sign(np.diag(r)))


def noisy(transformer: CompiledTransformer | BareTransformer, seed: int, share: float) -> BareTransformer:
    """Permuted weights with Gaussian noise.

    Args:
        share: standard deviation of the noise in a matrix as a share of that matrix's own, which is taken over all of
            its entries, zeros (most of them) included. Each layer's matrix, all heads, is one. Matrices that are all
            zero stay so, and so do biases and the readout.
    """
    bare = permuted(transformer, seed)
    random = np.random.default_rng([seed, 3])
    params = {}
    for name, array in bare.params.items():
        noise = random.standard_normal(array.shape)  # drawn in any case: one matrix's noise hangs on no other
        scale = share * float(array.std()) if array.ndim == 2 and array.any() else 0.0
        params[name] = (array + scale * noise).astype(np.float32) if scale else array
    return replace(bare, params=params)


def compressed(transformer: CompiledTransformer | BareTransformer, seed: int, share: float) -> BareTransformer:
    """Permuted weights, the residual stream compressed to its principal directions; nothing is trained.

    The stream's activations at all half-layers and places, over all inputs or a sample of them, have the (uncentred)
    principal directions V (width, ceil(share * width)). Every matrix W that reads becomes V^T W, every one that writes
    W V, embeddings and readout too. Much of a compiled stream is redundant (the tokens' directions sum up to `one`, PAD
    is never there), so that 0.9 often loses nothing.

    Args:
        seed: of the sample.
        share: of the directions that are kept, in (0, 1].
    """
    if not 0 < share <= 1:
        raise RaspError(f"a stream is compressed to a share of its directions in (0, 1], not {share}")
    bare = permuted(transformer, seed)
    gram = np.zeros((bare.width, bare.width))
    for group in input_codes(bare, seed):
        for stream in bare.activations(group).stream:
            flat = stream.reshape(-1, bare.width).astype(float)
            gram += flat.T @ flat
    _, vectors = np.linalg.eigh(gram)
    kept = vectors[:, ::-1][:, : math.ceil(share * bare.width - 1e-9)]
    largest = np.abs(kept).argmax(0)
    return with_stream(bare, kept * np.sign(kept[largest, np.arange(kept.shape[1])]))
