"""Activations on an 8-bit grid whose scale an observer finds in what calibration saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._pieces import Free, ScaledCodes
from secateur.constraints._scale import best_scale
from secateur.contracts import ActivationSet, Piece
from secateur.errors import ConstraintError, UsageError
from secateur.types import Level, Packing

_OBSERVERS = ("minmax", "moving", "percentile", "mse")
_BITS = 8
_MOMENTUM = 0.1  # of the newest batch in a moving range, as torch's observers have it


@dataclass(frozen=True)
class Observed(ActivationSet):
    """{scale * q : q whole, low <= q <= high}: 0..255 where `signed` is False, else -128..127; there is no zero point.

    It acts on activations: `where` names layers, and what these read lies on a grid each (`graph/activations.py`). The
    matrix is the calibration sample, a row per batch; the scale is all that is stored.

    Attributes:
        observer: what must fit: `minmax` - the largest magnitude of all batches; `moving` - its moving average over the
            batches (0.9 old, 0.1 new); `percentile` - that percentile of all magnitudes; `mse` - nothing must: the
            scale of the least squared error.
        percentile: for that observer.
        batches: of training data that calibration looks at.
        signed: set by the place: False behind a ReLU.

    Reference: Jacob et al., CVPR 2018, arXiv:1712.05877, sec. 3.1 (ranges of activations).
    """

    observer: str = "minmax"
    percentile: float = 99.99
    exact: ClassVar[bool] = False
    level_keys: ClassVar[tuple[str, ...]] = ("bits",)
    reference: ClassVar[str] = "Jacob et al., CVPR 2018, arXiv:1712.05877, sec. 3.1"

    def __post_init__(self) -> None:
        if self.observer not in _OBSERVERS:
            raise UsageError(f"observer: {self.observer!r}; {', '.join(_OBSERVERS)} are possible")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"observed: percentile is {self.percentile:g}; above 50 and at most 100 is needed")
        if self.batches < 1:
            raise UsageError(f"calibration.batches: {self.batches}; at least 1 is needed")

    def levels(self, shape: tuple[int, int]) -> Sequence[Level]:
        return (_BITS,)

    def parse_level(self, given: Mapping[str, Any], shape: tuple[int, int]) -> Level:
        key, value = lv.only_key("observed", given, self.level_keys)
        return lv.whole("observed", key, value, _BITS, _BITS)

    def scale(self, sample: Tensor) -> float:
        """The scale for values like those of `sample`, a float32 number > 0.

        A value that never was other than zero gets the scale 1.

        Args:
            sample: float [batches, values].
        Raises:
            ConstraintError: empty, NaN or infinity, or a negative value on an unsigned grid.
        """
        lv.checked("observed", sample, None)
        if not sample.numel():
            raise ConstraintError(f"observed {list(sample.shape)}: no values; calibration needs at least one batch")
        if not self.signed and bool((sample < 0).any()):
            raise ConstraintError("observed: negative values on an unsigned grid; set signed")
        size = sample.detach().double().abs().cpu()
        top = self.ends[1]
        if self.observer == "mse":
            scale = best_scale(size.numpy().ravel(), np.ones(size.numel()), top, True)
        else:
            scale = self._reach(size) / top
        return float(np.float32(scale)) or 1.0

    def _reach(self, size: Tensor) -> float:
        """The magnitude that must fit."""
        if self.observer == "percentile":
            return float(np.quantile(size.numpy(), self.percentile / 100)) or float(size.max())
        most = size.amax(dim=1).tolist()
        if self.observer == "minmax":
            return float(max(most))
        reach = most[0]
        for now in most[1:]:
            reach += _MOMENTUM * (now - reach)
        return float(reach)

    def project(self, weight: Tensor, level: Level, importance: Tensor | None = None) -> Tensor:
        """The sample rounded to the grid, halves to even, what lies beyond it cut off.

        Heuristic: the nearest on the grid of the scale that the observer finds. `importance` does not shape the scale.
        """
        if level is None:
            lv.checked("observed", weight, importance)
            return weight.clone()
        if self.contains(weight, level):
            return weight + 0.0
        scale = self.scale(weight)
        codes = (weight.double() / scale).round().clamp(*self.ends)
        return (codes * scale).to(weight.dtype).add_(0.0)

    def contains(self, weight: Tensor, level: Level) -> bool:
        return level is None or self._codes(weight) is not None

    def _codes(self, weight: Tensor) -> tuple[Tensor, float] | None:
        """Whole numbers inside the ends and a scale whose products are `weight`; None where there are none."""
        lv.checked("observed", weight, None)
        size = weight.detach().double().abs()
        most = float(size.max()) if size.numel() else 0.0
        if most == 0.0:
            return torch.zeros_like(weight, dtype=torch.int16), 1.0
        slack = 4 * torch.finfo(weight.dtype).eps
        low, high = self.ends
        for top in range(1, max(-low, high) + 1):
            scale = most / top
            ratio = weight.double() / scale
            codes = ratio.round()
            near = bool(((ratio - codes).abs() <= slack * top).all())
            if near and int(codes.min()) >= low and int(codes.max()) <= high:
                return codes.to(torch.int16), scale
        return None

    def freeze(self, weight: Tensor, level: Level) -> Piece:
        """The codes stay; the scale is free."""
        if level is None:
            return Free()
        found = self._codes(weight)
        if found is None:
            raise ConstraintError(f"observed {list(weight.shape)}: freeze needs a member; project first")
        return ScaledCodes(found[0], weight.clone(), False, 0, self.ends[1])

    def packing(self, shape: tuple[int, int], level: Level) -> Packing:
        """The scale, a float32 number."""
        return Packing(1, 1)
