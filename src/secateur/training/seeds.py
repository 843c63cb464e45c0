"""Stateless randomness: every draw is a function of (seed, stage, step), so a checkpoint needs no generator state."""

from __future__ import annotations

import ctypes
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.utils.deterministic as det

from secateur.engine import usable_cpus


def derive(*parts: int | str) -> int:
    """A 63-bit seed from the parts; equal parts give equal seeds on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator for these parts."""
    return torch.Generator().manual_seed(derive(*parts))


def seed_global(*parts: int | str) -> None:
    """Seed torch's and Python's global generators (dropout and the caller's own loaders draw from them)."""
    value = derive(*parts)
    torch.manual_seed(value)
    random.seed(value)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_memory() -> None:
    """Tell glibc to keep freed memory: it returns big temporaries to the system after each step otherwise.

    2,750 page faults and 6 of the 39 ms of a LeNet-5 step. Another C library is left alone.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def isolated(threads: int | None = None) -> Iterator[None]:
    """Deterministic algorithms and a thread count inside; the caller's generators, threads and flags come back after.

    `threads` None: torch's number, but no more than the process may use (`engine.usable_cpus`).
    `use_deterministic_algorithms` warns instead of raising where torch has no deterministic kernel: on the CPU all
    kernels that training here uses are deterministic for a fixed thread count.
    """
    import numpy as np

    mode, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    n_threads, python_state, numpy_state = torch.get_num_threads(), random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Memory is filled only to expose reads of uninitialised tensors; it costs an extra pass over every `empty`.
        fill, det.fill_uninitialized_memory = det.fill_uninitialized_memory, False  # type: ignore[attr-defined]
        # Torch's own number knows the affinity mask and nothing of a quota of CPU time, as containers have it.
        torch.set_num_threads(min(n_threads, usable_cpus()) if threads is None else threads)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)
            det.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
            torch.use_deterministic_algorithms(mode, warn_only=warn)
            random.setstate(python_state)
            np.random.set_state(numpy_state)
