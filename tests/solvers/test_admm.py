"""ADMM on problems whose answer is known: the card's stability threshold, dual identity, ramp against magnitude."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from secateur.constraints.topk import TopK
from secateur.contracts import Problem, Term
from secateur.solvers.admm import Admm
from secateur.types import Level, Member, Site


def problem(
    w: Tensor, k: int, steps: int, *, h: Tensor | None = None, lr: float = 1.0, weighted: bool = False
) -> tuple[Problem, dict[str, Tensor]]:
    """One parameter `w`, at most k nonzeros; h = its curvature as the second moment."""
    params = {"w": w}
    site = Site("w", "linear", tuple(w.shape), (Member("w"),))

    def allocate(weights: object, importance: object, tightness: float) -> dict[str, Level]:
        n = w.numel()
        return {"w": round(n ** (1 - tightness) * k**tightness)}

    made = Problem(
        params,
        (Term(site, TopK()),),
        allocate,
        steps,
        importance=(lambda: {"w": h}) if weighted else dict,
        statistics=lambda site, name: torch.ones_like(w) if h is None else h,
        learning_rate=lambda: lr,
    )
    return made, params


def solve(solver: Admm, made: Problem, gradient: Callable[[Tensor], Tensor], lr: float) -> tuple[Admm, object]:
    """Gradient steps as the caller's optimizer would take them."""
    state = solver.init(made)
    w = made.params["w"]
    for _ in range(made.total_steps):
        w -= lr * gradient(w)
        state = solver.step(state)
    return solver, state


FIXED = {"stages": 1, "ramp": 0.0, "tolerance": 0.0}


@pytest.mark.parametrize(("rho", "settles"), [(0.60, False), (0.75, True)])
def test_mask_is_stable_only_above_the_threshold(rho: float, settles: bool) -> None:
    # Card 1.5: f = 1/2 |W - w*|^2, w* = (5,4,3,2,1.8,1), 3 kept: threshold |w*|_4 / |w*|_3 = 2/3.
    best = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.8, 1.0]], dtype=torch.float64)
    made, _ = problem(best.clone(), 3, 120 * 25, lr=0.5)
    solver = Admm(round_steps=25, start=rho, end=rho, **FIXED)  # type: ignore[arg-type]
    _, state = solve(solver, made, lambda w: w - best, 0.5)
    residual = state.residuals["w"]  # type: ignore[attr-defined]
    assert (residual < 1e-4) is settles, residual


def test_dual_is_the_sum_of_the_gaps() -> None:
    torch.manual_seed(0)
    best = torch.randn(1, 8, dtype=torch.float64)
    made, params = problem(best.clone(), 3, 100, lr=0.1)
    solver = Admm(round_steps=10, start=1.0, end=1.0, **FIXED)  # type: ignore[arg-type]
    state = solver.init(made)
    total = torch.zeros_like(best)
    for _ in range(100):
        params["w"] -= 0.1 * (params["w"] - best)
        state = solver.step(state)
        if state.round_changed or state.n == 100:
            # At the update W is unchanged and Z is the new projection.
            if state.round_changed:
                total += params["w"] - state.z["w"]
            torch.testing.assert_close(state.u["w"], total, atol=1e-12, rtol=0)


def test_rho_zero_is_plain_training_bit_for_bit() -> None:
    torch.manual_seed(1)
    best, start = torch.randn(3, 5), torch.randn(3, 5)
    made, params = problem(start.clone(), 4, 50, lr=0.1)
    solver = Admm(round_steps=5, start=0.0, end=0.0, **FIXED)  # type: ignore[arg-type]
    solve(solver, made, lambda w: w - best, 0.1)
    plain = start.clone()
    for _ in range(50):
        plain -= 0.1 * (plain - best)
    assert torch.equal(params["w"], plain)


def test_penalty_gradient_at_the_third_round_is_rho_times_the_gap() -> None:
    torch.manual_seed(2)
    w = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    made, _ = problem(w, 4, 40, lr=0.05)
    solver = Admm(round_steps=10, start=0.7, end=0.7, proximal=False, **FIXED)  # type: ignore[arg-type]
    state = solver.init(made)
    for _ in range(30):
        with torch.no_grad():
            w -= 0.05 * torch.randn_like(w)
            state = solver.step(state)
    penalty = solver.penalty(state)
    assert isinstance(penalty, Tensor)
    (gradient,) = torch.autograd.grad(penalty, w)
    assert state.rho["w"] >= 0.7  # the curvature of this problem is at least its second moment, 1
    torch.testing.assert_close(gradient, state.rho["w"] * (w - state.z["w"] + state.u["w"]).detach())


def test_rho_does_not_vanish_where_the_gradients_do() -> None:
    # A net that fits its data: Fisher says 1e-6, but Adam's steps stay as long as ever.
    w = torch.full((2, 6), 0.05)
    made, _ = problem(w, 4, 10, h=torch.full_like(w, 1e-12))
    state = Admm(round_steps=10, start=0.5, end=5.0, **FIXED).init(replace(made, adaptive=True))  # type: ignore[arg-type]
    assert state.rho["w"] == pytest.approx(0.5 * 1.0 / 0.05, rel=1e-4)


