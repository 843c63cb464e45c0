"""The same bytes on every ISA: what stands between integer layers, by form where halves abound, and random nets."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.engine import InferenceSession
from secateur.native import _native

from .quant_graphs import F, Net, against_oracle, on_every_isa
from .quant_random import RandomNet

NETS_A_TEST = 50


MEANS = ["global", "flatten", "reshape", "squeeze", "reduce", "reduce, no axes kept", "average", "average with pads"]


@pytest.mark.parametrize("s8", [False, True])
@pytest.mark.parametrize("form", MEANS)
def test_means_are_sums_of_integers(monkeypatch: pytest.MonkeyPatch, form: str, s8: bool) -> None:
    """Half of the means lie between two steps of the result: an order of float32 additions would decide them."""
    net = Net(41, s8)
    shape = (2, 32, 7, 9)
    grid = (F(0.1), 5)
    constants = net.const(np.eye(32)[..., None, None], np.int8), net.const(F(1), F), net.const(0, np.int8)
    w = net.node("DequantizeLinear", *constants)
    x = net.dequantize(net.quantize(net.node("Conv", net.dequantize(net.quantize("x", *grid), *grid), w), *grid), *grid)
    window: list[int] = [7, 9]
    if form.startswith("reduce"):
        y = net.node("ReduceMean", x, axes=[-2, -1], keepdims=int(form == "reduce"))
    elif form.startswith("average"):
        window = [3, 3]
        y = net.node("AveragePool", x, kernel_shape=window, pads=[1] * 4, count_include_pad=int("pads" in form))
    else:
        y = net.node("GlobalAveragePool", x)
        if form == "flatten":
            y = net.node("Flatten", y)
        elif form == "reshape":
            y = net.node("Reshape", y, net.const([0, -1], np.int64))
        elif form == "squeeze":
            y = net.node("Squeeze", y, net.const([2, 3], np.int64))
    y_grid = (F(0.2) / F(np.prod(window)), 3)
    model = net.model({"x": list(shape)}, {net.quantize(y, *y_grid): net.qtype})
    low, high = net.bounds
    q = net.rng.integers(low, high + 1, shape)
    if not form.startswith("average"):
        # Means of few steps, odd and even.
        q = grid[1] + net.rng.integers(-1, 2, shape)
    (got,) = on_every_isa(monkeypatch, model, {"x": ((q - grid[1]) * grid[0]).astype(F)})
    monkeypatch.delenv("SECATEUR_ISA")
    rows = InferenceSession(model, threads=1).explain(repeats=0)
    assert any(r["kernel"] == "average_pool_quads_u8" for r in rows), rows
    if form.startswith("average"):
        return
    factor = F(F(grid[0] / y_grid[0]) / F(63))
    want = np.clip(np.rint((q - grid[1]).sum(axis=(2, 3)).astype(F) * factor) + y_grid[1], low, high)
    np.testing.assert_array_equal(got.reshape(want.shape), want)


@pytest.mark.parametrize("first", range(0, 400, NETS_A_TEST))
def test_every_isa_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    for seed in range(first, first + NETS_A_TEST):
        model, x = RandomNet(seed).build()
        results = {}
        for isa in _native.isas():
            monkeypatch.setenv("SECATEUR_ISA", isa)
            results[isa] = InferenceSession(model, threads=1, fallback=None).run(None, {"x": x})
        want = results[_native.isas()[0]]
        for isa, got in results.items():
            for a, b in zip(want, got, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"seed {seed}, {isa} against {_native.isas()[0]}")


def test_the_nets_compute_what_they_say() -> None:
    """Against float32 execution of every node. One step of a grid, passed on by the layers behind it, is the most."""
    apart = []
    for seed in range(60):
        model, x = RandomNet(seed).build()
        (got,) = InferenceSession(model, threads=1, fallback=None).run(None, {"x": x})
        (want,) = against_oracle(model, {"x": x})
        assert got.shape == want.shape
        values = np.unique(np.abs(np.diff(np.sort(want.ravel().astype(np.float64)))))
        step = values[values > 1e-6].min(initial=1.0)
        apart.append(np.max(np.abs(got.astype(np.float64) - want), initial=0) / step)
    assert np.mean(np.array(apart) < 0.5) > 0.6, apart
    assert max(apart) < 20, apart


def test_nothing_between_two_integer_layers_is_left_to_an_isa() -> None:
    """Means in all their forms are sums of integers, functions of one value are tables."""
    for seed in range(60):
        model, _ = RandomNet(seed).build()
        for row in InferenceSession(model, threads=1, fallback=None).explain(repeats=0):
            assert row["kernel"] not in ("unary_f32", "reduce_ref", "gelu_f32"), (seed, row)
