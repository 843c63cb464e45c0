"""Broken plans and timings: one test per way, then mutations. A plan gives a clear error, timings a warning."""

import copy
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.test_choice import layers
from secateur.engine import InferenceSession, plans, timings
from secateur.errors import FormatError, UsageError

MODEL, FEEDS = layers(0.1)
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("plan") / "a.plan"
    InferenceSession(MODEL, threads=1).save_plan(file)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def first(plan: dict[str, Any]) -> Any:
    """[input shapes, layers] of the only part."""
    return plan["parts"][plan["model"]][0]


def layer(plan: dict[str, Any]) -> Any:
    """[kernel, tile, microseconds, mode] of the first layer."""
    return first(plan)[1][0][1]


def put(where: Callable[[dict[str, Any]], Any], key: Any, value: object) -> Change:
    def change(plan: dict[str, Any]) -> None:
        where(plan)[key] = value

    return change


def top(plan: dict[str, Any]) -> Any:
    return plan


DAMAGED: dict[str, Change] = {
    "another format": put(top, "format", "secateur-timings"),
    "no format": lambda p: p.pop("format"),
    "a later version": put(top, "version", 2),
    "a version in words": put(top, "version", "one"),
    "no model": lambda p: p.pop("model"),
    "a model that is a number": put(top, "model", 5),
    "no threads": put(top, "threads", 0),
    "threads in words": put(top, "threads", "1"),
    "true threads": put(top, "threads", True),
    "too many threads": put(top, "threads", 10**9),
    "parts in a list": put(top, "parts", []),
    "a part that is a number": lambda p: put(lambda q: q["parts"], p["model"], 3)(p),
    "no layers": lambda p: first(p).pop(),
    "layers in words": lambda p: put(first, 1, "conv")(p),
    "a shape in words": lambda p: put(first, 0, ["abc"])(p),
    "a negative size": lambda p: put(first, 0, [[-1, 16, 16, 16]])(p),
    "a huge size": lambda p: put(first, 0, [[2**40, 16, 16, 16]])(p),
    "a size that is a fraction": lambda p: put(first, 0, [[1.5, 16, 16, 16]])(p),
    "a rank of nine": lambda p: put(first, 0, [[1] * 9])(p),
    "a layer without choice": lambda p: first(p)[1][0].pop(),
    "a choice of three": lambda p: layer(p).pop(),
    "a kernel that is a number": lambda p: put(layer, 0, 7)(p),
    "a kernel of a million letters": lambda p: put(layer, 0, "k" * 10**6)(p),
    "a tile of three": lambda p: layer(p)[1].pop(),
    "a tile below zero": lambda p: put(layer, 1, [-1, 1, 1, 1])(p),
    "a tile beyond 32 bits": lambda p: put(layer, 1, [2**31, 1, 1, 1])(p),
    "a tile of truth": lambda p: put(layer, 1, [True, 1, 1, 1])(p),
    "a time in words": lambda p: put(layer, 2, "fast")(p),
    "a negative time": lambda p: put(layer, 2, -1)(p),
    "an unknown mode": lambda p: put(layer, 3, "faster")(p),
}
UNFIT: dict[str, tuple[Change, str]] = {
    "another input shape": (
        lambda p: put(first, 0, [[1, 16, 16, 17]])(p),
        r"shape \[1, 16, 16, 17\] does not fit input",
    ),
    "another rank": (lambda p: put(first, 0, [[1, 16]])(p), "does not fit input"),
    "one input too many": (lambda p: first(p)[0].append([1]), "for 2 inputs, the model has 1"),
    "a layer too few": (lambda p: first(p)[1].pop(), "layer 4 of the model"),
    "a layer too many": (lambda p: first(p)[1].append(first(p)[1][0]), "decides 6 layers, the model has 5"),
    "layers in another order": (lambda p: first(p)[1].reverse(), "layer 0 of the model is"),
    "a kernel nobody has": (lambda p: put(layer, 0, "conv_by_hand")(p), "asks for conv_by_hand"),
    "a kernel of another operator": (lambda p: put(layer, 0, first(p)[1][4][1][0])(p), "asks for linear_"),
    "a tile that is none": (lambda p: put(layer, 1, [2**31 - 1] * 4)(p), "asks for conv_.* 2147483647/"),
    "no tile": (lambda p: put(layer, 1, [0, 0, 0, 0])(p), "which this CPU or build does not have"),
}