def test_rescaled_dual_keeps_the_multiplier() -> None:
    torch.manual_seed(3)
    made, _ = problem(torch.randn(1, 10, dtype=torch.float64), 3, 200, lr=0.1)
    solver = Admm(round_steps=20, start=0.1, end=10.0, **FIXED)  # type: ignore[arg-type]
    state = solver.init(made)
    best = torch.randn(1, 10, dtype=torch.float64)
    for _ in range(199):
        made.params["w"] -= 0.1 * (made.params["w"] - best)
        rho, u, z = state.rho["w"], state.u["w"].clone(), state.z["w"]
        w = made.params["w"].clone()
        state = solver.step(state)
        if state.round_changed and state.rho["w"] != rho:
            raw = u + (made.params["w"] - state.z["w"])
            torch.testing.assert_close(state.rho["w"] * state.u["w"], rho * raw)
            assert state.rho["w"] > rho
    assert z.shape == w.shape


def excess(draws: int, run: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
    """Objective of the refitted support over the best subset's, on random quadratics (10 unknowns, 4 kept)."""
    from itertools import combinations

    out = []
    for seed in range(draws):
        g = torch.Generator().manual_seed(seed)
        a = torch.randn(10, 10, generator=g, dtype=torch.float64)
        hessian, best = a @ a.T / 10 + 0.05 * torch.eye(10), torch.randn(10, generator=g, dtype=torch.float64)

        def value(support: list[int], hessian: Tensor = hessian, best: Tensor = best) -> float:
            s = torch.tensor(support)
            w = torch.zeros(10, dtype=torch.float64)
            w[s] = torch.linalg.solve(hessian[s][:, s], (hessian @ best)[s])
            return float(0.5 * (w - best) @ hessian @ (w - best))

        optimum = min(value(list(c)) for c in combinations(range(10), 4))
        chosen = run(hessian, best).flatten().nonzero().flatten().tolist()
        out.append(value(chosen) / optimum)
    return out


def test_ramp_beats_magnitude_on_random_quadratics() -> None:
    def magnitude(hessian: Tensor, best: Tensor) -> Tensor:
        return TopK().project(best[None], 4)

    def admm(hessian: Tensor, best: Tensor) -> Tensor:
        top = float(torch.linalg.eigvalsh(hessian).max())
        lr = 1.0 / top
        made, _ = problem(best[None].clone(), 4, 20 * 30, h=torch.full((1, 10), top, dtype=torch.float64), lr=lr)
        solver = Admm(round_steps=30, start=0.1, end=10.0, stages=1, ramp=0.7, tolerance=0.0)
        _, state = solve(solver, made, lambda w: (w - best) @ hessian, lr)
        return solver.finish(state).weights["w"]

    ours, theirs = excess(24, admm), excess(24, magnitude)
    assert sum(ours) / 24 < 0.85 * sum(theirs) / 24, (sum(ours) / 24, sum(theirs) / 24)


def test_own_curvature_in_penalty_and_metric_is_exact_for_separable_quadratics() -> None:
    # Card A1, row 7: rho_i = c h_i with c >= 1 and the projection ranked by h_i w_i^2 finds the optimum every time.
    hits = {"weight": 0, "site": 0}
    for seed in range(10):
        g = torch.Generator().manual_seed(seed)
        h = 10 ** (2 * torch.rand(1, 20, generator=g, dtype=torch.float64) - 1)
        best = torch.randn(1, 20, generator=g, dtype=torch.float64)
        optimal = TopK().project(best, 5, h) != 0
        for metric in hits:
            weighted = metric == "weight"
            made, _ = problem(best.clone(), 5, 40 * 20, h=h, lr=0.1, weighted=weighted)
            rho = 1.5 if weighted else 10.0 / float(h.mean())
            solver = Admm(round_steps=20, start=rho, end=rho, metric=metric, **FIXED)  # type: ignore[arg-type]
            _, state = solve(solver, made, lambda w, h=h, best=best: h * (w - best), 0.1)  # type: ignore[misc]
            hits[metric] += int(torch.equal(solver.finish(state).weights["w"] != 0, optimal))
    assert hits["weight"] == 10
    assert hits["site"] <= 3  # one large rho for all: frozen at the magnitude solution


def test_resumed_in_the_middle_goes_on_to_the_bit() -> None:
    torch.manual_seed(4)
    best, start = torch.randn(4, 6), torch.randn(4, 6)
    solver = Admm(round_steps=7, stages=2)

    def advance(made: Problem, state: object, n: int) -> object:
        for _ in range(n):
            made.params["w"] -= 0.05 * (made.params["w"] - best)
            state = solver.step(state)  # type: ignore[arg-type]
        return state

    whole, _ = problem(start.clone(), 5, 100, lr=0.05)
    advance(whole, solver.init(whole), 100)
    first, _ = problem(start.clone(), 5, 100, lr=0.05)
    tensors, facts = advance(first, solver.init(first), 53).state_dict()  # type: ignore[attr-defined]
    saved = first.params["w"].clone()
    second, _ = problem(saved, 5, 100, lr=0.05)
    state = solver.init(second)
    state.load_state_dict({k: v.clone() for k, v in tensors.items()}, facts)
    advance(second, state, 47)
    assert torch.equal(whole.params["w"], second.params["w"])


def test_answer_is_feasible_and_levels_are_met() -> None:
    torch.manual_seed(5)
    made, _ = problem(torch.randn(5, 7), 6, 60, lr=0.05)
    solver, state = solve(Admm(round_steps=10), made, lambda w: w - 1.0, 0.05)
    answer = solver.finish(state)  # type: ignore[arg-type]
    assert answer.levels == {"w": 6}
    assert TopK().contains(answer.weights["w"], 6)
