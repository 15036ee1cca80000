# SPDX-License-Identifier: Apache-2.0
"""Randomness as a function of (seed, epoch, sample, purpose).

An image's augmentation and mask must not depend on how many draws came before, nor on rank,
worker or batch: the same run on 1 or 8 processes is then the same experiment, and a resumed run
sees what the uninterrupted one would have seen. So nothing is drawn from a stream that runs on:
each draw starts from a key.
"""
import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # the increment of SplitMix64, as a signed 64-bit integer
_INVERSE = pow(_GOLDEN, -1, 1 << 64) - (1 << 64)  # _INVERSE * _GOLDEN is 1 modulo 2^64
_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


def sample_key(seed: int, epoch: int, sample: int, purpose: str) -> int:
    """A 63-bit key; equal arguments give equal keys on every machine and in every process."""
    text = f'{int(seed)}/{int(epoch)}/{int(sample)}/{purpose}'
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def seed_globals(key: int) -> None:
    """Starts ``random``, ``numpy.random`` and torch's CPU generator from ``key``."""
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)
    torch.random.default_generator.manual_seed(key)


@contextlib.contextmanager
def seeded_globals(key: int) -> Iterator[None]:
    """Within it, ``random``, ``numpy.random`` and torch's CPU generator start from ``key``.

    OpenMMLab's transforms draw from these global generators. The states found are put back, so a
    pipeline run in the main process leaves no trace in the training's own draws.
    """
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    seed_globals(key)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


def uniform(keys: Tensor, n: int) -> Tensor:
    """``n`` uniform numbers for each key: SplitMix64 started at the key, its counter the position.

    Integer arithmetic on the keys' device: the same numbers on CPU and CUDA, no host
    synchronisation, nothing that keeps state.

    Args:
        keys: (B,) int64.
        n: how many numbers a key.

    Returns:
        (B, n) float32 in the open interval (0, 1), in steps of 2^-23.
    """
    counter = torch.arange(1, n + 1, device=keys.device, dtype=torch.int64)
    # keys + counter * _GOLDEN, written so that nothing but data is multiplied. torch.compile turns
    # a multiple of an arange into arithmetic on a C++ loop index, where signed overflow is
    # undefined (GCC then lets the loop write past its buffer) and steps are 32 bits wide (2.14).
    z = (keys[:, None] * _INVERSE + counter[None]) * _GOLDEN
    z = (z ^ _shift_right(z, 30)) * _MIX[0]
    z = (z ^ _shift_right(z, 27)) * _MIX[1]
    z = z ^ _shift_right(z, 31)
    return (_shift_right(z, 41).to(torch.float32) + 0.5) * 2.0**-23


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's ``>>`` on int64 is arithmetic and would drag the sign along."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
