"""Joint sets: what is special about them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import test_blocks as blocks
import test_nm as nm
import test_rows as rows
import test_topk as topk
import test_uniform as uniform
import torch

from secateur import catalog
from secateur.constraints.all_of import AllOf
from secateur.constraints.blocks import Blocks
from secateur.constraints.codebook import Codebook
from secateur.constraints.nm import NM
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.constraints.uniform import Uniform
from secateur.contracts import Constraint
from secateur.errors import ConstraintError, UsageError
from secateur.recipe import Recipe, build_constraint
from secateur.testing import brute_force
from secateur.types import Stage, log2_choose

RULES = {TopK: topk.rule, NM: nm.rule, Rows: rows.rule, Blocks: blocks.rule}


def oracle(constraint, weight, level, h):
    """Every word of codes or clusters whose nonzeros are a support of all sets."""
    parts = list(constraint.split(level))
    if any(at is None for _, at in parts):
        return None
    values, what = parts[-1] if parts[-1][0].stage == Stage.VALUES else (None, None)
    w, g = weight.ravel(), h.ravel()
    if values is None:
        own, zero = np.arange(2), 0
    elif "entries" in values.level_keys:
        own, zero = np.arange(what + 1), what
    else:
        own, zero = uniform.codes(values, what), 0
    if len(own) ** w.size > brute_force.MOST_WORDS or getattr(values, "per", "tensor") != "tensor":
        return None
    words = own[brute_force.words(len(own), w.size)]
    kept = (words != zero).reshape(-1, *weight.shape)
    for part, at in parts:
        if part.stage == Stage.SUPPORT:
            inside = RULES[type(part)](part, kept, at)
            words, kept = words[inside], kept[inside]
    if values is None:
        return float(((1 - words) @ (g * w**2)).min())
    return float((brute_force.clustered(words, what, w, g) if zero else brute_force.scaled(words, w, g)).min())


LAWS = [
    (constraint, oracle)
    for constraint in (
        AllOf((TopK(), Codebook(min_entries=1, max_entries=3))),
        AllOf((TopK(), Uniform(max_bits=3))),
        AllOf((TopK(), Uniform(per="row", zero="never", min_bits=1))),
        AllOf((NM(), Codebook(min_entries=1, max_entries=3, value_format="float16"))),
        AllOf((Uniform(zero="free", min_bits=1, max_bits=2), Rows())),
        AllOf((Rows(), NM(m=2))),
        AllOf((Rows(), NM(m=2), Codebook(min_entries=1, max_entries=2))),
        AllOf((Blocks(rows=2), TopK(), Uniform(max_bits=2))),
    )
]


def test_parts_are_put_in_order_and_zeros_are_free() -> None:
    joint = AllOf((Codebook(), TopK()))
    assert joint.parts == (TopK(), Codebook(zero="free"))
    assert AllOf((NM(), Uniform())).view == "o_khkw_c"
    assert AllOf((Codebook(), AllOf((Rows(), NM())))).parts == (Rows(), NM(), Codebook(zero="free"))


@dataclass(frozen=True)
class Columns(TopK):
    """A set that reads the columns in an order of its own."""

    view: ClassVar[str] = "o_ckhkw"


@dataclass(frozen=True)
class Signs(Uniform):
    """Values without a zero, and none to be had."""

    zero: str = "never"

    def with_free_zero(self) -> "Signs":
        return self


@dataclass(frozen=True)
class Factors(TopK):
    stage: ClassVar[Stage] = Stage.FORM


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ((TopK(),), "two sets or more"),
        ((), "two sets or more"),
        ((Codebook(), Uniform()), "values from one set"),
        ((TopK(), Codebook(), Uniform()), "values from one set"),
        ((NM(), Columns()), "different orders"),
        ((TopK(), Signs(min_bits=1)), "no zero"),
        ((TopK(), Factors()), "stores other tensors"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(parts: tuple[Constraint, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        AllOf(parts)


def test_a_recipe_says_so_when_it_is_read() -> None:
    with pytest.raises(UsageError, match="values from one set"):
        Recipe.from_dict({"model": "m:m", "constrain": [{"with": ["topk", "codebook", "uniform"]}]})
    three = Recipe.from_dict({"model": "m:m", "constrain": [{"with": ["rows", "nm", "codebook"]}]})
    assert build_constraint(three.constrain[0].with_) == AllOf((Rows(), NM(), Codebook()))


def test_the_old_name_is_still_read() -> None:
    """Recipes and records of earlier versions may say `both`."""
    for parts in (["topk", {"name": "uniform", "per": "row"}], [{"name": "topk"}, {"name": "uniform", "per": "row"}]):
        assert build_constraint({"name": "both", "parts": parts}) == AllOf((TopK(), Uniform(per="row")))
    assert "both" not in catalog.names("constraints")


def test_rows_of_groups_by_hand() -> None:
    """One row of two, 2 of 4: of the rows' own sums the first is larger (1+1+1+1), of what 2:4 leaves the second."""
    w = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.3, 1.2, 0.0, 0.1]])
    joint = AllOf((Rows(), NM()))
    assert joint.project(w, (1, 2)).tolist() == [[0, 0, 0, 0], [pytest.approx(1.3), pytest.approx(1.2), 0, 0]]
    assert joint.project(w, (1, None)).tolist() == [[1.0, 1.0, 1.0, 1.0], [0, 0, 0, 0]]
    with_values = AllOf((Rows(), NM(), Codebook())).project(w, (1, 2, 1))
    assert with_values.tolist() == [[0, 0, 0, 0], [pytest.approx(1.25), pytest.approx(1.25), 0, 0]]


