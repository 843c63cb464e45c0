"""Saved plans: the same kernels again, for the same model and machine. Damaged ones: malformed/test_plan.py."""

import json
from pathlib import Path

import numpy as np
import pytest

from engine.test_choice import layers
from engine.test_tuning import kernels, own_cache  # noqa: F401
from parity.engine_graphs import Net
from secateur.engine import InferenceSession, isas
from secateur.errors import EnvironmentFailure, UsageError
from secateur.native import _native

MODEL, FEEDS = layers(0.1)


def batched() -> tuple[bytes, str]:
    n = Net(np.random.default_rng(0))
    x = n.input((1, 8, 8, 8), declared=("n", 8, 8, 8))
    y = n.node("Relu", n.node("Conv", x, n.weight(16, 8, 3, 3, density=0.3), pads=[1] * 4))
    return n.model(n.node("Conv", y, n.weight(8, 16, 1, 1))), x


@pytest.mark.parametrize("tune", ["off", "full"])
def test_a_plan_gives_the_same_kernels_and_bits_and_times_nothing(tune: str, tmp_path: Path) -> None:
    first = InferenceSession(MODEL, threads=1, tune=tune)
    first.save_plan(tmp_path / "a.plan")
    again = InferenceSession(MODEL, plan=tmp_path / "a.plan")
    assert again.threads == 1
    assert again.n_timed == 0
    assert kernels(again) == kernels(first)
    assert again.run(None, FEEDS)[0].tobytes() == first.run(None, FEEDS)[0].tobytes()
    assert sum("as saved" in str(row["why"]) for row in again.explain(repeats=0)) == 5
    again.save_plan(tmp_path / "b.plan")
    assert (tmp_path / "a.plan").read_bytes() == (tmp_path / "b.plan").read_bytes()


def test_a_plan_changes_what_the_model_would_choose(tmp_path: Path) -> None:
    file = tmp_path / "a.plan"
    InferenceSession(MODEL, threads=1).save_plan(file)
    content = json.loads(file.read_text())
    (part,) = content["parts"].values()
    node, choice = part[0][1][0]
    # Among the ways of the first layer is a dense one; the session with all zeros kept dense names it.
    ((_, dense),) = _native.Session(MODEL, 1, False)._decisions()
    assert dense[0][0] == node
    assert dense[0][1][0] != choice[0]
    part[0][1][0] = dense[0]
    file.write_text(json.dumps(content))
    assert InferenceSession(MODEL, plan=file).explain(repeats=0)[0]["kernel"] == dense[0][1][0]


def test_all_shapes_seen_are_in_the_plan_and_others_go_by_the_model(tmp_path: Path) -> None:
    model, x = batched()
    session = InferenceSession(model, threads=1)
    session.run(None, {x: np.ones((3, 8, 8, 8), np.float32)})
    session.save_plan(tmp_path / "a.plan")
    (part,) = json.loads((tmp_path / "a.plan").read_text())["parts"].values()
    assert [dims for dims, _ in part] == [[[1, 8, 8, 8]], [[3, 8, 8, 8]]]
    again = InferenceSession(model, plan=tmp_path / "a.plan")
    for n in (1, 2, 3):
        feeds = {x: np.random.default_rng(n).standard_normal((n, 8, 8, 8)).astype(np.float32)}
        assert again.run(None, feeds)[0].tobytes() == session.run(None, feeds)[0].tobytes()
    assert "as saved" not in again.explain(batch=2, repeats=0)[0]["why"]
    assert "as saved" in again.explain(batch=3, repeats=0)[0]["why"]


def test_a_plan_of_a_model_with_parts_elsewhere(tmp_path: Path) -> None:
    n = Net(np.random.default_rng(0))
    x = n.input((1, 16))
    y = n.node("Gemm", x, n.weight(16, 16, density=0.5), transB=1)
    y = n.node("Det", n.node("Reshape", y, n.const(np.array([4, 4], np.int64))))
    model = n.model(n.node("Gemm", n.node("Reshape", y, n.const(np.array([1, 1], np.int64))), n.weight(1, 4)))
    with pytest.warns(UserWarning, match="Det"):
        first = InferenceSession(model, threads=1)
    first.save_plan(tmp_path / "a.plan")
    with pytest.warns(UserWarning, match="Det"):
        again = InferenceSession(model, plan=tmp_path / "a.plan")
    rows = [row for row in again.explain(repeats=0) if row["n_weights"]]
    assert rows
    assert all("as saved" in row["why"] for row in rows)


def test_what_it_is_not_for_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.plan"
    InferenceSession(MODEL, threads=1).save_plan(file)
    with pytest.raises(UsageError, match=r"a\.plan: the plan is for model '.*', here '.*'; make it again"):
        InferenceSession(layers(0.3)[0], plan=file)
    with pytest.raises(UsageError, match="for threads 1, here 2"):
        InferenceSession(MODEL, threads=2, plan=file)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"machine": "Z80, secateur 0.0"}))
    with pytest.raises(UsageError, match=r"for machine 'Z80, secateur 0\.0', here "):
        InferenceSession(MODEL, plan=file)
    file.write_text(json.dumps(content))
    narrower = isas()[-2]
    monkeypatch.setenv("SECATEUR_ISA", narrower)
    with pytest.raises(UsageError, match=rf"for machine .*, here .*{narrower}"):
        InferenceSession(MODEL, plan=file)


def test_wrong_uses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.plan: cannot be read"):
        InferenceSession(MODEL, plan=tmp_path / "none.plan")
    with pytest.raises(UsageError, match="a plan is not timed again"):
        InferenceSession(MODEL, plan=tmp_path / "none.plan", tune="fast")
    with pytest.raises(EnvironmentFailure, match="writable"):
        InferenceSession(MODEL, threads=1).save_plan(tmp_path / "no" / "a.plan")
    n = Net(np.random.default_rng(0))
    session = InferenceSession(n.model(n.node("Relu", n.input((2, 3), declared=("n", "m")))), threads=1)
    with pytest.raises(UsageError, match="run the model once"):
        session.save_plan(tmp_path / "a.plan")


def test_the_environment_does_not_tune_what_a_plan_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    InferenceSession(MODEL, threads=1).save_plan(tmp_path / "a.plan")
    monkeypatch.setenv("SECATEUR_TUNE", "fast")
    assert InferenceSession(MODEL, plan=tmp_path / "a.plan").n_timed == 0


def test_a_plan_is_not_written_over_its_model(tmp_path: Path) -> None:
    model, link = tmp_path / "m.onnx", tmp_path / "other.name"
    model.write_bytes(MODEL)
    link.symlink_to(model)
    session = InferenceSession(model, threads=1)
    for path in (model, str(link)):
        with pytest.raises(UsageError, match="is the model itself"):
            session.save_plan(path)
    assert model.read_bytes() == MODEL
    session.save_plan(tmp_path / "m.plan")
