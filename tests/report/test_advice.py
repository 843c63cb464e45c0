"""What to change, said where accuracy was lost: the causes that the curves show, and numbers to set."""

from __future__ import annotations

import re
from typing import Any

import pytest

from secateur.report.advice import advice, is_large, too_few
from secateur.report.verdict import findings


def row(stage: str, metric: float, loss: float = 0.5) -> dict[str, Any]:
    return {"stage": f"main.{stage}", "metric": metric, "loss": loss}


def record(after: float, rows: list[dict[str, Any]], name: str = "accuracy") -> dict[str, Any]:
    def metric(value: float) -> dict[str, Any]:
        return {"name": name, "value": value, "higher_is_better": True}

    return {
        "dense": {"metric": metric(0.97)},
        "compressed": {"metric": metric(after)},
        "history": rows,
        "budget": [],
        "verify": None,
        "layers": [],
    }


def test_a_small_loss_needs_no_advice() -> None:
    made = record(0.96, [row("approach", 0.2)])
    for key in ("dense", "compressed"):
        made[key]["metric"]["n_examples"] = 300  # a point is three examples
    assert advice(made) == []


def test_the_verdict_has_it_for_a_large_loss_of_a_share() -> None:
    assert is_large(record(0.86, []))
    assert not is_large(record(0.88, []))
    assert is_large(record(0.5, [], name="loss"))  # a share by its range and direction
    wide = record(0.5, [])
    wide["dense"]["metric"] = {"name": "score", "value": 31.0, "higher_is_better": True}
    wide["compressed"]["metric"]["name"] = "score"
    assert not is_large(wide)
    assert "twice the epochs" in advice(wide)[0]  # its curves are no shares, their causes not told
    assert "To lose less" not in " ".join(f.text for f in findings(record(0.88, [row("approach", 0.2)])))


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        ([row("approach", 0.4), row("polish", 0.45), row("polish", 0.45)], "97.0 % became 40.0 % in the approach"),
        ([row("approach1", 0.96), row("approach2", 0.95), row("snap", 0.6)], "95.0 % became 60.0 % in the snap: few"),
        ([row("approach", 0.95), row("snap", 0.7, 0.2), row("snap", 0.6, 1.1)], r"rose in the snap \(0.2 to 1.1\)"),
        ([row("approach", 0.96), row("polish", 0.5), row("polish", 0.6)], "96.0 % became 60.0 % in the polish"),
        ([row("approach", 0.96), row("snap", 0.94), row("snap", 0.955)], "the snap still won 1.5 points in its last"),
    ],
)
def test_the_cause_is_read_off_the_curves(rows: list[dict[str, Any]], first: str) -> None:
    lines = advice(record(0.6, rows))
    assert re.search(first, lines[0]), lines
    assert any("larger budget" in line for line in lines)
    assert any("distillation" in line for line in lines)


def test_the_verdict_says_what_to_change_and_how_sure_the_net_is() -> None:
    made = record(0.6, [row("approach", 0.4)])
    assert sum("To lose less" in f.text for f in findings(made)) == 3
    for key, loss, error in (("dense", 0.02, 0.005), ("compressed", 1.35, 0.7)):
        made[key]["metric"] |= {"loss": loss, "calibration_error": error}
    told = [f for f in findings(made) if "calibration" in f.text]
    assert [f.kind for f in told] == ["not_won"]
    assert "cross-entropy 0.02 → 1.35, expected calibration error 0.5 % → 70.0 %" in told[0].text


def test_too_few_steps_are_a_number_to_set() -> None:
    said = too_few(44, 16.0, 2)
    assert said is not None
    assert "44 optimizer steps are few for a 16-fold reduction, which wants 400 or more" in said
    assert "solver.epochs to 19 (now 2)" in said
    assert too_few(400, 16.0, 2) is None
    assert too_few(10, 3.9, 2) is None
    assert too_few(0, 16.0, 0) is None


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([("a.weight", "linear", 3), ("b.weight", "linear", 0), ("b.bias", "bias", 0)], "zero in b.weight: nothing"),
        ([(f"l{i}", "conv2d", 0) for i in range(5)], "zero in l0, l1, l2 and 2 more: nothing"),
        ([("a.weight", "linear", 1), ("a.bias", "bias", 0), ("n.weight", "norm", 0)], None),
    ],
)
def test_layers_without_any_weight_are_named_however_good_the_metric(
    layers: list[tuple[str, str, int]], said: str | None
) -> None:
    made = record(0.97, [])
    made["layers"] = [{"name": n, "op": op, "shape": [2, 2], "nnz": nnz} for n, op, nnz in layers]
    text = " ".join(f.text for f in findings(made) if f.kind == "not_won")
    assert said in text if said else "Every weight" not in text
