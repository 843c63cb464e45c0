"""InferenceSession: what the user meets first. Names, shapes, dtypes, errors, threads, environments."""

import gc
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

import secateur
from parity.engine_graphs import Net, random_net, tolerance
from parity.test_engine_random import run_ort
from secateur.engine import InferenceSession, isas
from secateur.errors import UsageError


def two_inputs() -> bytes:
    net = Net(np.random.default_rng(0))
    a, b = net.input((1, 4), declared=("batch", 4)), net.input((1, 4), declared=("batch", 4))
    y = net.node("Add", net.node("Relu", a), b)
    return net.model(y, net.node("Mul", a, b))


def test_inputs_and_outputs_in_the_habits_of_onnxruntime() -> None:
    session = secateur.InferenceSession(two_inputs(), threads=1)
    x1, x2 = session.get_inputs()
    assert (x1.name, x1.type, x1.shape) == ("x1", "tensor(float)", ["batch", 4])
    assert x2.name == "x2"
    assert [o.type for o in session.get_outputs()] == ["tensor(float)"] * 2
    assert "x1" in repr(x1)
    assert session.threads == 1
    assert session.isa in isas()


def test_outputs_by_name_and_order() -> None:
    session = InferenceSession(two_inputs(), threads=1)
    feeds = {"x1": np.array([[-1, 2, 3, 4]], np.float32), "x2": np.full((1, 4), 2, np.float32)}
    add, mul = session.run(None, feeds)
    assert np.array_equal(add, [[2, 4, 5, 6]])
    names = [o.name for o in session.get_outputs()]
    again = session.run([names[1]], feeds)
    assert len(again) == 1
    assert np.array_equal(again[0], mul)
    assert session.run([], feeds) == []


def test_outputs_own_their_memory() -> None:
    session = InferenceSession(two_inputs(), threads=1)
    feeds = {"x1": np.ones((1, 4), np.float32), "x2": np.ones((1, 4), np.float32)}
    first = session.run(None, feeds)[0]
    kept = first.copy()
    session.run(None, {k: v * 5 for k, v in feeds.items()})
    assert np.array_equal(first, kept)
    assert first.flags.writeable
    assert first.flags.owndata


def doubled(shape: tuple[int, ...], *ops: str) -> bytes:
    net = Net(np.random.default_rng(0))
    x = net.input(shape)
    y = net.node("Add", x, x)
    return net.model(*[net.node(op, y) for op in ops] or [y])


@pytest.mark.parametrize("session_dies_first", [False, True])
def test_large_outputs_are_computed_where_they_stay(session_dies_first: bool) -> None:
    session = InferenceSession(doubled((1, 8, 64, 64)), threads=1)
    x = np.random.default_rng(1).standard_normal((1, 8, 64, 64)).astype(np.float32)
    (first,) = session.run(None, {"x1": x})
    (second,) = session.run(None, {"x1": -x})
    assert first.flags.writeable
    assert first.ctypes.data != second.ctypes.data
    assert np.array_equal(first, 2 * x)
    assert np.array_equal(second, -2 * x)
    where = first.ctypes.data
    view = first[0, 1:]
    first[:] = 7
    del first
    gc.collect()
    assert np.all(view == 7)  # the view keeps the memory
    if session_dies_first:
        del session
    del view
    gc.collect()
    assert np.array_equal(second, -2 * x)
    if not session_dies_first:
        (third,) = session.run(None, {"x1": x})
        assert third.ctypes.data == where  # what was let go of serves again
        assert np.array_equal(third, 2 * x)


def test_large_outputs_that_share_memory_or_are_asked_for_twice() -> None:
    x = np.random.default_rng(2).standard_normal((1, 8, 64, 64)).astype(np.float32)
    session = InferenceSession(doubled(x.shape, "Identity", "Identity", "Relu"), threads=1)
    names = [o.name for o in session.get_outputs()]
    one, two, relu, again = session.run([*names, names[2]], {"x1": x})
    for found, wanted in ((one, 2 * x), (two, 2 * x), (relu, np.maximum(2 * x, 0)), (again, np.maximum(2 * x, 0))):
        assert np.array_equal(found, wanted)
    assert len({a.ctypes.data for a in (one, two, relu, again)}) == 4
    (only,) = session.run([names[0]], {"x1": -x})
    assert np.array_equal(only, -2 * x)
    assert np.array_equal(one, 2 * x)
    echo = Net(np.random.default_rng(0))
    session = InferenceSession(echo.model(echo.node("Identity", echo.input(x.shape))), threads=1)
    (out,) = session.run(None, {"x1": x})
    out[:] = 0
    assert np.array_equal(session.run(None, {"x1": x})[0], x)


