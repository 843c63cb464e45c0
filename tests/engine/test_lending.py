"""Large arrays are read where they lie and made where they stay: nothing of that may show but the time."""

import gc
import threading

import numpy as np
import pytest

from parity.engine_graphs import Net
from parity.test_engine_random import run_ort
from secateur.engine import InferenceSession

SHAPE = (1, 8, 64, 65)  # 133 KB; less than 32 KB is copied


def chain() -> tuple[bytes, np.ndarray]:
    """An output that the next node reads, and one behind it."""
    net = Net(np.random.default_rng(3))
    x = net.input(SHAPE)
    a = net.node("Tanh", x)
    return net.model(a, net.node("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2])), net.feeds[x]


def tanh() -> tuple[bytes, np.ndarray]:
    net = Net(np.random.default_rng(4))
    x = net.input(SHAPE)
    return net.model(net.node("Tanh", x)), net.feeds[x]


def test_inputs_stay_as_they_are_and_outputs_are_the_callers() -> None:
    model, x = chain()
    want = run_ort(model, {"x1": x})
    session = InferenceSession(model, threads=1)
    given = x.copy()
    first = session.run(None, {"x1": given})
    kept = [a.copy() for a in first]
    second = session.run(None, {"x1": -given})
    assert np.array_equal(given, x)
    for a, b, c in zip(first, kept, want, strict=True):
        assert np.array_equal(a, b)
        assert np.max(np.abs(a - c)) < 1e-5
        assert a.flags.writeable
        assert a.flags.c_contiguous
        assert not any(np.shares_memory(a, other) for other in (*second, given))
    del session
    gc.collect()
    assert np.array_equal(first[0], kept[0])  # longer than the session


def test_an_array_that_is_gone_leaves_its_memory_to_the_next_run() -> None:
    model, x = tanh()
    session = InferenceSession(model, threads=1)
    addresses = set()
    for _ in range(4):
        addresses.add(session.run(None, {"x1": x})[0].ctypes.data)
    held = [session.run(None, {"x1": x})[0] for _ in range(8)]
    assert len(addresses) == 1
    assert len({a.ctypes.data for a in held}) == len(held)


@pytest.mark.parametrize("layout", ["strided", "reversed", "fortran", "unaligned", "read-only"])
def test_arrays_of_any_layout(layout: str) -> None:
    model, x = tanh()
    given = x
    if layout == "strided":
        given = np.repeat(x, 2, axis=3)[..., ::2]
    elif layout == "reversed":
        given = x[..., ::-1].copy()[..., ::-1]
    elif layout == "fortran":
        given = np.asfortranarray(x)
    elif layout == "unaligned":
        given = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(SHAPE)
    else:
        given.flags.writeable = False
    session = InferenceSession(model, threads=1)
    plain = session.run(None, {"x1": x.copy()})[0]
    for _ in range(2):
        assert np.array_equal(session.run(None, {"x1": given})[0], plain)
        assert np.array_equal(session.run(None, {"x1": x.copy()})[0], plain)


def test_an_input_by_another_name_is_copied_out() -> None:
    net = Net(np.random.default_rng(5))
    x = net.input(SHAPE)
    flat = net.node("Flatten", x)
    session = InferenceSession(net.model(flat, net.node("Relu", flat)), threads=1)
    same, relu = session.run(None, net.feeds)
    assert np.array_equal(same, net.feeds[x].reshape(same.shape))
    assert np.array_equal(relu, np.maximum(same, 0))
    assert not np.shares_memory(same, net.feeds[x])


def test_one_result_under_two_names_is_two_arrays() -> None:
    net = Net(np.random.default_rng(6))
    y = net.node("Relu", net.input(SHAPE))
    session = InferenceSession(net.model(y, net.node("Flatten", y)), threads=1)
    a, b = session.run(None, net.feeds)
    twice = session.run([y, y], net.feeds)
    assert np.array_equal(a.reshape(b.shape), b)
    assert not np.shares_memory(a, b)
    assert not np.shares_memory(*twice)


def test_two_threads_share_a_session() -> None:
    model, x = tanh()
    session = InferenceSession(model, threads=1)
    want = {k: session.run(None, {"x1": k * x})[0].copy() for k in (1, 2)}
    wrong: list[int] = []

    def many(k: int) -> None:
        for _ in range(50):
            if not np.array_equal(session.run(None, {"x1": np.float32(k) * x})[0], want[k]):
                wrong.append(k)

    threads = [threading.Thread(target=many, args=(k,)) for k in (1, 2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
