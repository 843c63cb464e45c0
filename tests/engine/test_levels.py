"""Levels of one file in the engine: each as a file of its own, changed at run time, kept once it was used."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from secateur import formats
from secateur.engine import InferenceSession, inspect, plans
from secateur.errors import FormatError, UsageError
from secateur.export import onnx as onnx_export


def models() -> list[bytes]:
    """A convolution, a batch norm, a linear layer; half and a tenth of the weights of each, norms of their own."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)).eval()
    found = []
    for share in (0.5, 0.1):
        with torch.no_grad():
            for p in (net[0].weight, net[4].weight):
                edge = p.abs().flatten().kthvalue(int(p.numel() * (1 - share))).values
                p.masked_fill_(p.abs() <= edge, 0.0)
            net[1].bias.normal_()
        found.append(onnx_export.to_bytes(net, torch.zeros(2, 3, 8, 8)))
    return found


MODELS = models()
CHAIN = formats.pack_levels(MODELS)
X = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)


def answer(session: InferenceSession) -> np.ndarray:
    return session.run(None, {session.get_inputs()[0].name: X})[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_each_level_answers_as_its_own_file_to_the_bit(threads: int) -> None:
    session = InferenceSession(CHAIN, threads=threads)
    assert (session.level, session.levels) == (0, 2)
    for level in (1, 0, 1):
        session.set_level(level)
        alone = InferenceSession(formats.pack(MODELS[level]), threads=threads)
        assert session.level == level
        assert answer(session).tobytes() == answer(alone).tobytes()
        assert answer(InferenceSession(CHAIN, threads=threads, level=level)).tobytes() == answer(alone).tobytes()
        rows = [(r["kernel"], r["nnz"], r["packed_nbytes"]) for r in session.explain(repeats=0)]
        assert rows == [(r["kernel"], r["nnz"], r["packed_nbytes"]) for r in alone.explain(repeats=0)]
        assert session.memory() == alone.memory()
    assert alone.explain(repeats=0)[0]["nnz"] < InferenceSession(CHAIN).explain(repeats=0)[0]["nnz"]


def test_a_level_that_was_used_is_kept() -> None:
    session = InferenceSession(CHAIN)
    first = session._runs
    session.set_level(1)
    second = session._runs
    session.set_level(0)
    assert session._runs is first
    session.set_level(1)
    assert session._runs is second


def test_a_level_that_is_not_there_changes_nothing() -> None:
    session = InferenceSession(CHAIN)
    before = answer(session)
    for level in (2, -1, None, 1.0, "1"):
        with pytest.raises(UsageError, match=r"2 levels, 0 \(loosest\) to 1"):
            session.set_level(level)
    assert (session.level, answer(session).tobytes()) == (0, before.tobytes())
    for model in (MODELS[0], formats.pack(MODELS[0])):
        assert InferenceSession(model).levels == 1
        with pytest.raises(UsageError, match="one level, 0"):
            InferenceSession(model, level=1)


def test_damage_in_a_tighter_level_is_found_when_it_is_asked_for(tmp_path: Path) -> None:
    damaged = bytearray(CHAIN)
    damaged[5] = 3  # says that a third follows
    import zlib

    whole = bytes(damaged[:-4]) + zlib.crc32(damaged[:-4]).to_bytes(4, "little")
    session = InferenceSession(whole)
    before = answer(session)
    with pytest.raises(FormatError):
        session.set_level(2)
    assert (session.level, answer(session).tobytes()) == (0, before.tobytes())
    (tmp_path / "net.sct").write_bytes(whole)
    with pytest.raises(FormatError, match=r"net\.sct"):
        InferenceSession(tmp_path / "net.sct", level=2)


def test_a_plan_is_for_its_level(tmp_path: Path) -> None:
    session = InferenceSession(CHAIN, threads=1, level=1)
    answer(session)
    session.save_plan(tmp_path / "plan.json")
    again = InferenceSession(CHAIN, threads=1, level=1, plan=tmp_path / "plan.json")
    assert answer(again).tobytes() == answer(session).tobytes()
    with pytest.raises(UsageError, match="the plan is for"):
        InferenceSession(CHAIN, threads=1, plan=tmp_path / "plan.json")
    assert plans.digest(CHAIN) != plans.digest(CHAIN, 1)


def test_runs_under_way_end_at_their_level() -> None:
    session = InferenceSession(CHAIN, threads=1)
    expected = [answer(InferenceSession(CHAIN, threads=1, level=k)).tobytes() for k in (0, 1)]
    wrong: list[bytes] = []

    def work() -> None:
        wrong.extend(y for y in (answer(session).tobytes() for _ in range(200)) if y not in expected)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads:
        t.start()
    for k in range(200):
        session.set_level(k % 2)
    for t in threads:
        t.join()
    assert not wrong


def test_inspect_lists_levels() -> None:
    found = inspect(CHAIN)
    assert [row["level"] for row in found["levels"]] == [0, 1]
    assert [row["nnz"] for row in found["levels"]] == [inspect(model)["totals"]["nnz"] for model in MODELS]
    assert sum(row["nbytes"] for row in found["levels"]) == len(CHAIN) == found["nbytes"]
    assert [row["nbytes_alone"] for row in found["levels"]] == [len(formats.pack(model)) for model in MODELS]
    tight = inspect(CHAIN, level=1)
    assert tight["totals"]["nnz"] == found["levels"][1]["nnz"] < found["totals"]["nnz"]
    assert inspect(MODELS[0])["levels"] == []