@pytest.mark.parametrize("dtype", ["float64", "bool", "uint8", "int8", "int32", "int64"])
def test_large_outputs_of_every_dtype(dtype: str) -> None:
    net = Net(np.random.default_rng(0))
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    y = net.node("Cast", net.node("Relu", net.input((3, 70_000))), to=code)
    x = np.random.default_rng(3).integers(0, 2, (3, 70_000)).astype(np.float32)
    (out,) = InferenceSession(net.model(y), threads=1).run(None, {"x1": x})
    assert out.dtype == dtype
    assert out.shape == x.shape
    assert np.array_equal(out, x.astype(dtype))


ONE = np.ones((1, 4), np.float32)
WRONG_FEEDS = {
    "feeds is not a dict": ([ONE], "feeds is a list; it must be a dict"),
    "missing input": ({"x1": ONE}, "input 'x2' is missing from feeds; the model's inputs: 'x1', 'x2'"),
    "unknown input": ({"x1": ONE, "x2": ONE, "x3": ONE}, "unknown input 'x3'; the model's inputs: 'x1', 'x2'"),
    "float64": ({"x1": ONE.astype(np.float64), "x2": ONE}, r"'x1' has dtype float64, expected float32; convert it"),
    "int64": ({"x1": ONE.astype(np.int64), "x2": ONE}, r"'x1' has dtype int64, expected float32"),
    "big-endian": ({"x1": ONE.astype(">f4"), "x2": ONE}, "dtype >f4"),
    "objects": ({"x1": ONE.astype(object), "x2": ONE}, "'x1'"),
    "wrong width": ({"x1": np.ones((1, 5), np.float32), "x2": ONE}, r"'x1' has shape \[1, 5\], expected \[batch, 4\]"),
    "wrong rank": ({"x1": np.ones(4, np.float32), "x2": ONE}, r"'x1' has shape \[4\], expected \[batch, 4\]"),
    "a list": ({"x1": [[1, 2, 3, 4]], "x2": ONE}, "'x1' is a list; it must be a numpy array of float32"),
    "None": ({"x1": None, "x2": ONE}, "'x1' is a NoneType"),
    "batches that do not fit": (
        {"x1": np.ones((2, 4), np.float32), "x2": np.ones((3, 4), np.float32)},
        r"do not fit the model: 'x1' \[2, 4\], 'x2' \[3, 4\]",
    ),
}


@pytest.mark.parametrize("way", sorted(WRONG_FEEDS))
def test_wrong_feeds(way: str) -> None:
    feeds, words = WRONG_FEEDS[way]
    session = InferenceSession(two_inputs(), threads=1)
    with pytest.raises(UsageError, match=words):
        session.run(None, feeds)  # type: ignore[arg-type]
    # and the session goes on
    assert len(session.run(None, {"x1": ONE, "x2": ONE})) == 2


def test_wrong_output_names() -> None:
    session = InferenceSession(two_inputs(), threads=1)
    feeds = {"x1": ONE, "x2": ONE}
    with pytest.raises(UsageError, match="no output 'nope'; its outputs"):
        session.run(["nope"], feeds)
    with pytest.raises(UsageError, match="pass a list"):
        session.run("add3", feeds)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2", 5000])
def test_wrong_threads(threads: object) -> None:
    with pytest.raises(UsageError, match="threads"):
        InferenceSession(two_inputs(), threads=threads)  # type: ignore[arg-type]


def test_wrong_model_argument() -> None:
    with pytest.raises(UsageError, match="got int"):
        InferenceSession(3)  # type: ignore[arg-type]


def test_arrays_of_any_layout() -> None:
    session = InferenceSession(two_inputs(), threads=1)
    base = np.arange(64, dtype=np.float32).reshape(8, 8)
    for a in (base[:3, :4], base[::2, ::2], base.T[:2, 1:5], base[:, :4][::-1], np.asfortranarray(base[:, :4])):
        ro = a.view()
        ro.flags.writeable = False
        got = session.run(None, {"x1": ro, "x2": np.zeros_like(a)})[0]
        assert np.array_equal(got, a)


def test_empty_batch() -> None:
    session = InferenceSession(two_inputs(), threads=1)
    empty = np.zeros((0, 4), np.float32)
    assert session.run(None, {"x1": empty, "x2": empty})[0].shape == (0, 4)


