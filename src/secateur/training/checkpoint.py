"""The ledger of a run: finished stages and the state of the one under way, on disk as safetensors with JSON inside.

A stage's record is one file, so tensors and counters can never disagree. A new record replaces the old one by a
rename; killed at any moment, the folder holds the previous or the next state, whole. Every file carries a checksum of
all its bytes: a disk that flips a bit must not change a result. No pickle.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from secateur.errors import FormatError, UsageError
from secateur.shell import saving

Record = tuple[dict[str, Tensor], dict[str, Any]]
_VERSION = 2
_DIGEST = re.compile(rb'"blake2b":"([0-9a-f]{32})"')  # of the whole file with zeros in its place
_ZEROS = "0" * 32


class Ledger:
    """Stage name -> record. Without a folder it lives in memory.

    Args:
        folder: the run's `checkpoint/`; created on the first write.
        recipe: text that the run depends on; resuming with another one is refused.
        seconds: time between two checkpoints of a running stage.
        write: how a file is written (tests inject a full disk).
        resume: read what is there; otherwise a folder with records is refused, so that no work is lost unasked.
    """

    def __init__(
        self,
        folder: Path | None = None,
        recipe: str = "",
        seconds: float = 30.0,
        write: saving.Writer = saving.write_bytes,
        resume: bool = False,
    ) -> None:
        self._folder, self._seconds, self._write = folder, seconds, write
        self._done: dict[str, Record] = {}
        self._last = time.monotonic()
        self._key = hashlib.blake2b(recipe.encode(), digest_size=16).hexdigest()
        if folder is None or not folder.is_dir():
            return
        records = sorted(folder.glob("*.safetensors"))
        if records and not resume:
            raise UsageError(
                f"{folder}: holds the checkpoint of an earlier run; --resume goes on from it, another folder leaves it "
                "alone, and deleting it starts anew"
            )
        for path in records:
            tensors, facts = read(path)
            if facts["key"] != self._key:
                raise UsageError(
                    f"{folder}: the checkpoint belongs to another recipe, model or data set; resume with the same "
                    "ones, choose another folder, or delete it to start anew"
                )
            if path.stem != "current":
                self._done[facts["stage"]] = (tensors, facts["facts"])
            else:
                self._current: tuple[str, Record] | None = (facts["stage"], (tensors, facts["facts"]))

    _current: tuple[str, Record] | None = None

    @property
    def going_on(self) -> str:
        """What somebody can do who interrupted the run, for the message that says so."""
        if self._folder is not None:
            return "--resume goes on from the last checkpoint"
        return (
            "nothing was kept, for want of a folder to keep it in; a recipe's run (`secateur compress RECIPE -o DIR`) "
            "writes checkpoints and can be resumed, and so can your own loop with secateur.Compressor"
        )

    def done(self, stage: str) -> Record | None:
        """The record of a finished stage, or None."""
        return self._done.get(stage)

    def fact(self, stage: str, make: Callable[[], Any]) -> Any:
        """A JSON value that is made once per run (a measured cost, a choice) and then remembered."""
        known = self.done(stage)
        if known is None:
            self.finish(stage, {}, {"value": make()})
            known = self._done[stage]
        return known[1]["value"]

    def finish(self, stage: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Record a finished stage; the running state is dropped."""
        name = f"{len(self._done):04d}"
        record = (dict(tensors), json.loads(json.dumps(facts)))
        self._put(name, stage, *record)
        self._done[stage] = record
        self._current = None
        self._remove("current")

    def current(self, stage: str) -> Record | None:
        """The state that stage was in when the run stopped, or None."""
        return self._current[1] if self._current and self._current[0] == stage else None

    def due(self) -> bool:
        """Is it time for a checkpoint?"""
        return self._folder is not None and time.monotonic() - self._last >= self._seconds

    def save(self, stage: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Record the state of the running stage."""
        self._put("current", stage, tensors, facts)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Delete the checkpoint folder's records (the run is complete)."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob("*.safetensors"), reverse=True):
            path.unlink()
        with suppress(OSError):
            self._folder.rmdir()

    def _put(self, name: str, stage: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        if self._folder is None:
            return
        saving.make_folder(self._folder)
        header = {"version": _VERSION, "key": self._key, "stage": stage, "facts": facts}
        self._write(self._folder / f"{name}.safetensors", encode(tensors, header))

    def _remove(self, name: str) -> None:
        if self._folder is not None:
            (self._folder / f"{name}.safetensors").unlink(missing_ok=True)


def encode(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """A safetensors file with the JSON facts and a checksum in its metadata; tensors that share memory are copied."""
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    raw = bytes(save(plain, metadata={"blake2b": _ZEROS, "secateur": json.dumps(facts)}))
    place = _DIGEST.search(raw)
    assert place is not None, "safetensors writes its metadata as compact JSON"
    return raw[: place.start(1)] + _digest(raw).encode() + raw[place.end(1) :]


def read(path: Path) -> Record:
    """Tensors and facts of a file that `encode` made.

    Raises:
        FormatError: damaged, truncated or not ours.
    """
    try:
        raw = path.read_bytes()
        _check_digest(raw)
        tensors = load(raw)
        (length,) = struct.unpack("<Q", raw[:8])
        facts = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["secateur"])
    except (SafetensorError, ValueError, OSError, KeyError, RecursionError) as e:
        raise FormatError(f"{path}: damaged checkpoint ({e}); delete {path.parent} to start anew") from None
    kinds = {"version": int, "key": str, "stage": str, "facts": dict}
    ours = isinstance(facts, dict) and all(isinstance(facts.get(k), kind) for k, kind in kinds.items())
    if not ours or facts["version"] != _VERSION:
        raise FormatError(f"{path}: not a checkpoint that this version reads; delete {path.parent} to start anew")
    return tensors, facts


def _check_digest(raw: bytes) -> None:
    place = _DIGEST.search(raw)
    if place is None:
        raise ValueError("no checksum in it")
    if place[1].decode() != _digest(raw[: place.start(1)] + _ZEROS.encode() + raw[place.end(1) :]):
        raise ValueError("its bytes do not match its checksum")


def _digest(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=16).hexdigest()
