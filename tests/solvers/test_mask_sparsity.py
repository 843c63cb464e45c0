"""MaskSparsity: chosen first, then only their scales and shifts are pulled; removal changes nothing then."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from secateur import graph
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.contracts import Problem, Term
from secateur.errors import UsageError
from secateur.solvers.mask_sparsity import MaskSparsity
from secateur.testing import nets


def asked(steps: int, level: int = 3) -> tuple[Problem, Any]:
    """The six channels of conv1 in the residual net, of which `level` may stay."""
    net = nets.residual()
    traced = graph.trace(net, nets.example("residual"))
    site = next(g for g in traced.groups if "conv1.weight" in {m.param for m in g.members})
    term = Term(site, Rows(), level, True)
    params = {k: p.detach().clone().requires_grad_() for k, p in net.named_parameters()}
    return Problem(params, (term,), lambda w, h, t: {site.name: level}, steps, companions=traced.kept), traced


def test_the_chosen_fall_in_equal_steps_and_the_others_stay() -> None:
    p, _ = asked(10)
    before = {k: w.detach().clone() for k, w in p.params.items()}
    rows = before["conv1.weight"].flatten(1).norm(dim=1)
    going = rows < rows.sort().values[3]
    largest = float(before["bn1.weight"][going].abs().max())
    solver = MaskSparsity(start=0.0, strength=1.0)
    with torch.no_grad():
        state = solver.init(p)
        for n in range(1, 11):
            state = solver.step(state)
            now = p.params["bn1.weight"]
            wanted = (before["bn1.weight"].abs() - n * largest / 10).clamp(min=0) * before["bn1.weight"].sign()
            torch.testing.assert_close(now[going], wanted[going], atol=1e-6, rtol=1e-5)
    assert not bool(p.params["bn1.bias"][going].abs().gt(1e-6).any())
    for k, w in p.params.items():  # rows and all other vectors are left alone
        kept = slice(None) if k not in ("bn1.weight", "bn1.bias") else ~going
        assert torch.equal(w[kept], before[k][kept]), k


def test_removal_changes_nothing_then() -> None:
    p, _ = asked(6)
    net, x = nets.residual(), nets.example("residual")[0]
    solver = MaskSparsity(start=0.0, strength=2.0)

    def answers(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(net, weights, x)  # type: ignore[no-any-return]

    with torch.no_grad():
        state = solver.init(p)
        for _ in range(6):
            state = solver.step(state)
        shown = {k: w.detach() for k, w in p.params.items()}
        before = answers({k: w.clone() for k, w in shown.items()})
        after = answers(solver.finish(state).weights)
    torch.testing.assert_close(after, before)


def test_what_is_refused() -> None:
    p, traced = asked(1)
    assert MaskSparsity().refuses(p.terms[0]) is None
    fc = next(s for s in traced.sites if s.name == "fc.weight")
    assert "norms" in str(MaskSparsity().refuses(Term(fc, TopK())))
    with pytest.raises(UsageError, match="strength"):
        MaskSparsity(strength=0.0)
