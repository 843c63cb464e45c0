"""The plan's choice between sparse and dense kernels. How fast they are is measured in benchmarks/speed (choice)."""

import re

import numpy as np
import pytest

from parity.engine_graphs import Net, tolerance
from parity.test_engine_random import run_ort
from secateur.engine import InferenceSession, isas
from secateur.native import _native

LARGE = slice(0, 4)  # the layers below but the last, which is too small for either kernel to matter
DENSITIES = (1.0, 0.6, 0.3, 0.1, 0.02)


def layers(density: float) -> tuple[bytes, dict[str, np.ndarray]]:
    """Convolutions and linear layers of the shapes small nets have."""
    n = Net(np.random.default_rng(5))
    x = n.input((1, 16, 16, 16))
    y = n.node("Relu", n.node("Conv", x, n.weight(32, 16, 3, 3, density=density), n.weight(32), pads=[1] * 4))
    y = n.node("Relu", n.node("Conv", y, n.weight(48, 32, 5, 5, density=density), n.weight(48)))
    y = n.node("Relu", n.node("Conv", y, n.weight(32, 48, 1, 1, density=density), n.weight(32)))
    y = n.node("Flatten", n.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), axis=1)
    y = n.node("Relu", n.node("Gemm", y, n.weight(300, 1152, density=density), n.weight(300), transB=1))
    return n.model(n.node("Gemm", y, n.weight(10, 300, density=density), transB=1)), n.feeds


def chosen(model: bytes, sparse: bool = True) -> list[dict[str, object]]:
    """The rows of `explain` that have weights."""
    session = _native.Session(model, 1, sparse)
    return [row for row in session._explain(1, 0) if row["n_weights"]]


def is_sparse(row: dict[str, object]) -> bool:
    return family(row) != "dense"


def family(row: dict[str, object]) -> str:
    kind = re.match(r"(?:conv|linear)_(sparse|block|dense)\d*_", str(row["kernel"]))
    assert kind is not None, row["kernel"]
    return kind[1]


PREDICTED = {"sparse": "sparse", "blocks": "block", "16x1 blocks": "block", "dense": "dense"}


@pytest.mark.parametrize("isa", isas())
def test_dense_layers_get_dense_kernels_and_sparse_ones_sparse_kernels(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_ISA", isa)
    choices = [[is_sparse(row) for row in chosen(layers(d)[0])] for d in DENSITIES]
    if isa == "ref":  # plain loops, dense only
        assert not any(any(row) for row in choices)
        return
    full = {family(row) for row in chosen(layers(1.0)[0])}
    if isa != "portable":  # there the sparse loops are as fast at density 1 (1.02x on Zen 4)
        # Zen 5's table holds at its best level: full blocks are as fast as dense kernels there.
        assert full <= ({"dense", "block"} if isa == isas()[-1] else {"dense"})
    assert all(choices[DENSITIES.index(0.02)][LARGE])
    assert all(choices[DENSITIES.index(0.1)][LARGE])
    for thinner, denser in zip(choices[1:], choices, strict=False):  # once sparse, then sparse at any lower density
        assert all(a >= b for a, b in zip(thinner[LARGE], denser[LARGE], strict=True))


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("isa", [x for x in isas() if x != "ref"])
def test_the_kernel_that_is_predicted_to_be_faster_is_chosen(
    isa: str, density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_ISA", isa)
    rows = chosen(layers(density)[0])
    assert len(rows) == 5
    for row in rows:
        why = str(row["why"]).split(";")[0]
        times = {PREDICTED[name]: float(us) for name, us in re.findall(r"[:,] ([a-z0-9 ]+?) ([\d.e+-]+) us", why)}
        assert times.keys() >= {"sparse", "dense"}, why
        # Only beside narrower vectors does what differs by less than the models' error, 15 %, go to the widest; the
        # figures are printed with three digits.
        margin = 1.005 if isa in ("portable", "avx2") else 1 / 0.85
        assert times[family(row)] <= min(times.values()) * margin, row
    assert not any(is_sparse(row) for row in chosen(layers(density)[0], sparse=False))


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("isa", isas())
def test_either_choice_gives_the_same_answer(isa: str, density: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_ISA", isa)
    model, feeds = layers(density)
    want = run_ort(model, feeds)
    allowed = tolerance(run_ort, model, feeds, want)[0]
    for session in (InferenceSession(model, threads=1), _native.Session(model, 1, False)):
        assert np.max(np.abs(session.run(None, feeds)[0] - want[0])) <= allowed
