"""Sizes of files whose large tensors are not coded one by one: near the true ones, and exact where all is coded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from secateur import formats
from secateur.export import sized


def file(shapes: Sequence[tuple[int, ...]], densities: Sequence[float], decimals: int = 9) -> bytes:
    """A graph that holds such tensors and does nothing with them."""
    rng = np.random.default_rng(0)
    tensors = []
    for i, (shape, density) in enumerate(zip(shapes, densities, strict=True)):
        w = rng.standard_normal(shape).round(decimals).astype(np.float32)
        w[np.abs(w) < np.quantile(np.abs(w), 1 - density)] = 0
        tensors.append(numpy_helper.from_array(w, f"w{i}.T" if i == 1 else f"w{i}"))
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    made = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y], tensors))
    return bytes(made.SerializeToString())


# many float values, of which bands are coded; of few values; few kept ones, beside a shape of their own
@pytest.mark.parametrize(
    ("decimals", "densities"), [(9, (0.5, 0.3, 0.2)), (0, (0.5, 0.3, 0.2)), (9, (0.05, 0.02, 0.1))]
)
def test_large_tensors_take_about_what_they_would_take_if_they_were_coded(
    decimals: int, densities: tuple[float, ...]
) -> None:
    data = file([(1024, 512), (1000, 500), (512, 128, 3, 3), (50,)], (*densities, 1.0), decimals)
    exact, found = sized.exactly(formats.pack(data)), sized.sections(data)
    assert found.keys() == exact.keys()
    assert found["w3"] == exact["w3"]
    for name in ("w0", "w1", "w2"):
        assert found[name] == pytest.approx(exact[name], rel=0.06)
    assert sum(found.values()) == pytest.approx(sum(exact.values()), rel=0.03)


def test_what_is_left_out_is_not_counted_and_the_rest_is_exact_where_it_is_asked_for() -> None:
    data = file([(300, 40), (40, 300), (80,)], (0.5, 0.5, 1.0))
    exact = sized.exactly(formats.pack(data))
    assert sized.sections(data, whole=math.inf) == exact
    without = sized.sections(data, ["w0", "w1"], math.inf)
    assert without == {k: n for k, n in exact.items() if k not in ("w0", "w1")}
