"""Activations on an 8-bit grid whose scale an observer finds in what calibration saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.constraints import _levels as lv
from secateur.constraints._observers import OBSERVERS, PERCENTILE, scale_of
from secateur.constraints._pieces import Free, ScaledCodes
from secateur.contracts import ActivationSet, Piece
from secateur.errors import ConstraintError, UsageError
from secateur.types import Level, Packing

_BITS = 8


@dataclass(frozen=True)
class Observed(ActivationSet):
    """{scale * q : q whole, low <= q <= high}: 0..255 where `signed` is False, else -128..127; there is no zero point.

    It acts on activations: `where` names layers, and what these read lies on a grid each (`graph/activations.py`). The
    matrix is the calibration sample, a row per batch; the scale is all that is stored.

    Attributes:
        observer: what must fit: `minmax` - the largest magnitude of all batches; `moving` - its moving average over the
            batches (0.9 old, 0.1 new); `percentile` - that percentile of all magnitudes; `mse` - nothing must: the
            scale of the least squared error; `entropy` - the magnitude of the least KL divergence.
        percentile: for that observer.
        batches: of training data that calibration looks at.
        signed: set by the place: False behind a ReLU.

    Reference: Jacob et al., CVPR 2018, arXiv:1712.05877, sec. 3.1 (ranges of activations).
    """

    observer: str = "minmax"
    percentile: float = PERCENTILE
    exact: ClassVar[bool] = False
    level_keys: ClassVar[tuple[str, ...]] = ("bits",)
    reference: ClassVar[str] = "Jacob et al., CVPR 2018, arXiv:1712.05877, sec. 3.1"

    def __post_init__(self) -> None:
        if self.observer not in OBSERVERS:
            raise UsageError(f"observer: {self.observer!r}; {', '.join(OBSERVERS)} are possible")
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
        """The scale for values like those of `sample`, a float32 number > 0: `_observers.scale_of`.

        Args:
            sample: float [batches, values].
        Raises:
            ConstraintError: empty, NaN or infinity, or a negative value on an unsigned grid.
        """
        lv.checked("observed", sample, None)
        return scale_of(self.observer, sample.detach().double().cpu().numpy(), self.signed, self.percentile)

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
