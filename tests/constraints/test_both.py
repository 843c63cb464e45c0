"""Joint sets: what is special about them."""

import pytest
import torch

from secateur.constraints.both import Both
from secateur.constraints.codebook import Codebook
from secateur.constraints.nm import NM
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.constraints.uniform import Uniform
from secateur.errors import ConstraintError, UsageError
from secateur.types import log2_choose


def test_parts_are_put_in_order_and_zeros_are_free() -> None:
    joint = Both((Codebook(), TopK()))
    assert joint.parts == (TopK(), Codebook(zero="free"))
    assert Both((NM(), Uniform())).view == "o_khkw_c"
    for parts in ((TopK(),), (TopK(), NM()), (Codebook(), Uniform()), ()):
        with pytest.raises(UsageError, match="support set"):
            Both(parts)


def test_the_gain_decides_not_the_size() -> None:
    """Two values: 10 and 1 are hit exactly, 6 is not; the largest gains stay."""
    w = torch.tensor([[10.0, 1.0, 6.0, 1.0]], dtype=torch.float64)
    z = Both((TopK(), Codebook())).project(w, (3, 2))
    assert z.tolist() == [[10.0, 0.0, 6.0, 0.0]] or float((w - z).square().sum()) < 2.0


def test_zeros_stay_zero() -> None:
    w = torch.tensor([[0.0, 3.0, 0.0, 1.0]])
    assert Both((TopK(), Uniform(zero="never", min_bits=1))).project(w, (4, 1))[0, [0, 2]].tolist() == [0.0, 0.0]


def test_levels() -> None:
    joint = Both((TopK(), Codebook(min_entries=1)))
    assert joint.parse_level({"sparsity": 0.9, "bits": 2}, (10, 10)) == (10, 4)
    with pytest.raises(ConstraintError, match="is missing"):
        joint.parse_level({"bits": 2}, (10, 10))
    with pytest.raises(ConstraintError, match="unknown"):
        joint.parse_level({"bits": 2, "nnz": 3, "rank": 1}, (10, 10))
    with pytest.raises(ConstraintError, match="pair"):
        joint.project(torch.ones(2, 2), 3)
    menu = joint.levels((4, 4))
    assert len(menu) == 17 * 256
    assert (16, 256) in menu
    assert (17, 2) not in menu
    assert joint.at_tightness((10, 10), (1, 4), 0.5) == (10, None)
    assert joint.at_tightness((10, 10), (1, 4), 1.0) == (1, 4)


def test_a_part_may_be_left_dense() -> None:
    joint, w = Both((TopK(), Codebook())), torch.arange(1.0, 7.0).reshape(2, 3)
    assert torch.equal(joint.project(w, (2, None)), TopK().project(w, 2))
    assert joint.project(w, (None, 1)).tolist() == [[0.0, 0.0, 4.5], [4.5, 4.5, 4.5]]  # one value and the free zero
    assert joint.contains(w, (None, None))


def test_packing_prices_positions_and_codes() -> None:
    p = Both((TopK(), Codebook(value_format="float16"))).packing((10, 10), (10, 4))
    assert p.ideal_bits == pytest.approx(log2_choose(100, 10) + 10 * 2 + 4 * 16)
    full = Both((TopK(), Codebook())).packing((10, 10), (100, 1))
    assert full.ideal_bits == pytest.approx(log2_choose(100, 50) + 32)  # 50 of 100 cost more than 100 of 100


@pytest.mark.parametrize("support", [TopK(), NM(), Rows()])
@pytest.mark.parametrize("values", [Uniform(), Codebook()])
def test_the_estimate_is_close(support, values) -> None:
    w = torch.randn(40, 80, generator=torch.Generator().manual_seed(0))
    joint = Both((support, values))
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
    joint = Both((support, values))
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
