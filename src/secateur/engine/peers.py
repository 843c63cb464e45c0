"""Other runtimes, as functions from feeds to outputs. Each is imported only when asked for; none phones home."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.shell import runtimes

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Call = Callable[[Feeds], Sequence[Array]]

PEERS = ("onnxruntime", "openvino", "torch")


class Unavailable(Exception):
    """A peer that cannot take part; the text says why."""


@contextlib.contextmanager
def _taking(peer: str) -> Iterator[None]:
    """A model that a peer does not load (of an opset before 7, say) is no reason to end the others' measurement."""
    try:
        yield
    except Exception as error:  # the peers' errors have no common class but this
        raise Unavailable(f"{peer} does not take the model: {' '.join(str(error).split())[:200]}") from None


def onnxruntime(model: bytes, threads: int, shapes: Mapping[str, Sequence[int]]) -> tuple[Call, str]:
    """ONNX Runtime's CPU provider, all graph optimisations, `threads` intra-op threads."""
    try:
        ort = runtimes.onnxruntime()
    except ImportError:
        raise Unavailable("onnxruntime is not installed (pip install 'secateur[peers]')") from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    with _taking("ONNX Runtime"):
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return (lambda feeds: session.run(None, feeds)), str(ort.__version__)


def openvino(model: bytes, threads: int, shapes: Mapping[str, Sequence[int]]) -> tuple[Call, str]:
    """OpenVINO's CPU plugin, float32, latency mode, shapes fixed to those measured."""
    try:
        ov = runtimes.openvino()
    except ImportError:
        raise Unavailable("openvino is not installed (pip install 'secateur[peers]')") from None
    core = ov.Core()
    with _taking("OpenVINO"):
        network = core.read_model(io.BytesIO(model))
        network.reshape({name: list(shape) for name, shape in shapes.items()})
        compiled = core.compile_model(
            network,
            "CPU",
            {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"},
        )
    request = compiled.create_infer_request()
    n_outputs = len(compiled.outputs)

    def call(feeds: Feeds) -> Sequence[Array]:
        # share_inputs saves a copy; outputs are copied out, as the other runtimes hand over arrays of their own.
        found = request.infer(dict(feeds), share_inputs=True)
        return [np.array(found[i]) for i in range(n_outputs)]

    return call, str(ov.__version__).split("-")[0]


@contextlib.contextmanager
def torch_threads() -> Iterator[None]:
    """Gives torch its number of threads back, if torch is there at all."""
    t = sys.modules.get("torch")
    before = t.get_num_threads() if t is not None else None
    try:
        yield
    finally:
        if t is not None and before is not None:
            t.set_num_threads(before)


def torch(module: Any, threads: int, order: Sequence[str]) -> tuple[Call, str]:
    """An `nn.Module` in evaluation mode under `inference_mode`; `order` maps inputs by name to positions."""
    try:
        import torch as t
    except ImportError:
        raise Unavailable("torch is not installed (pip install 'secateur[compress]')") from None
    if module is None:
        raise Unavailable(
            "torch cannot run an .onnx or .sct file alone; give a run's folder (from Python: module=, dense_module=)"
        )
    t.set_num_threads(threads)
    network = module.eval()

    def call(feeds: Feeds) -> Sequence[Array]:
        with t.inference_mode():
            found = network(*(t.from_numpy(feeds[name]) for name in order))
        outputs = found if isinstance(found, (tuple, list)) else [found]
        return [o.numpy() for o in outputs]

    return call, str(t.__version__)
