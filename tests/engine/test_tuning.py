"""Choices beyond the cost model: timed ones and their file. Saved plans: test_plans.py. How fast: benchmarks/speed."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from engine.test_choice import layers
from parity.engine_graphs import Net, tolerance
from parity.test_engine_random import run_ort
from secateur.engine import InferenceSession, isas, plans, timings
from secateur.errors import UsageError

MODEL, FEEDS = layers(0.1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    monkeypatch.delenv("SECATEUR_TUNE", raising=False)
    return tmp_path / "timings.json"


def files(cache: Path) -> set[str]:
    return {file.name for file in cache.parent.iterdir()}


def kernels(session: InferenceSession) -> list[tuple[str, str]]:
    """Kernel and tile of every step."""
    return [(row["kernel"], str(row["why"]).rsplit("; ", 1)[-1]) for row in session.explain(repeats=0)]


def test_off_is_deterministic_and_touches_no_file(own_cache: Path) -> None:
    a, b = InferenceSession(MODEL, threads=1), InferenceSession(MODEL, threads=1, tune="off")
    assert kernels(a) == kernels(b)
    assert a.run(None, FEEDS)[0].tobytes() == b.run(None, FEEDS)[0].tobytes()
    assert a.n_timed == b.n_timed == 0
    assert not own_cache.exists()


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_a_second_session_does_not_time_again(mode: str, own_cache: Path) -> None:
    first = InferenceSession(MODEL, threads=1, tune=mode)
    assert 2 <= first.n_timed <= 5
    second = InferenceSession(MODEL, threads=1, tune=mode)
    assert second.n_timed == 0
    assert kernels(first) == kernels(second)
    assert first.run(None, FEEDS)[0].tobytes() == second.run(None, FEEDS)[0].tobytes()
    rows = first.explain(repeats=0)
    assert sum("timed: " in str(row["why"]) for row in rows) == first.n_timed
    assert sum("timed before: " in str(row["why"]) for row in second.explain(repeats=0)) == first.n_timed
    assert files(own_cache) == {"timings.json", "timings.lock"}


def test_what_full_found_serves_fast_but_not_the_other_way() -> None:
    InferenceSession(MODEL, threads=1, tune="fast")
    full = InferenceSession(MODEL, threads=1, tune="full")
    assert full.n_timed > 0
    assert InferenceSession(MODEL, threads=1, tune="fast").n_timed == 0
    assert kernels(InferenceSession(MODEL, threads=1, tune="fast")) == kernels(full)


def test_other_zeros_batches_and_threads_are_other_layers() -> None:
    InferenceSession(MODEL, threads=1, tune="fast")
    assert InferenceSession(layers(0.12)[0], threads=1, tune="fast").n_timed > 0
    assert InferenceSession(MODEL, threads=2, tune="fast").n_timed > 0


def test_new_shapes_are_timed_at_their_first_run_and_kept(own_cache: Path) -> None:
    n = Net(np.random.default_rng(0))
    x = n.input((1, 32, 16, 16), declared=("n", 32, 16, 16))
    model = n.model(n.node("Conv", x, n.weight(64, 32, 3, 3, density=0.2), pads=[1] * 4))
    session = InferenceSession(model, threads=1, tune="fast")
    before = session.n_timed
    session.run(None, {x: np.zeros((2, 32, 16, 16), np.float32)})
    assert session.n_timed > before
    other = InferenceSession(model, threads=1, tune="fast")
    other.run(None, {x: np.zeros((2, 32, 16, 16), np.float32)})
    assert other.n_timed == 0


@pytest.mark.parametrize("isa", isas())
def test_tuned_answers_are_right(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_ISA", isa)
    want = run_ort(MODEL, FEEDS)
    allowed = tolerance(run_ort, MODEL, FEEDS, want)[0]
    session = InferenceSession(MODEL, threads=2, tune="full")
    assert np.max(np.abs(session.run(None, FEEDS)[0] - want[0])) <= allowed
    known = isas()  # slowest first
    levels = [known.index(k.rsplit("_", 1)[-1]) for k, _ in kernels(session) if k.startswith(("conv", "linear"))]
    assert len(levels) == 5
    assert max(levels) <= known.index(isa)


def test_integers_are_the_same_bits_whatever_is_chosen() -> None:
    from secateur.engine.quantized import static_int8

    rng = np.random.default_rng(0)
    model = static_int8(MODEL, [{k: rng.standard_normal(v.shape).astype(np.float32) for k, v in FEEDS.items()}])
    plain = InferenceSession(model, threads=1)
    assert any(row["kernel"].startswith("qconv_") for row in plain.explain(repeats=0))
    tuned = InferenceSession(model, threads=1, tune="full")
    assert tuned.n_timed > 0
    assert tuned.run(None, FEEDS)[0].tobytes() == plain.run(None, FEEDS)[0].tobytes()


def test_asked_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_TUNE", "fast")
    assert InferenceSession(MODEL, threads=1).n_timed > 0
    assert InferenceSession(layers(0.3)[0], threads=1, tune="off").n_timed == 0
    monkeypatch.setenv("SECATEUR_TUNE", "faster")
    with pytest.raises(UsageError, match=r"SECATEUR_TUNE=faster.*off, fast, full"):
        InferenceSession(MODEL)
    with pytest.raises(UsageError, match="tune: got 'slow'"):
        InferenceSession(MODEL, tune="slow")


def entry(file: Path) -> tuple[dict[str, object], dict[str, list[object]]]:
    """The file's content and, in it, this machine's layers."""
    content = json.loads(file.read_text())
    return content, content["machines"][plans.machine()]


def test_the_file_names_machine_layers_and_choices(own_cache: Path) -> None:
    session = InferenceSession(MODEL, threads=1, tune="fast")
    content, known = entry(own_cache)
    assert (content["format"], content["version"]) == ("secateur-timings", 1)
    assert len(known) == session.n_timed
    assert {k for k, _ in kernels(session)} >= {choice[0] for choice in known.values()}


@pytest.mark.parametrize(
    "change", [{"0": "conv_sparse_f32_f32_f32_from_elsewhere"}, {"1": [3, 1, 4, 1]}, {"0": "", "1": [0, 0, 0, 0]}]
)
def test_a_kernel_or_tile_that_is_not_there_is_ignored(change: dict[str, object], own_cache: Path) -> None:
    first = InferenceSession(MODEL, threads=1, tune="fast")
    content, known = entry(own_cache)
    for choice in known.values():
        for at, value in change.items():
            choice[int(at)] = value
    own_cache.write_text(json.dumps(content))
    again = InferenceSession(MODEL, threads=1, tune="fast")
    assert again.n_timed >= first.n_timed - 1  # a linear layer has one tile only: [0, 0, 0, 0]
    assert np.allclose(again.run(None, FEEDS)[0], first.run(None, FEEDS)[0], atol=1e-3)


def test_another_machine_s_choices_are_not_taken(own_cache: Path) -> None:
    first = InferenceSession(MODEL, threads=1, tune="fast")
    own_cache.write_text(own_cache.read_text().replace(plans.machine(), "another"))
    assert InferenceSession(MODEL, threads=1, tune="fast").n_timed == first.n_timed
    assert set(json.loads(own_cache.read_text())["machines"]) == {"another", plans.machine()}


def test_a_folder_that_takes_no_file_costs_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="SECATEUR_CACHE"):
        session = InferenceSession(MODEL, threads=1, tune="fast")
    assert session.n_timed > 0


def test_the_oldest_layers_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "KEPT", 3)
    choice: timings.Choice = ("k", (1, 2, 3, 4), 5.0, "fast")
    for i in range(5):
        timings.add("m", [(f"layer{i}", choice)])
    assert [key for key, _ in timings.read("m")] == ["layer2", "layer3", "layer4"]


def test_two_processes_may_write_at_once(own_cache: Path) -> None:
    code = """
import sys
from secateur.engine import timings
for i in range(150):
    timings.add("m", [(f"{sys.argv[1]}{i}", ("k", (1, 2, 3, 4), 5.0, "fast"))])
"""
    workers = [subprocess.Popen([sys.executable, "-W", "error", "-c", code, name]) for name in "ab"]
    assert [w.wait() for w in workers] == [0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known = dict(timings.read("m"))
    assert len(known) == 300
    assert files(own_cache) == {"timings.json", "timings.lock"}