def test_many_batch_sizes_share_one_session() -> None:
    net = Net(np.random.default_rng(0))
    x = net.input((1, 3, 8, 8), declared=("n", 3, 8, 8))
    y = net.node("Relu", net.node("Conv", x, net.weight(5, 3, 3, 3, density=0.3), net.weight(5), pads=[1] * 4))
    model = net.model(net.node("Flatten", y, axis=1))
    session = InferenceSession(model, threads=1)
    rng = np.random.default_rng(1)
    batch = rng.standard_normal((20, 3, 8, 8)).astype(np.float32)
    whole = session.run(None, {x: batch})[0]
    for n in (1, 2, 3, 5, 7, 11, 13, 17, 19, 20, 1, 4):  # more than the plans kept
        assert np.array_equal(session.run(None, {x: batch[:n]})[0], whole[:n])


def large_net(density: float) -> bytes:
    """A convolution and linear layers of 1, 9 and 4 MB, read by one node each, and one by two."""
    net = Net(np.random.default_rng(3))
    x = net.input((1, 64, 6, 6), declared=("n", 64, 6, 6))
    x = net.node("Relu", net.node("Conv", x, net.weight(512, 64, 3, 3, density=density), net.weight(512)))
    x = net.node("Relu", net.node("Gemm", net.node("Flatten", x), net.weight(8192, 300, density=density)))
    shared = net.weight(300, 300, density=density)
    y = net.node("MatMul", net.node("Relu", net.node("MatMul", x, shared)), shared)
    return net.model(net.node("Gemm", y, net.weight(300, 4000, density=density)))


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_weights_put_away_come_back_for_another_batch(density: float, tmp_path: Path) -> None:
    model = large_net(density)
    path = tmp_path / "large.onnx"
    path.write_bytes(model)
    assert len(model) > 8 << 20  # such a file is read in pieces
    batch = np.random.default_rng(1).standard_normal((5, 64, 6, 6)).astype(np.float32)
    session = InferenceSession(path, threads=1)
    for n in (1, 5, 2, 1, 3):
        fresh = InferenceSession(model, threads=1)
        fresh.run(None, {"x1": batch[:n]})
        assert np.array_equal(session.run(None, {"x1": batch[:n]})[0], fresh.run(None, {"x1": batch[:n]})[0])
        allowed = tolerance(run_ort, model, {"x1": batch[:n]}, want := run_ort(model, {"x1": batch[:n]}), trials=1)[0]
        assert np.max(np.abs(session.run(None, {"x1": batch[:n]})[0] - want[0])) <= allowed


def test_two_python_threads_may_share_a_session_and_have_their_own() -> None:
    model, feeds = random_net(11)
    shared = InferenceSession(model, threads=1)
    pooled = InferenceSession(model, threads=2)
    want = shared.run(None, feeds)
    failures: list[str] = []

    def work(session: InferenceSession) -> None:
        for _ in range(200):
            if not all(np.array_equal(a, b) for a, b in zip(session.run(None, feeds), want, strict=True)):
                failures.append("different")

    sessions = (shared, shared, pooled, pooled, InferenceSession(model, threads=1))
    threads = [threading.Thread(target=work, args=(s,)) for s in sessions]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_results_do_not_depend_on_the_number_of_threads(seed: int) -> None:
    model, feeds = random_net(seed)
    one = InferenceSession(model, threads=1).run(None, feeds)
    three = InferenceSession(model, threads=3).run(None, feeds)
    assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize("isa", isas())
