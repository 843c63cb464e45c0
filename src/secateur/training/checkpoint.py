"""The ledger of a run: finished stages and the state of the one under way, on disk as safetensors with JSON inside.

A stage's record is one file, so tensors and counters can never disagree. A new record replaces the old one by a
rename; killed at any moment, the folder holds the previous or the next state, whole. No pickle.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from secateur import saving
from secateur.errors import FormatError, UsageError

Record = tuple[dict[str, Tensor], dict[str, Any]]
_VERSION = 1


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
            if facts.get("key") != self._key:
                raise UsageError(
                    f"{folder}: the checkpoint belongs to another recipe, model or data set; resume with the same "
                    "ones, choose another folder, or delete it to start anew"
                )
            if path.stem != "current":
                self._done[facts["stage"]] = (tensors, facts["facts"])
            else:
                self._current: tuple[str, Record] | None = (facts["stage"], (tensors, facts["facts"]))

    _current: tuple[str, Record] | None = None

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
    """A safetensors file with the JSON facts in its metadata; tensors that share memory are copied."""
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    return bytes(save(plain, metadata={"secateur": json.dumps(facts)}))


def read(path: Path) -> Record:
    """Tensors and facts of a file that `encode` made.

    Raises:
        FormatError: damaged, truncated or not ours.
    """
    try:
        with safe_open(path, framework="pt") as f:
            text = (f.metadata() or {}).get("secateur")
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - not a mapping
        facts = json.loads(text) if text is not None else None
    except (SafetensorError, ValueError, OSError) as e:
        raise FormatError(f"{path}: damaged checkpoint ({e}); delete {path.parent} to start anew") from None
    if not isinstance(facts, dict) or facts.get("version", _VERSION) != _VERSION:
        raise FormatError(f"{path}: not a checkpoint that this version reads; delete {path.parent} to start anew")
    return tensors, facts