def load(content: object, folder: Path) -> InferenceSession:
    file = folder / "a.plan"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return InferenceSession(MODEL, plan=file)


@pytest.mark.parametrize("way", DAMAGED)
def test_damaged_plans(way: str, plan: dict[str, Any], tmp_path: Path) -> None:
    damaged = copy.deepcopy(plan)
    DAMAGED[way](damaged)
    with pytest.raises(FormatError, match=r"a\.plan: not a plan of this version, or a damaged one"):
        load(damaged, tmp_path)


@pytest.mark.parametrize("way", UNFIT)
def test_plans_that_do_not_fit(way: str, plan: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(plan)
    change, words = UNFIT[way]
    change(changed)
    with pytest.raises(UsageError, match=words):
        load(changed, tmp_path)


NO_JSON = {
    "nothing": b"",
    "half": b'{"format": "secateur-plan", ',
    "no text": bytes(range(256)),
    "a number": b"7",
    "a list": b"[]",
    "NaN": b'{"format": NaN}',
    "a number of ten thousand digits": b'{"version": ' + b"9" * 10_000 + b"}",
    "nested without end": b"[" * 200_000,
}


@pytest.mark.parametrize("way", NO_JSON)
def test_files_that_are_no_plan(way: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not a plan"):
        load(NO_JSON[way], tmp_path)


def test_a_plan_that_says_nothing(plan: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="says nothing of its model"):
        load(plan | {"parts": {}}, tmp_path)


def test_a_plan_beyond_all_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "LIMIT", 100)
    with pytest.raises(FormatError, match="more than 100 bytes"):
        load(b" " * 101, tmp_path)


def test_mutated_plans(plan: dict[str, Any], tmp_path: Path) -> None:
    data, want = json.dumps(plan).encode(), InferenceSession(MODEL, threads=1).run(None, FEEDS)[0]
    rng = random.Random(3)
    loaded = 0
    for _ in range(400):
        mutant = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(mutant))
            if rng.random() < 0.5:
                mutant[at] = rng.choice(b'0123456789[]{}",:-eab')
            else:
                del mutant[at : at + rng.randint(1, 20)]
        try:
            session = load(bytes(mutant), tmp_path)
        except (FormatError, UsageError):
            continue
        loaded += 1
        assert np.allclose(session.run(None, FEEDS)[0], want, atol=1e-3)
    assert loaded < 400  # times and modes may change without harm


TIMINGS = NO_JSON | {
    "machines in a list": b'{"format": "secateur-timings", "version": 1, "machines": []}',
    "no machines": b'{"format": "secateur-timings", "version": 1}',
    "layers in a list": b'{"format": "secateur-timings", "version": 1, "machines": {"m": [1]}}',
    "a key without end": b'{"format": "secateur-timings", "version": 1, "machines": {"' + b"m" * 2000 + b'": {}}}',
    "a choice of none": b'{"format": "secateur-timings", "version": 1, "machines": {"m": {"k": null}}}',
    "endless time": b'{"format": "secateur-timings", "version": 1, "machines": {"m": {"k": ["c", [1, 1, 1, 1], 1e999, '
    b'"fast"]}}}',
    "a plan": b'{"format": "secateur-plan", "version": 1}',
}


@pytest.mark.parametrize("way", TIMINGS)
def test_broken_timings_are_ignored_and_replaced(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    timings.path().write_bytes(TIMINGS[way])
    with pytest.warns(UserWarning, match=r"timings\.json: not readable, ignored"):
        timings.add("m", [("layer", ("kernel", (1, 2, 3, 4), 5.0, "fast"))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert timings.read("m") == [("layer", ("kernel", (1, 2, 3, 4), 5.0, "fast"))]
    assert timings.read("other") == []


def test_another_version_s_timings_are_replaced_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    timings.path().write_bytes(b'{"format": "secateur-timings", "version": 0}')
    assert timings.read("m") == []
