"""The page of a bench record: one file, all numbers said in words too, nothing of the model's taken for markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from secateur.errors import MissingExtraError
from secateur.report import document, timings

EVIL = "</script><b>x"


def record() -> dict[str, Any]:
    def run(runtime: str, model: str, ms: float) -> dict[str, Any]:
        spread = {"median": ms, "p10": 0.9 * ms, "p90": 1.2 * ms}
        return {
            "runtime": runtime, "model": model, "version": "1.2", "latency_ms": spread, "n_calls": 10,
            "rounds_ms": [ms, 1.1 * ms],
        }  # fmt: skip

    def ratio(runtime: str, model: str, times: float) -> dict[str, Any]:
        return {"of": [runtime, model], "to": ["engine", "model"], "median": times, "p10": times, "p90": times}

    check = {"runtime": "onnxruntime", "max_abs_error": 0.5, "same_argmax": 1.0}
    return {
        "title": f"{EVIL}.sct: batch 1, threads 2, A CPU, avx2",
        "runs": [run("engine", "model", 0.5), run("onnxruntime", "model", 2.0), run("onnxruntime", "dense_int8", 1.0)],
        "ratios": [ratio("onnxruntime", "model", 4.0), ratio("onnxruntime", "dense_int8", 2.0)],
        "checks": [
            {**check, "model": "model", "tolerance": 0.1, "agree": False},
            {**check, "model": "dense_int8", "tolerance": None, "agree": True}
            | {"engine_error": 0.03, "peer_error": 0.04},
        ],
        "skipped": {"torch": "not installed"},
        "compared": [f"dense: {EVIL}"],
        "nbytes": {"model": 1200, "dense_int8": 5000},
        "kernels": ["conv_a", "conv_a"],
        "cpu": "A CPU", "isa": "avx2", "machine": "m", "clock": "perf_counter", "threads": 2, "batch": 1,
        "n_inputs": 32, "inputs": "given",
    }  # fmt: skip


def test_the_page_holds_every_number_and_is_one_file(tmp_path: Path) -> None:
    page = timings.write(tmp_path / "t.html", record(), "9.9").read_text("utf-8")
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)
    assert found
    specs = json.loads(found.group(1))
    assert set(specs) == {"latency", "ratios", "rounds"}
    assert all(f'id="plot-{name}"' in page for name in specs)
    assert specs["latency"]["data"][0]["x"] == [0.5, 2.0, 1.0]
    assert specs["latency"]["data"][0]["error_x"]["array"] == pytest.approx([0.1, 0.4, 0.2])
    assert specs["ratios"]["data"][0]["text"] == ["4.00×", "2.00×"]
    assert [line["y"] for line in specs["rounds"]["data"]] == [[0.5, 0.55], [2.0, 2.2], [1.0, 1.1]]
    for words in ("differs", "agrees", "0.0300 / 0.0400", "torch: not installed", "2 threads", "Secateur 9.9"):
        assert words in page
    assert "<b>x" not in page.replace("</b>", "")
    assert not re.search(r'(src|href)="(?!#|data:)', page)


def test_a_record_without_anything_to_compare_with() -> None:
    alone = record()
    alone |= {"runs": alone["runs"][:1], "ratios": [], "checks": []}
    assert "nothing to compare with" in timings.render(alone, "1")


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    document._plotly.cache_clear()
    monkeypatch.setattr(document.importlib.util, "find_spec", lambda name: None)
    try:
        with pytest.raises(MissingExtraError, match=r"secateur\[report\]"):
            timings.render(record(), "1")
    finally:
        document._plotly.cache_clear()
