"""Calibration data: what fits is handed out in batches, what does not is named in one sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from post_training import nets
from secateur.constraints._observers import sample_of
from secateur.engine import InferenceSession
from secateur.errors import UsageError
from secateur.post_training.calibration import examples
from secateur.post_training.int8 import quantize
from secateur.post_training.ranges import ROWS, samples
from secateur.post_training.reading import read, simplified

X = np.random.default_rng(0).random((6, 3), np.float32)


def model() -> bytes:
    return nets.dense([("MatMul", np.eye(3, dtype=np.float32)), ("MatMul", np.ones((3, 2), np.float32))])


def inputs() -> Any:
    return InferenceSession(model()).get_inputs()


def with_value(value: float) -> Any:
    x = X.copy()
    x[4, 1] = value
    return x


BAD: list[tuple[Any, str]] = [
    (X[:0], "calib: 0 examples; at least 1"),
    (X[:, :2], r"input 'x' is float32 \[6, 2\]; model needs float32 \[n, 3\], the first axis = examples"),
    (X[0], r"input 'x' is float32 \[3\]"),
    (X.astype(np.float64), r"is float64 \[6, 3\].*convert it, scaled as in training: x.astype\(np.float32\)"),
    ((255 * X).astype(np.uint8), "is uint8"),
    (with_value(np.nan), "calib: input 'x': example 4 has values that are NaN or infinite"),
    (with_value(np.inf), "example 4 has values that are NaN or infinite"),
    (np.ones_like(X), "input 'x': every value is the same"),
    ({"y": X}, "nothing for the input 'x'"),
    ({"x": X, "mask": X}, "model has no input 'mask'"),
    ("nowhere.npy", "calib nowhere.npy: no such file"),
]


@pytest.mark.parametrize(("given", "said"), BAD)
def test_what_does_not_fit_is_named(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        quantize(model(), given)


def test_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X)
    np.savez(tmp_path / "two.npz", x=X, y=X)
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY rest")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("x.npy", "x.npz"):
        found = examples(tmp_path / name, inputs(), "model")
        assert np.array_equal(np.concatenate([f["x"] for f in found.batches(4)]), X)
        assert [len(f["x"]) for f in found.batches(4)] == [4, 2]
    for name in ("two.npz", "bad.npy", "objects.npy"):
        with pytest.raises(UsageError, match=name):
            examples(tmp_path / name, inputs(), "model")


def test_a_sample_holds_the_extremes_of_all_examples_in_few_rows() -> None:
    g = simplified(read(model())[1], "model")
    x = np.random.default_rng(1).standard_normal((64 * 70, 3)).astype(np.float32)
    data = examples(x, inputs(), "model")
    seen = samples(g, ["x", "v0"], data, 1, None)
    assert set(seen) == {"x", "v0"}
    for sample in seen.values():
        assert len(sample) <= ROWS
        assert sample.min() == x.min()
        assert sample.max() == x.max()
        assert sample.shape[1] == len(sample_of(x, "x"))
    moved: list[int] = []
    samples(g, ["v0"], data, 1, lambda p: moved.append(p.done))
    assert moved == list(range(1, len(moved) + 1))
