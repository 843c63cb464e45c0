"""Random nets of the supported operators: the engine and ONNX Runtime agree within what float32 allows."""

import numpy as np
import pytest

from secateur.engine import InferenceSession
from secateur.shell import runtimes

from .engine_graphs import random_net, tolerance


def run_ort(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    ort = runtimes.onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)


@pytest.mark.parametrize("seed", range(300))
def test_random_net_agrees_with_onnxruntime(seed: int) -> None:
    model, feeds = random_net(seed)
    want = run_ort(model, feeds)
    got = InferenceSession(model, threads=1).run(None, feeds)
    allowed = tolerance(run_ort, model, feeds, want)
    for a, b, most in zip(got, want, allowed, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.max(np.abs(a - b), initial=0) <= most, f"seed {seed}: {np.max(np.abs(a - b))} > {most}"