def test_supports_without_values_stay_one_set() -> None:
    """What holds between the approach and the snap: all supports, at their levels."""
    joint = AllOf((Rows(), NM(), Codebook()))
    assert joint.before(Stage.VALUES, (3, 2, 4)) == (AllOf((Rows(), NM())), (3, 2))
    assert joint.before(Stage.VALUES, (None, None, 4)) == (AllOf((Rows(), NM())), None)
    assert AllOf((TopK(), Codebook())).before(Stage.VALUES, (3, 4)) == (TopK(), 3)
    assert Codebook().before(Stage.VALUES, 4) is None


def test_the_gain_decides_not_the_size() -> None:
    """Two values: 10 and 1 are hit exactly, 6 is not; the largest gains stay."""
    w = torch.tensor([[10.0, 1.0, 6.0, 1.0]], dtype=torch.float64)
    z = AllOf((TopK(), Codebook())).project(w, (3, 2))
    assert z.tolist() == [[10.0, 0.0, 6.0, 0.0]] or float((w - z).square().sum()) < 2.0


def test_zeros_stay_zero() -> None:
    w = torch.tensor([[0.0, 3.0, 0.0, 1.0]])
    assert AllOf((TopK(), Uniform(zero="never", min_bits=1))).project(w, (4, 1))[0, [0, 2]].tolist() == [0.0, 0.0]


def test_levels() -> None:
    joint = AllOf((TopK(), Codebook(min_entries=1)))
    assert joint.parse_level({"sparsity": 0.9, "bits": 2}, (10, 10)) == (10, 4)
    with pytest.raises(ConstraintError, match="is missing"):
        joint.parse_level({"bits": 2}, (10, 10))
    with pytest.raises(ConstraintError, match="unknown"):
        joint.parse_level({"bits": 2, "nnz": 3, "rank": 1}, (10, 10))
    with pytest.raises(ConstraintError, match="a level for each"):
        joint.project(torch.ones(2, 2), 3)
    menu = joint.levels((4, 4))
    assert len(menu) == 17 * 256
    assert (16, 256) in menu
    assert (17, 2) not in menu
    assert joint.at_tightness((10, 10), (1, 4), 0.5) == (10, None)
    assert joint.at_tightness((10, 10), (1, 4), 1.0) == (1, 4)


