"""By how much the cost models err here: shipped, calibrated, and what each decides. How near: benchmarks/speed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.test_choice import layers
from secateur import cli
from secateur.engine import InferenceSession, calibrate, plans, rates
from secateur.errors import UsageError
from secateur.native import _native

MODEL, FEEDS = layers(0.1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    monkeypatch.delenv("SECATEUR_TUNE", raising=False)
    return tmp_path / "rates.json"


def rows(found: dict[str, float] | None) -> list[dict[str, Any]]:
    session = _native.Session(MODEL, 1, rates=found)
    return [r for r in session._explain(1, 0) if r["predicted_us"] is not None]


def test_the_finest_group_that_is_known_counts() -> None:
    plain = rows({})
    assert len(plain) >= 2
    assert all(str(r["rate"]).startswith(f"{r['kernel']}/") for r in plain)
    every = {"": 5.0}
    kernels = every | {str(r["kernel"]): 3.0 for r in plain}
    kinds = kernels | {str(r["rate"]): 2.0 for r in plain}
    for found, factor in ((every, 5.0), (kernels, 3.0), (kinds, 2.0)):
        got = rows(found)
        assert [r["kernel"] for r in got] == [r["kernel"] for r in plain]
        assert [r["predicted_us"] for r in got] == pytest.approx([factor * r["predicted_us"] for r in plain])


def test_what_was_not_timed_takes_at_least_what_the_worst_of_its_kind_takes() -> None:
    plain = rows({})
    kinds = {str(r["kernel"]).partition("_")[0] + "/" + str(r["rate"]).partition("/")[2]: 8.0 for r in plain}
    for others, factor in (({"": 2.0}, 8.0), ({"": 9.0}, 9.0), ({str(r["kernel"]): 5.0 for r in plain}, 8.0)):
        got = rows(kinds | others)
        assert [r["predicted_us"] for r in got if r["kernel"] in {p["kernel"] for p in plain}] == pytest.approx(
            [factor * p["predicted_us"] for p, r in zip(plain, got, strict=True) if p["kernel"] == r["kernel"]]
        )
    timed = rows(kinds | {str(r["rate"]): 2.0 for r in plain})
    assert [r["predicted_us"] for r in timed] == pytest.approx([2.0 * r["predicted_us"] for r in plain])


def test_a_kernel_that_is_slow_here_is_not_taken() -> None:
    plain = rows({})
    other = rows({str(plain[0]["kernel"]): 64.0})
    assert other[0]["kernel"] != plain[0]["kernel"]
    want = InferenceSession(MODEL, threads=1).run(None, FEEDS)[0]
    slow = _native.Session(MODEL, 1, rates={str(plain[0]["kernel"]): 64.0})
    np.testing.assert_allclose(slow.run(None, FEEDS)[0], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rate", [0.0, -1.0, 65.0, 1 / 65, float("nan"), float("inf")])
def test_a_factor_out_of_all_measure_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="a factor from 1/64 to 64"):
        _native.Session(MODEL, 1, rates={"conv": rate})


def test_shipped_rates_name_kernels_that_there_are_and_serve_where_nothing_is_said() -> None:
    shipped = _native.shipped_rates()
    assert all(1 / 64 <= rate <= 64 for rate in shipped.values())
    assert [r["predicted_us"] for r in rows(None)] == [r["predicted_us"] for r in rows(shipped)]
    known = {str(r["kernel"]) for r in rows({})}
    if shipped and ", avx2," in _native.machine():
        assert known <= {key.partition("/")[0] for key in shipped}


def test_off_does_not_ask_the_calibration_and_fast_does(own_cache: Path) -> None:
    off = InferenceSession(MODEL, threads=1, tune="off").explain(repeats=0)
    rates.keep(plans.machine(), {"": 30.0})
    assert InferenceSession(MODEL, threads=1, tune="off").explain(repeats=0) == off
    assert InferenceSession(MODEL, threads=1).explain(repeats=0) == off
    raw = [r["predicted_us"] for r in rows({}) if r["predicted_us"]]
    fast = InferenceSession(MODEL, threads=1, tune="fast").explain(repeats=0)
    ratios = [r["predicted_us"] for r in fast if r["predicted_us"] is not None]
    assert max(ratios) > 25 * min(raw)


def test_what_was_timed_goes_before_the_calibration() -> None:
    timed = InferenceSession(MODEL, threads=1, tune="fast").explain(repeats=0)
    chosen = [r["kernel"] for r in timed if "timed: " in str(r["why"])]
    rates.keep(plans.machine(), dict.fromkeys(chosen, 64.0))
    # The last layer, too small to be timed, may seem worth it now.
    again = InferenceSession(MODEL, threads=1, tune="fast")
    assert again.n_timed <= 1
    assert [r["kernel"] for r in again.explain(repeats=0) if "timed before: " in str(r["why"])] == chosen


def test_a_saved_plan_goes_before_all(tmp_path: Path) -> None:
    made = InferenceSession(MODEL, threads=1)
    made.run(None, FEEDS)
    made.save_plan(tmp_path / "plan.json")
    rates.keep(plans.machine(), {str(rows({})[0]["kernel"]): 64.0})
    loaded = InferenceSession(MODEL, threads=1, plan=tmp_path / "plan.json")
    assert [r["kernel"] for r in loaded.explain(repeats=0)] == [r["kernel"] for r in made.explain(repeats=0)]


def test_kept_and_forgotten_by_machine(own_cache: Path) -> None:
    assert rates.read("here") is None
    assert not rates.forget("here")
    assert not own_cache.exists()
    rates.keep("here", {"": 1.5, "a/1x1": 0.25})
    rates.keep("there", {"": 2.0})
    rates.keep("here", {"": 1.25})
    assert (rates.read("here"), rates.read("there")) == ({"": 1.25}, {"": 2.0})
    assert rates.forget("here")
    assert (rates.read("here"), rates.read("there")) == (None, {"": 2.0})
    for i in range(rates.KEPT + 2):
        rates.keep(f"m{i}", {"": 1.0})
    assert rates.read("m1") is None
    assert rates.read("m2") == {"": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"format": "secateur-timings", "version": 1, "machines": {}}',
        '{"format": "secateur-rates", "version": 1, "machines": {"m": {"": 0.001}}}',
        '{"format": "secateur-rates", "version": 1, "machines": {"m": {"": "2"}}}',
        '{"format": "secateur-rates", "version": 1, "machines": {"m": {"": true}}}',
        '{"format": "secateur-rates", "version": 1, "machines": {"m": [1]}}',
        '{"format": "secateur-rates", "version": 1, "machines": {"m": {"": NaN}}}',
        json.dumps({"format": "secateur-rates", "version": 1, "machines": {"m": {"k" * 1001: 1.0}}}),
    ],
)
def test_a_broken_file_is_a_warning(text: str, own_cache: Path) -> None:
    own_cache.write_text(text, encoding="utf-8")
    with pytest.warns(UserWarning, match="not readable, ignored"):
        assert rates.read("m") is None


def test_a_file_of_another_version_is_no_news(own_cache: Path) -> None:
    own_cache.write_text('{"format": "secateur-rates", "version": 2, "machines": 7}', encoding="utf-8")
    assert rates.read("m") is None


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    Layer = calibrate.Layer
    few = (Layer(16, 16, 8), Layer(16, 8, 8, 3), Layer(64, 32), Layer(32, 16, rows=16))
    monkeypatch.setattr(calibrate, "_LAYERS", few)
    monkeypatch.setattr(calibrate, "_FULL", (Layer(8, 8, 8, 3, 2, True), Layer(3, 8, 16, 3)))
    monkeypatch.setattr(calibrate, "_PASSES", 1)
    monkeypatch.setattr(calibrate, "_REPEATS", 3)


def test_every_layer_of_a_calibration_is_measured(few: None) -> None:
    told: list[tuple[int, int]] = []
    found = calibrate.measured(lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]
    kinds = {key.partition("/")[2] for key in found if "/" in key}
    assert kinds >= {"1x1", "1x1 full", "window", "window full", "first full", "depthwise full", "few", "many"}
    kernels = {key for key in found if key and "/" not in key}
    assert {k.partition("_")[0] for k in kernels} == {"conv", "linear", "qconv"}
    assert all(key.partition("/")[0] in kernels | {"conv", "linear", "qconv"} for key in found if "/" in key)
    assert "" in found
    _native.Session(MODEL, 1, rates=found)


def test_groups_are_geometric_means_and_the_worst_of_every_operator_and_kind() -> None:
    found = calibrate._means([("o_a/x", 2.0), ("o_a/x", 8.0), ("o_a/y", 0.5), ("o_b/x", 1000.0), ("p_a/x", 1.0)])
    kernels = {"o_a": 2.0, "o_a/x": 4.0, "o_a/y": 0.5, "o_b": 64.0, "o_b/x": 64.0, "p_a": 1.0, "p_a/x": 1.0}
    assert found == {"": 3.482, **kernels, "o/x": 64.0, "o/y": 0.5, "p/x": 1.0}


def test_the_command(few: None, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "calibrate" in cli.COMMANDS
    assert cli._main(["calibrate", "--forget"]) == 0
    assert "knew nothing of" in capsys.readouterr().out
    assert cli._main(["calibrate", "--json", "--quiet"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["machine"] == plans.machine()
    assert rates.read(plans.machine()) == said["rates"]
    assert cli._main(["calibrate", "--quiet"]) == 0
    assert str(own_cache) in capsys.readouterr().out.replace("\n", "")
    assert cli._main(["calibrate", "--forget", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forgotten"]
    assert rates.read(plans.machine()) is None
