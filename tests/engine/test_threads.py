"""Sessions, Python threads and forked processes: results are the serial ones, and nobody waits for ever.

The nets have layers far above the time from which a pool is used, so that the workers really work.
"""

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import pytest

from parity.engine_graphs import Net
from secateur.engine import InferenceSession

SECONDS = 60.0  # of a child; it needs milliseconds
Feeds = dict[str, np.ndarray]


def conv_net(density: float = 0.3, quantized: bool = False) -> tuple[bytes, Feeds]:
    """Two convolutions of 64 channels on 40x40, a pool and a linear layer, about 70 million dense MACs."""
    net = Net(np.random.default_rng(1))

    def grid(x: str) -> str:
        if not quantized:
            return x
        scale, zero = net.const(np.float32(0.05)), net.const(np.uint8(128))
        return net.node("DequantizeLinear", net.node("QuantizeLinear", x, scale, zero), scale, zero)

    def weight(*shape: int) -> str:
        if not quantized:
            return net.weight(*shape, density=density)
        q = net.rng.integers(-127, 128, shape) * (net.rng.random(shape) < density)
        scale = net.const(np.full(shape[0], 0.002, np.float32))
        zero = net.const(np.zeros(shape[0], np.int8))
        return net.node("DequantizeLinear", net.const(q.astype(np.int8)), scale, zero, axis=0)

    x = grid(net.input((1, 8, 40, 40)))
    for channels in (8, 64):
        x = net.node("Conv", x, weight(64, channels, 3, 3), pads=[1] * 4)
        x = grid(net.node("Relu", x))
    x = grid(net.node("MaxPool", x, kernel_shape=[8, 8], strides=[2, 2], pads=[3] * 4))
    x = net.node("Flatten", x)
    return net.model(net.node("Gemm", x, net.weight(10, 64 * 400, density=density), transB=1)), net.feeds


KINDS = {
    "fp32 sparse": {"density": 0.1},
    "fp32 dense": {"density": 1.0},
    "int8 sparse": {"density": 0.1, "quantized": True},
    "int8 dense": {"density": 1.0, "quantized": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_the_number_of_threads(kind: str) -> None:
    model, feeds = conv_net(**KINDS[kind])  # type: ignore[arg-type]
    (one,) = InferenceSession(model, threads=1).run(None, feeds)
    for threads in (2, 3, 7):
        session = InferenceSession(model, threads=threads)
        for _ in range(3):
            assert np.array_equal(session.run(None, feeds)[0], one), f"{threads} threads"


def together(*work: Callable[[], None]) -> None:
    """Runs all at once; the first failure is raised here."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(work))

    def guarded(task: Callable[[], None]) -> None:
        try:
            start.wait()
            task()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(task,), daemon=True) for task in work]
    for t in threads:
        t.start()
    for t in threads:
        t.join(SECONDS)
        assert not t.is_alive(), "a thread hangs"
    if failures:
        raise failures[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_one_session_from_four_threads_with_inputs_of_their_own(threads: int) -> None:
    model, feeds = conv_net()
    session = InferenceSession(model, threads=threads)
    (name,) = feeds
    inputs = [np.random.default_rng(i).standard_normal(feeds[name].shape).astype(np.float32) for i in range(4)]
    want = [session.run(None, {name: x})[0] for x in inputs]

    def work(i: int) -> None:
        for _ in range(20):
            assert np.array_equal(session.run(None, {name: inputs[i]})[0], want[i])

    together(*(lambda i=i: work(i) for i in range(4)))


def test_two_sessions_with_pools_at_once() -> None:
    kinds = [conv_net(), conv_net(quantized=True)]
    sessions = [InferenceSession(model, threads=2) for model, _ in kinds]
    want = [s.run(None, feeds)[0] for s, (_, feeds) in zip(sessions, kinds, strict=True)]

    def work(i: int) -> None:
        for _ in range(20):
            assert np.array_equal(sessions[i].run(None, kinds[i][1])[0], want[i])

    together(lambda: work(0), lambda: work(1))


def test_sessions_made_and_dropped_while_others_run() -> None:
    model, feeds = conv_net()
    session = InferenceSession(model, threads=2)
    (want,) = session.run(None, feeds)

    def make() -> None:
        for _ in range(5):
            assert np.array_equal(InferenceSession(model, threads=2).run(None, feeds)[0], want)

    def run() -> None:
        for _ in range(20):
            assert np.array_equal(session.run(None, feeds)[0], want)

    together(make, run, make)


def in_child(work: Callable[[], object]) -> object:
    """What `work` gives in a forked child, which is ended when it takes too long."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def report(pipe: Connection) -> None:
        pipe.send(work())

    child = context.Process(target=report, args=(theirs,))
    child.start()
    theirs.close()
    try:
        assert ours.poll(SECONDS), "the child hangs"
        found = ours.recv()
        child.join(SECONDS)
        assert child.exitcode == 0
        return found
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_runs_a_session_of_its_parent(threads: int) -> None:
    model, feeds = conv_net()
    session = InferenceSession(model, threads=threads)
    (want,) = session.run(None, feeds)

    def work() -> object:
        first = session.run(None, feeds)[0]
        fresh = InferenceSession(model, threads=2).run(None, feeds)[0]
        return np.array_equal(first, want) and np.array_equal(fresh, want)

    assert in_child(work) is True
    assert np.array_equal(session.run(None, feeds)[0], want)  # and the parent goes on


def test_a_child_forked_while_another_thread_runs() -> None:
    """The other thread holds the pool's turn at the moment of the fork; in the child it does not exist."""
    model, feeds = conv_net(density=1.0)
    session = InferenceSession(model, threads=2)
    (want,) = session.run(None, feeds)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            session.run(None, feeds)

    thread = threading.Thread(target=busy, daemon=True)
    thread.start()
    try:
        time.sleep(0.05)
        for _ in range(10):
            assert in_child(lambda: np.array_equal(session.run(None, feeds)[0], want)) is True
    finally:
        stop.set()
        thread.join(SECONDS)
    assert not thread.is_alive()