def test_a_key_of_two_parts_is_given_by_name() -> None:
    joint = AllOf((Rows(), NM(), Codebook()))
    assert joint.parse_level({"keep": 5, "n": 2, "bits": 2}, (10, 8)) == (5, 2, 4)
    own = {"rows": {"sparsity": 0.5}, "nm": {"sparsity": 0.25}, "entries": 7}
    assert joint.parse_level(own, (10, 8)) == (5, 3, 7)
    with pytest.raises(ConstraintError, match="by rows and by nm; say whose"):
        joint.parse_level({"sparsity": 0.5, "bits": 2}, (10, 8))
    with pytest.raises(ConstraintError, match="none of the parts"):
        joint.parse_level({"topk": {"nnz": 3}, **own}, (10, 8))


def test_a_part_may_be_left_dense() -> None:
    joint, w = AllOf((TopK(), Codebook())), torch.arange(1.0, 7.0).reshape(2, 3)
    assert torch.equal(joint.project(w, (2, None)), TopK().project(w, 2))
    assert joint.project(w, (None, 1)).tolist() == [[0.0, 0.0, 4.5], [4.5, 4.5, 4.5]]  # one value and the free zero
    assert joint.contains(w, (None, None))


def test_packing_prices_positions_and_codes() -> None:
    p = AllOf((TopK(), Codebook(value_format="float16"))).packing((10, 10), (10, 4))
    assert p.ideal_bits == pytest.approx(log2_choose(100, 10) + 10 * 2 + 4 * 16)
    full = AllOf((TopK(), Codebook())).packing((10, 10), (100, 1))
    assert full.ideal_bits == pytest.approx(log2_choose(100, 50) + 32)  # 50 of 100 cost more than 100 of 100


@pytest.mark.parametrize("support", [TopK(), NM(), Rows()])
@pytest.mark.parametrize("values", [Uniform(), Codebook()])
def test_the_estimate_is_close(support, values) -> None:
    w = torch.randn(40, 80, generator=torch.Generator().manual_seed(0))
    joint = AllOf((support, values))
    curve = joint.distance(w)
    for where in {TopK: (100, 900), NM: (1, 3), Rows: (4, 30)}[type(support)]:
        for what in (3, 6):
            assert curve.estimate((where, what)) == pytest.approx(curve((where, what)), rel=0.1)


@pytest.mark.parametrize("values", [Codebook(), Codebook(exact_below=100), Uniform(min_bits=2)])
@pytest.mark.parametrize("support", [TopK(), NM(), Rows()])
@pytest.mark.parametrize("weighted", [False, True])
def test_turns_that_share_work_end_where_plain_ones_do(support, values, weighted) -> None:
    """Bit for bit: the alternation written down with nothing but the parts' projections, each turn made anew."""
    g = torch.Generator().manual_seed(3)
    joint = AllOf((support, values))
    support, values = joint.parts
    for scale in (1.0, 1e-3):
        w = torch.randn(12, 40, generator=g) ** 3 * scale
        h = torch.rand(12, 40, generator=g) if weighted else None
        for where in {TopK: (24, 240), NM: (1, 2), Rows: (2, 6)}[type(support)]:
            z = joint.project(w, (where, 3), h)
            assert torch.equal(z, _by_turns(support, values, w, where, 3, h))


def _by_turns(support, values, w, where, what, h):
    def far(z):
        gap = (w.double() - z.double()).square()
        return float((gap if h is None else gap * h.double()).sum())

    def rounded(kept):
        return values.project(w, what, kept.float() if h is None else h * kept)

    def regained(r):
        r = r.double()
        gain = r * (2 * w.double() - r) * (1 if h is None else h.double())
        return torch.where(support.project(gain.clamp(min=0).sqrt(), where) > 0, r.float(), 0.0)

    kept = support.project(w, where, h) != 0
    first = rounded(kept)
    ends = [torch.where(kept, first, 0.0)]
    for z in (regained(first), regained(values.project(w, what, h))):
        for _ in range(20):
            trial = regained(rounded(z != 0))
            if not far(trial) < far(z):
                break
            z = trial
        ends.append(z)
    return min(ends, key=far)
