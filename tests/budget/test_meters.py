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
from secateur.types import Inventory, Packing, Site, Weight


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
    assert found == {"nbytes": 100, "macs": 50, "params": 16, "nnz": 10}
    assert list(found) == ["nbytes", "macs", "params", "nnz"]  # the order of tables, and in which a default is chosen
    assert all(isinstance(v, int) for v in found.values())


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