def test_every_isa_agrees_with_onnxruntime(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_ISA", isa)
    for seed in range(200, 220):
        model, feeds = random_net(seed)
        session = InferenceSession(model, threads=1)
        assert session.isa == isa
        want = run_ort(model, feeds)
        allowed = tolerance(run_ort, model, feeds, want)
        for a, b, most in zip(session.run(None, feeds), want, allowed, strict=True):
            assert np.max(np.abs(a - b), initial=0) <= most, seed


def test_unknown_isa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_ISA", "mmx")
    with pytest.raises(UsageError, match="mmx"):
        InferenceSession(two_inputs())


def test_explain_names_layers_kernels_and_times() -> None:
    net = Net(np.random.default_rng(0))
    x = net.input((1, 3, 8, 8), declared=("n", 3, 8, 8))
    y = net.node("Relu", net.node("Conv", x, net.weight(16, 3, 3, 3, density=0.1), net.weight(16)))
    session = InferenceSession(net.model(y), threads=1)
    (row,) = session.explain(batch=2, repeats=3)
    assert row["op"] == "Conv"
    assert row["kernel"].startswith("conv_")
    assert row["why"]
    assert row["input"] == (2, 3, 8, 8)
    assert row["output"] == (2, 16, 6, 6)
    assert row["n_weights"] == 16 * 27
    assert row["density"] == pytest.approx(row["nnz"] / row["n_weights"])
    assert row["macs"] == 2 * 16 * 27 * 36
    assert row["time_us"] > 0
    assert session.explain(repeats=0)[0]["time_us"] is None
    with pytest.raises(UsageError, match="batch"):
        session.explain(batch=0)


def test_dead_channels_make_a_smaller_layer() -> None:
    net = Net(np.random.default_rng(0))
    x = net.input((1, 3, 8, 8))
    w1 = np.random.default_rng(1).standard_normal((8, 3, 3, 3)).astype(np.float32)
    w1[[0, 3]] = 0
    w2 = np.random.default_rng(2).standard_normal((4, 8, 3, 3)).astype(np.float32)
    w2[:, 5] = 0
    y = net.node("Relu", net.node("Conv", x, net.const(w1)))
    model = net.model(net.node("Conv", y, net.const(w2)))
    session = InferenceSession(model, threads=1)
    assert [r["output"][1] for r in session.explain(repeats=0)] == [5, 4]
    assert any("3 of 8 output channels" in note for note in session.notes)
    want = run_ort(model, net.feeds)
    allowed = tolerance(run_ort, model, net.feeds, want)[0]
    assert np.max(np.abs(session.run(None, net.feeds)[0] - want[0])) <= allowed


def test_dead_channels_leave_blocks_whole() -> None:
    net = Net(np.random.default_rng(0))
    x = net.input((1, 40))
    rng = np.random.default_rng(1)
    blocks = np.repeat(rng.random((4, 40)) < 0.2, 16, axis=0)
    w1 = (rng.standard_normal((64, 40)) * blocks).astype(np.float32)
    w2 = rng.standard_normal((10, 64)).astype(np.float32)
    w2[:, [1, 5, 9, 20]] = 0  # some of two blocks: they stay
    w2[:, 32:48] = 0  # a block: it goes
    h = net.node("Relu", net.node("Gemm", x, net.const(w1), transB=1))
    model = net.model(net.node("Gemm", h, net.const(w2), transB=1))
    session = InferenceSession(model, threads=1)
    assert session.explain(repeats=0)[0]["output"] == (1, 48)
    want = run_ort(model, net.feeds)
    allowed = tolerance(run_ort, model, net.feeds, want)[0]
    assert np.max(np.abs(session.run(None, net.feeds)[0] - want[0])) <= allowed


def test_no_leak_of_sessions_or_arrays() -> None:
    model = two_inputs()
    feeds = {"x1": ONE, "x2": ONE}
    before = sys.getrefcount(ONE)
    for _ in range(50):
        session = InferenceSession(model, threads=1)
        session.run(None, feeds)
        with pytest.raises(UsageError):
            session.run(None, {"x1": ONE})
    del session
    gc.collect()
    assert sys.getrefcount(ONE) == before


def test_numpy_is_all_it_needs(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(two_inputs())
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxruntime", "openvino", "google", "typer", "rich", "pydantic"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import numpy as np
import secateur
s = secateur.InferenceSession(sys.argv[1], threads=1)
a = np.ones((1, 4), np.float32)
assert s.run(None, {"x1": a, "x2": a})[0].sum() == 8
from secateur.engine import inspect
assert inspect(sys.argv[1])["layers"]
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.onnx")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_file_of_another_kind_is_recognised(tmp_path: Path) -> None:
    """As on the command line: what it is, with its path, and what to do."""
    page, torch_file = tmp_path / "model.onnx", tmp_path / "model.pt"
    page.write_bytes(b"<!DOCTYPE html><html><body>404</body></html>")
    torch_file.write_bytes(b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(100))
    with pytest.raises(UsageError, match=r"model\.onnx: is an HTML page, not a model; the download went wrong"):
        InferenceSession(page)
    with pytest.raises(UsageError, match=r"model\.pt: is a PyTorch file; export it first"):
        InferenceSession(str(torch_file))
    with pytest.raises(UsageError, match=r"^model: is an HTML page"):
        InferenceSession(page.read_bytes())
    large = tmp_path / "large.onnx"
    large.write_bytes(page.read_bytes() + bytes(9 << 20))
    with pytest.raises(UsageError, match=r"large\.onnx: is an HTML page"):
        InferenceSession(large)
