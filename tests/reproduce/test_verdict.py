"""The verdict on a claim: its three outcomes and the open one, the interval behind it, the choice by validation."""

import math
from typing import Any

import pytest

from secateur.reproduce import plan, summary
from secateur.reproduce.table import claim_line
from secateur.reproduce.verdict import gain, interval, verdict

SEEDS = [0, 1, 2]


def study(**claim: Any) -> plan.Study:
    """Two nets, one of them on a grid, and one claim."""
    part = {"title": "t", "model": "secateur.zoo:lenet300", "epochs": 1, "training": {}}
    said = {
        "says": "it helps",
        "part": "ours",
        "against": "theirs",
        "claimed": 0.02,
        "expect": {"low": -0.005, "high": 0.015},
    }
    raw = {
        **{"about": "a", "data": "digits", "seeds": SEEDS, "n_weights": 10, "grid": {"k": [1, 2]}},
        "parts": {"ours": {**part, "title": "$k"}, "theirs": part},
        "claims": [said | claim],
    }
    return plan.checked("s", raw)


def facts(test: float, valid: float = 0.5, nbytes: int = 1000) -> dict[str, Any]:
    return {"test": test, "valid": valid, "nnz": 10, "nbytes": nbytes, "n_test": 100, "same_as_onnxruntime": None}


def judged(ours: list[float], theirs: list[float], other: float = 0.1, **claim: Any) -> dict[str, Any]:
    """The claim of a study whose cell k=1 gave `ours` by seed, k=2 a worse one on validation, and `theirs`."""
    runs = {
        "ours,k=1": {s: facts(t, valid=0.5) for s, t in zip(SEEDS, ours, strict=False)},
        "ours,k=2": {s: facts(other, valid=0.4) for s in SEEDS},
        "theirs": {s: facts(t) for s, t in zip(SEEDS, theirs, strict=False)},
    }
    planned = study(**claim)
    return summary.claim(planned.plan.claims[0], planned, runs)


@pytest.mark.parametrize(
    ("ours", "outcome", "forecast"),
    [
        ([0.93, 0.931, 0.932], "confirmed", "above"),  # + 0.031 where 0.02 was claimed
        ([0.909, 0.91, 0.911], "smaller", "as expected"),  # + 0.01, surely above 0
        ([0.899, 0.90, 0.901], "refuted", "as expected"),  # 0
        ([0.88, 0.881, 0.882], "refuted", "below"),  # worse
        ([0.90, 0.92, 0.94], "open", "above"),  # the interval holds 0.02
    ],
)
def test_a_claim_is_confirmed_smaller_refuted_or_open(ours: list[float], outcome: str, forecast: str) -> None:
    found = judged(ours, [0.9, 0.9, 0.9])
    assert found["verdict"] == outcome
    assert found["expected"] == forecast
    assert found["cells"] == ["ours,k=1", "theirs"]
    assert found["gain"]["mean"] == pytest.approx(sum(ours) / 3 - 0.9)


def test_a_margin_makes_no_loss_a_claim_that_can_be_confirmed() -> None:
    ours, theirs = [0.898, 0.899, 0.900], [0.9, 0.9, 0.9]
    assert judged(ours, theirs, claimed=0, margin=0.005)["verdict"] == "confirmed"
    assert judged(ours, theirs, claimed=0, margin=0.0001)["verdict"] == "open"
    assert judged([0.88, 0.88, 0.88], theirs, claimed=0, margin=0.005)["verdict"] == "refuted"


def test_validation_chooses_among_cells_and_test_does_not() -> None:
    found = judged([0.8, 0.8, 0.8], [0.9, 0.9, 0.9], other=0.99)  # k=2 is better on test, worse on validation
    assert found["cells"][0] == "ours,k=1"
    assert found["verdict"] == "refuted"


def test_a_study_that_is_not_finished_has_no_verdict() -> None:
    found = judged([0.95, 0.95], [0.9, 0.9, 0.9])
    assert found["verdict"] == "open"
    assert "1 of 2 cells have all seeds" in found["why"]
    found = judged([0.95], [0.9], part="ours,k=1")
    assert found["verdict"] == "open"
    assert "1 of at least 3 seeds" in found["why"]
    assert found["gain"]["low"] is None
    planned = study()
    none = summary.claim(planned.plan.claims[0], planned, {})
    assert (none["verdict"], none["gain"]) == ("open", None)
    assert "open: it helps" in claim_line(none, {"unit": "%", "scale": 100.0})


def test_sizes_are_claimed_as_ratios() -> None:
    small, large = ({s: facts(0.9, nbytes=n) for s in SEEDS} for n in (100, 550))
    found = gain("nbytes", small, large, True, 1)
    assert found == pytest.approx({"mean": 5.5, "low": 5.5, "high": 5.5})
    assert verdict(5.5, 5.5, claimed=5, margin=0, nothing=1) == "confirmed"
    assert verdict(5.5, 5.5, claimed=10, margin=0, nothing=1) == "smaller"
    assert verdict(0.9, 0.9, claimed=10, margin=0, nothing=1) == "refuted"


def test_where_lower_is_better_a_gain_is_a_fall() -> None:
    ours, theirs = ({s: facts(v) for s in SEEDS} for v in (1.5, 2.0))
    assert gain("measure", ours, theirs, True, -1)["mean"] == pytest.approx(0.5)


def test_intervals_are_those_of_the_tables() -> None:
    ours, theirs = {0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.0, 1: 1.5, 2: 1.5}
    # paired: differences 1, 0.5, 1.5: deviation 0.5; t(2) = 2.920 for 95 % on one side
    wide = 2.920 * 0.5 / math.sqrt(3)
    assert interval(ours, theirs, True) == pytest.approx((1.0, 1.0 - wide, 1.0 + wide))
    # Welch: variances 1 and 0.75 over 3 each, 3.92 degrees of freedom, of which the table has 3
    wide = 2.353 * math.sqrt(1.75 / 3)
    assert interval(ours, theirs, False) == pytest.approx((1.0, 1.0 - wide, 1.0 + wide))
    assert interval({0: 1.0}, theirs, False)[1:] == (-math.inf, math.inf)
    assert interval(ours, {5: 0.0, 6: 0.0, 7: 0.0}, True)[0] == 2.0  # other seeds cannot be paired
