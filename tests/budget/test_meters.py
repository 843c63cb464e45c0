"""Every meter of the catalog obeys the laws, and the laws notice what breaks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from secateur import catalog
from secateur.budget import kinds
from secateur.budget.meters.macs import MACs
from secateur.budget.meters.nbytes import NBytes
from secateur.budget.meters.nnz import NNZ
from secateur.budget.meters.params import Params
from secateur.contracts import Meter
from secateur.testing.meters import check_meter
from secateur.types import Inventory, Member, Packing, Site, Weight


@pytest.mark.parametrize("kind", catalog.names("budget.meters"))
def test_laws(kind: str) -> None:
    check_meter(kinds.meter(kind))


def test_what_each_kind_counts() -> None:
    """A layer of 4 x 3 with two zeros, used at five places, its bias, and a file of 100 bytes."""
    value = torch.ones(4, 3)
    value[0, :2] = 0
    layer = Weight("a.weight", "conv", 10, 5, None, value)
    bias = Weight("a.bias", "bias", 4, 1, None, torch.ones(4))
    found = kinds.measured(Inventory((layer, bias), lambda: 100))
    assert found == {"nbytes": 100, "crossbars": 1, "macs": 50, "params": 16, "nnz": 10}
    assert list(found) == [
        "nbytes",
        "crossbars",
        "macs",
        "params",
        "nnz",
    ]  # the order of tables, and in which a default is chosen
    assert all(isinstance(v, int) for v in found.values())


def test_crossbars_are_columns_of_bands_moved_together() -> None:
    """130 outputs are three bands, of 64, 64 and 2; 300 inputs fill three arrays in each."""
    value = torch.ones(130, 300)
    crossbars = kinds.meter("crossbars")

    def arrays(w: torch.Tensor, op: str = "linear") -> float:
        return crossbars.measure(Inventory((Weight("w", op, 0, 1, None, w),), lambda: 0))

    assert arrays(value) == 9
    assert arrays(value.t(), "matmul") == 9
    assert arrays(value, "embedding") == 0
    value[:64, 100:272] = 0  # 128 inputs are left of the first band: one array
    assert arrays(value) == 7
    value[5, 150] = 1
    assert arrays(value) == 8
    value[64:128] = 0
    assert arrays(value) == 5
    assert arrays(torch.ones(10, 16, 3, 3), "conv") == 2  # 144 inputs
    site = Site("w", "linear", (128, 256), (Member("w"),))
    for pattern, kept, wanted in (("any", 0.5, 4), ("64x1", 0.2, 2), ("64x128", 0.25, 1), ("channels", 0.5, 2)):
        packing = Packing(128 * 256, int(kept * 128 * 256), pattern=pattern)
        assert crossbars.cost(site, packing) == pytest.approx(wanted, abs=1e-6)
    one_band = Site("w", "linear", (64, 256), (Member("w"),))
    for kept, wanted in ((128, 1), (129, 2)):
        assert crossbars.cost(one_band, Packing(64 * 256, 64 * kept, pattern="64x1")) == wanted


def test_crossbars_of_columns_that_bands_share_unevenly() -> None:
    """The estimate is the mean over places: at 384 of 1,536 columns every second band begins one more array."""
    crossbars = kinds.meter("crossbars")
    site = Site("w", "linear", (192, 512), (Member("w"),))
    generator = torch.Generator().manual_seed(0)
    for kept in (300, 384, 430, 768, 800):
        found = []
        for _ in range(300):
            chosen = torch.zeros(3 * 512)
            chosen[torch.randperm(3 * 512, generator=generator)[:kept]] = 1
            value = chosen.view(3, 1, 512).expand(3, 64, 512).reshape(192, 512)
            found.append(crossbars.measure(Inventory((Weight("w", "linear", 0, 1, None, value),), lambda: 0)))
        priced = crossbars.cost(site, Packing(192 * 512, 64 * kept, pattern="64x1"))
        assert priced == pytest.approx(sum(found) / len(found), rel=0.03), kept


def test_a_file_is_made_only_for_who_reads_it() -> None:
    def never() -> int:
        raise AssertionError("a file was asked for")

    kinds.measured(Inventory((), never), ["nnz", "macs", "params"])
    with pytest.raises(AssertionError, match="asked for"):
        kinds.measured(Inventory((), never), ["nbytes"])


@dataclass(frozen=True)
class Cheaper(NNZ):
    def cost(self, site: Site, packing: Packing) -> float:
        return float(packing.n - packing.nnz)


@dataclass(frozen=True)
class Twice(NNZ):
    def cost(self, site: Site, packing: Packing) -> float:
        return 2 * super().cost(site, packing)


@dataclass(frozen=True)
class FreeBias(Params):
    def cost(self, site: Site, packing: Packing) -> float:
        return 0.0 if site.op == "bias" else super().cost(site, packing)


@dataclass(frozen=True)
class NoUnit(NBytes):
    def write(self, value: float) -> str:
        return f"{value:g}"


@dataclass(frozen=True)
class AnyUnit(NNZ):
    def parse(self, given: Any) -> float:
        return float(str(given).partition(" ")[0])


@dataclass(frozen=True)
class Curt(NNZ):
    def parse(self, given: Any) -> float:
        try:
            return super().parse(given)
        except ValueError:
            raise ValueError(f"no: {given!r}") from None


@dataclass(frozen=True)
class Silent(MACs):
    def least(self, value: float) -> str:
        return "too small"


@dataclass(frozen=True)
class Reckless(NBytes):
    margin: ClassVar[float] = 1.5


@dataclass(frozen=True)
class Sure(NBytes):
    margin: ClassVar[float] = 0.0  # a file is never what was estimated


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Cheaper(), "cost less than"),
        (Twice(), "dense should cost"),
        (FreeBias(), "a bias is free and measured too"),
        (NoUnit(), "needs a unit|is written"),
        (AnyUnit(), "is read as"),
        (Curt(), "does not say what is needed"),
        (Silent(), "does not say the value"),
        (Reckless(), "a share of the limit"),
        (Sure(), "dense should cost"),
    ],
)
def test_what_breaks_a_law_is_noticed(broken: Meter, said: str) -> None:
    with pytest.raises((AssertionError, ValueError), match=said):
        check_meter(broken)
