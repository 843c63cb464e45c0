"""Each saliency against its score: sqrt(h) |w|."""

import math

import pytest
import torch

from secateur import catalog
from secateur.errors import UsageError
from secateur.saliencies.abs import Abs
from secateur.saliencies.abs_v_power import AbsVPower
from secateur.saliencies.fisher import Fisher
from secateur.saliencies.hessian import Hessian
from secateur.saliencies.movement import Movement
from secateur.saliencies.random import Random
from secateur.saliencies.snip import Snip
from secateur.saliencies.squared_v import SquaredV
from secateur.saliencies.taylor import Taylor
from secateur.saliencies.wanda import Wanda

W = torch.tensor([[2.0, -3.0], [0.0, 1.0]])
V = torch.tensor([[16.0, 1.0], [4.0, 0.0]])


def score(h: torch.Tensor | None) -> torch.Tensor:
    return W.double().abs() * (1.0 if h is None else h.sqrt())


def test_scores() -> None:
    stats = {"second_moment": V, "gradient": V}
    assert torch.equal(score(Abs().importance(W, {})), W.double().abs())
    torch.testing.assert_close(score(AbsVPower().importance(W, stats)), W.double().abs() * V.double() ** 0.25)
    torch.testing.assert_close(score(SquaredV().importance(W, stats)) ** 2, (W**2 * V).double())
    torch.testing.assert_close(score(Taylor().importance(W, stats)), (W * V).abs().double())


def test_wanda_scores_whole_layers_or_rows() -> None:
    w = torch.tensor([[4.0, -3.0, 2.0], [0.4, 0.3, -0.1]])
    norm = torch.tensor([[1.0, 1.0, 10.0], [1.0, 2.0, 1.0]])
    h = Wanda().importance(w, {"input_norm": norm})
    assert h is not None
    torch.testing.assert_close(h.sqrt() * w.abs(), (norm * w.abs()).double())
    by_row = Wanda(per_row=True).importance(w, {"input_norm": norm})
    assert by_row is not None
    ranks = torch.tensor([[2.0, 1.0, 3.0], [2.0, 3.0, 1.0]], dtype=torch.float64) / 3
    torch.testing.assert_close(by_row.sqrt() * w.double().abs(), ranks)


def test_curvature_below_zero_is_no_loss() -> None:
    h = torch.tensor([[4.0, -9.0], [1.0, 0.25]])
    assert Hessian().importance(W, {"curvature": h}).tolist() == [[4.0, 0.0], [1.0, 0.25]]  # type: ignore[union-attr]
    torch.testing.assert_close(score(Fisher().importance(W, {"fisher": V})), score(V.double()))


def test_snip_is_taylor_at_the_start_and_stays_there() -> None:
    g = torch.tensor([[0.5, -1.0], [3.0, 2.0]])
    start = {"gradient": g, "sensitivity": (W * g).abs()}
    torch.testing.assert_close(score(Snip().importance(W, start)), score(Taylor().importance(W, start)))
    moved = W * torch.tensor([[0.1, 5.0], [1.0, -2.0]])
    h = Snip().importance(moved, start)
    assert h is not None
    torch.testing.assert_close(h.sqrt() * moved.double().abs(), (W * g).abs().double())


def test_movement_keeps_the_order_of_the_signed_sums() -> None:
    s = torch.tensor([[30.0, -2.0], [0.5, -1.0]])
    w = torch.tensor([[0.1, 9.0], [3.0, -3.0]])  # the largest weight shrinks
    h = Movement().importance(w, {"movement": s})
    assert h is not None
    found = h.sqrt() * w.double().abs()
    assert found.flatten().argsort().tolist() == s.flatten().argsort().tolist()
    scale = float(s.double().square().mean().sqrt())
    assert float(found[0, 0]) == pytest.approx(30.0 + scale * math.log1p(math.exp(-30.0 / scale)))
    assert Movement().importance(w, {"movement": None}) is None


def test_random_ignores_the_weight_and_repeats() -> None:
    def h() -> torch.Tensor:
        made = Random().importance(W, {"generator": torch.Generator().manual_seed(3)})
        assert made is not None
        return made

    assert torch.equal(h(), h())
    assert bool(h().isfinite().all())
    r = (h() * W.double() ** 2).flatten()[[0, 1, 3]]
    assert ((r > 0) & (r <= 1)).all()


def test_missing_statistics() -> None:
    with pytest.raises(UsageError, match="second_moment"):
        AbsVPower().importance(W, {})
    assert AbsVPower().importance(W, {"second_moment": None}) is None  # known to come, not there yet
    with pytest.raises(UsageError, match="shape"):
        Taylor().importance(W, {"gradient": torch.ones(3)})
    with pytest.raises(UsageError, match="power"):
        AbsVPower(power=-1)


@pytest.mark.parametrize("name", catalog.names("saliencies"))
def test_conforms(name: str) -> None:
    from secateur.testing.saliencies import check_saliency

    check_saliency(catalog.load("saliencies", name)())
