"""Uniform levels: the exact scale, known special cases, both searches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.constraints import sweeps

from secateur.constraints.uniform import Uniform
from secateur.errors import ConstraintError, UsageError
from secateur.native._native import best_scales, grids_of
from secateur.testing import brute_force


def codes(constraint, level):
    """Those that the set may use."""
    top = 2 ** (level - 1) - (constraint.zero == "level")
    every = np.arange(-top, top + 1)
    return every[every != 0] if constraint.zero == "never" else every


def oracle(constraint, weight, level, h):
    own = codes(constraint, level)
    groups = [(weight.ravel(), h.ravel())] if constraint.per == "tensor" else list(zip(weight, h, strict=True))
    if len(own) ** groups[0][0].size > brute_force.MOST_WORDS:
        return None
    words = own[brute_force.words(len(own), groups[0][0].size)]
    return float(sum(brute_force.scaled(words, w, g).min() for w, g in groups))


LAWS = [
    (constraint, oracle)
    for constraint in (
        Uniform(max_bits=3),
        Uniform(per="row", max_bits=3),
        Uniform(zero="free", min_bits=1, max_bits=2),
        Uniform(zero="never", min_bits=1, max_bits=2),
        Uniform(per="row", zero="never", min_bits=1),
    )
]


def test_binary_is_the_mean_magnitude() -> None:
    w = torch.tensor([[1.0, -2.0, 3.0]])
    assert Uniform(zero="never", min_bits=1).project(w, 1).tolist() == [[2.0, -2.0, 2.0]]


def test_ternary_matches_the_closed_form() -> None:
    """alpha = S_m / m at the m that maximises S_m^2 / m (card P17)."""
    w = torch.randn(1, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s = w.abs().flatten().sort(descending=True).values.cumsum(0)
    m = torch.arange(1, 501)
    error = float(w.square().sum() - (s * s / m).max())
    assert Uniform().distance(w)(2) == pytest.approx(error, rel=1e-12)
    z = Uniform().project(w, 2)
    alpha = z.abs().max()
    assert w[z != 0].abs().min() >= alpha / 2 - 1e-12
    assert w[z == 0].abs().max() <= alpha / 2 + 1e-12
    assert float((z != 0).double().mean()) == pytest.approx(0.54, abs=0.05)  # Gaussian: 53.9 % kept


def cost(a, h, scale: float, top: int, zero: bool) -> float:
    q = np.clip(np.ceil(a / scale - 0.5), 0 if zero else 1, top) if scale > 0 else 0 * a
    return float((h * (a - scale * q) ** 2).sum())


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("top", [1, 3, 7, 127])
def test_the_compiled_search_agrees_with_both_in_numpy(top: int, zero: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(top)
    a, h = np.abs(rng.standard_t(4, 3000)), rng.random(3000)
    compiled = cost(a, h, float(best_scales(a[None], h[None], top, zero)[0]), top, zero)
    monkeypatch.setattr(sweeps, "_SMALL", 10**9)
    sweep = cost(a, h, sweeps.best_scale(a, h, top, zero), top, zero)
    monkeypatch.setattr(sweeps, "_SMALL", 0)
    monkeypatch.setattr(sweeps, "_SWEEP_POINTS", -1)
    bounded = cost(a, h, sweeps.best_scale(a, h, top, zero), top, zero)
    assert compiled == pytest.approx(sweep, rel=1e-9)
    assert bounded == pytest.approx(sweep, rel=1e-9)
    assert sweep <= min(cost(a, h, x, top, zero) for x in np.geomspace(a.max() / top / 20, a.max(), 2000)) + 1e-9


FAR_APART = [(0.25, 1.0, 1.0), (1e6, 3.0, 1.0), (1e6, 1.6480667280033603e-306, 1.0)]  # no float64 is its scale


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1e-9, 0.25, 0.5, 1.0, 3.0, 1e6]), st.floats(-4, 4), st.floats(0, 1))),
    st.sampled_from([1, 2, 7, 127, 128]),
    st.booleans(),
)
@example([*((1e-9, x, 1.0) for x in (1, 2, 3, 4, 0.5, 0.25)), *FAR_APART], 127, False)
@settings(deadline=None, max_examples=200)
def test_the_compiled_search_is_as_good_as_every_change_in_numpy(values, top: int, zero: bool) -> None:
    """Weights of 0, zeros, equal values, sizes far apart; few changes and many."""
    a = np.array([abs(x) * size for size, x, _ in values])
    a[a < 1e-300] = 0  # quotients that no float64 holds
    h = np.array([g if g > 0.2 else 0.0 for *_, g in values])
    found = float(best_scales(a[None], h[None], top, zero)[0])
    assert found >= 0
    g = h if h.any() else np.ones_like(h)
    want = sweeps.best_scale(a, g, top, zero)
    assert (found == 0) == (want == 0)
    best = cost(a, g, want, top, zero)
    assert cost(a, g, found, top, zero) <= best * (1 + 1e-9) + 1e-13 * float((g * a * a).sum())


def test_a_batch_is_its_rows_and_a_long_row_is_exact() -> None:
    rng = np.random.default_rng(5)
    a, h = np.abs(rng.standard_normal((7, 400))), (rng.random((7, 400)) > 0.8).astype(float)
    h[3] = 0  # then all count
    together = best_scales(a, h, 127, True)
    assert together.tolist() == [float(best_scales(x[None], g[None], 127, True)[0]) for x, g in zip(a, h, strict=True)]
    long = np.abs(rng.standard_normal(60_000))
    one = np.ones_like(long)
    want = cost(long, one, sweeps.best_scale(long, one, 127, True), 127, True)
    assert cost(long, one, float(best_scales(long[None], one[None], 127, True)[0]), 127, True) <= want * (1 + 1e-9)
    for bad in (np.array([[1.0, math.nan]]), np.array([[1.0, math.inf]]), np.array([[1.0, -1.0]])):
        with pytest.raises(UsageError, match="best_scales"):
            best_scales(bad, np.ones((1, 2)), 3, True)
    with pytest.raises(UsageError, match="one shape"):
        best_scales(np.ones((1, 2)), np.ones((2, 1)), 3, True)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["float16", "bfloat16", "float32", "float64"]), st.booleans())
@settings(deadline=None, max_examples=150)
def test_the_grid_of_a_matrix_is_that_of_the_oracle(seed: int, dtype: str, nonzero: bool) -> None:
    """On members, on members of a finer grid, and on a member with one weight moved."""
    rng = np.random.default_rng(seed)
    kind, top = getattr(torch, dtype), int(rng.choice([1, 3, 7, 127]))
    step = torch.tensor(float(rng.uniform(1e-3, 2)), dtype=kind).double()
    q = torch.from_numpy(rng.integers(-top, top + 1, (1, int(rng.integers(1, 60)))) * int(rng.choice([1, 1, 2])))
    w = (step * q).to(kind)
    if rng.random() < 0.3:
        w[0, 0] *= 1.01
    want = sweeps.grid_of(w, top, nonzero)
    info = torch.finfo(kind)
    digits, least = 2 - math.frexp(info.eps)[1], math.frexp(info.smallest_normal)[1] - 1
    found = grids_of(w.double().numpy(), top, nonzero, digits, least)
    assert (found is None) == (want is None)
    if found is not None and want is not None:
        assert np.array_equal(found[0].reshape(w.shape), want[0].numpy())
        assert torch.equal((torch.from_numpy(found[1]) * want[0]).to(kind), w)
        assert found[1].item() == want[1]


def test_the_rough_search_of_released_code_is_far_worse() -> None:
    """+-10 % around max|w| / top left about three times the optimal error on Gaussian weights (card P15)."""
    w = torch.randn(1, 20000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    best = Uniform().distance(w)(3)
    rough = []
    for f in np.linspace(0.9, 1.1, 21):
        scale = f * w.abs().max() / 3
        rough.append(float((w - scale * (w / scale).round().clamp(-3, 3)).square().sum()))
    assert min(rough) > 2 * best


def test_a_scale_for_each_row() -> None:
    w = torch.tensor([[1.0, -1.0], [100.0, 0.0]])
    assert Uniform(per="row").project(w, 2).tolist() == w.tolist()
    assert Uniform().project(w, 2).tolist() == [[0.0, 0.0], [100.0, 0.0]]


def test_codes_do_not_round_away_in_half_precision() -> None:
    w = torch.randn(8, 32, generator=torch.Generator().manual_seed(2)).half()
    z = Uniform().project(w, 4)
    piece = Uniform().freeze(z, 4)
    assert piece.codes.abs().max() == 7
    assert Uniform().contains(piece.project(w), 4)


@pytest.mark.parametrize("zero", ["level", "free", "never"])
def test_the_grid_gives_the_very_values_back(zero: str) -> None:
    w = torch.randn(6, 40, generator=torch.Generator().manual_seed(3))
    for per in ("tensor", "row"):
        s = Uniform(per=per, zero=zero)
        z = s.project(w, 5)
        scale = s.grid(z)
        assert scale is not None
        assert scale.shape == ((6,) if per == "row" else (1,))
        codes = torch.round(z.double() / scale.double()[:, None]).float()
        assert codes.abs().max() <= s.top(5)
        assert torch.equal(codes * scale[:, None], z)
    assert Uniform().grid(w) is None
    assert Uniform(per="row").grid(torch.zeros(2, 3)).tolist() == [1.0, 1.0]
    top = torch.arange(1.0, 129.0)[None]  # the code 128 of eight bits with a free zero fits no signed byte
    assert Uniform(zero="free").contains(top, 8)
    assert Uniform(zero="free").grid(top) is None
    assert Uniform(zero="free").grid(top[:, :127]).tolist() == [1.0]


def test_following_a_small_move_changes_codes_and_refits_the_scale() -> None:
    piece = Uniform().freeze(torch.tensor([[1.0, 2.0, -3.0, 0.0]]), 3)
    # 2.0 moved to 2.9: code 3. Scale (1 + 3 * 2.9 + 3 * 3) / (1 + 9 + 9) = 18.7 / 19, the codes stay at it.
    moved = piece.follow(torch.tensor([[1.0, 2.9, -3.0, 0.0]]))
    torch.testing.assert_close(moved, 18.7 / 19 * torch.tensor([[1.0, 3.0, -3.0, 0.0]]))
    assert Uniform().contains(moved, 3)
    far = piece.follow(torch.tensor([[1.0, 2.0, -30.0, 0.0]]))
    assert Uniform().contains(far, 3)  # no code beyond the level's
    assert torch.equal(Uniform().freeze(torch.zeros(1, 3), 3).follow(torch.zeros(1, 3)), torch.zeros(1, 3))


def test_refusals() -> None:
    for options in ({"per": "column"}, {"zero": "some"}, {"min_bits": 1}, {"max_bits": 9}):
        with pytest.raises(UsageError, match="uniform"):
            Uniform(**options)
    with pytest.raises(ConstraintError, match="bits"):
        Uniform().parse_level({"bits": 9}, (2, 2))
    with pytest.raises(ConstraintError, match="member"):
        Uniform().freeze(torch.randn(2, 9), 2)


def test_a_scale_per_row_is_priced_as_codes_and_scales() -> None:
    """300 x 100 at 4 bits: 15 codes and 300 fp32 scales; a table of all rows' values would be 4 times too dear."""
    p = Uniform(per="row").packing((300, 100), 4)
    assert p.ideal_bits == pytest.approx(30000 * math.log2(15) + 300 * 32)
    wide = Uniform(per="row", zero="free").packing((300, 100), 8)  # 128 is no int8: written as floats
    assert wide.estimate > 90_000
