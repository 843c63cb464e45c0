"""Whatever ONNX Runtime runs, a session runs: control flow, sequences, strings, types of a few bits, functions."""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from engine import handed_over_models as models
from engine.test_mixed import mixed, without_shapes
from engine.test_threads import in_child
from secateur import cli
from secateur.engine import InferenceSession, bench, inspect
from secateur.engine import mixed as module
from secateur.engine.mixed import Parts
from secateur.errors import FormatError, HandedOverWarning, MissingExtraError, UnsupportedError, UsageError
from secateur.formats import pack
from secateur.native import _native
from secateur.shell import runtimes

onnxruntime = runtimes.onnxruntime()


def peer(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def assert_same(got: Any, want: Any) -> None:
    """Arrays within rounding, everything else equal; lists and dicts element by element."""
    assert type(got) is type(want)
    if isinstance(want, list):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            assert_same(g, w)
    elif isinstance(want, dict):
        assert got.keys() == want.keys()
        assert all(np.isclose(got[k], v, rtol=1e-5) for k, v in want.items())
    elif isinstance(want, np.ndarray) and want.dtype.kind == "f":
        assert got.dtype == want.dtype
        half = want.dtype == np.float16
        np.testing.assert_allclose(got, want, rtol=1e-2 if half else 1e-4, atol=1e-2 if half else 1e-5)
    else:
        assert np.array_equal(got, want)


def interface(session: Any) -> list[tuple[str, str]]:
    return [(v.name, v.type) for v in (*session.get_inputs(), *session.get_outputs())]


def open_quietly(model: bytes) -> InferenceSession:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandedOverWarning)
        return InferenceSession(model, threads=1)


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_runs_as_onnxruntime_does(name: str) -> None:
    model, feeds = models.MODELS[name]()
    want = peer(model).run(None, feeds)
    session = mixed(model)
    told = session.coverage
    assert_same(session.run(None, feeds), want)
    assert session.coverage == told  # the first run has nothing to add
    assert_same(session.run(None, feeds), want)
    assert interface(session) == interface(peer(model))
    assert told["n_engine"] == told["n_nodes"] - len(told["handed_over"])
    assert all(h["why"] for h in told["handed_over"])
    with pytest.raises(UnsupportedError):
        InferenceSession(model, threads=1, fallback=None)


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_layers_beside_what_is_handed_over_stay(name: str) -> None:
    """Where the engine has a layer that a cut can leave to it, the cut does."""
    whole = {
        "half_net", "linear_classifier", "newer_opset", "other_operators_between_layers", "result_that_is_constant",
        "sequence_around_a_layer",
    }  # fmt: skip
    covered = open_quietly(models.MODELS[name]()[0]).coverage
    assert (covered["n_engine"] == 0) == (name in whole)


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_inspect_shows_it(name: str) -> None:
    found = inspect(models.MODELS[name]()[0])
    handed = {h["node"] for h in found["coverage"]["handed_over"]}
    assert handed
    assert found["refused"]
    shown = {row["name"]: row["kernel"] for row in found["layers"]}
    assert all(kernel == "onnxruntime" for node, kernel in shown.items() if node in handed)


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_without_onnxruntime_a_node_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = models.MODELS[name]()
    ops = "|".join({h["op"] for h in mixed(model).coverage["handed_over"]})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=ops if name != "newer_opset" else "opset 24"):
        InferenceSession(model, threads=1)


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_written_as_it_was_read(name: str) -> None:
    model, feeds = models.MODELS[name]()
    written = _native.rewritten(model)
    assert_same(peer(written).run(None, feeds), peer(model).run(None, feeds))
    assert _native.rewritten(written) == written
    before, after = (onnx.load_from_string(m) for m in (model, written))
    assert list(after.functions) == list(before.functions)
    assert list(after.graph.sparse_initializer) == list(before.graph.sparse_initializer)
    assert [v.type for v in after.graph.input] == [v.type for v in before.graph.input]


def test_a_constant_that_the_engine_refuses_is_computed_once() -> None:
    """float16 weights behind a Cast, four-bit weights behind a DequantizeLinear: the layer is the engine's."""
    for name in ("half_weights", "four_bits"):
        session = open_quietly(models.MODELS[name]()[0])
        kernels = [row["kernel"] for row in session.explain(repeats=0)]
        assert all(k.startswith("linear_") for k in kernels)
        assert session.coverage["handed_over"][0]["op"] in ("Cast", "DequantizeLinear")


def test_a_net_in_float16_is_refused_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """133 nodes touch float16: they are found in one survey, at opening, though height and width are free."""
    cuts = []
    plan = module._Plan
    monkeypatch.setattr(module, "_Plan", lambda *args, **more: cuts.append(args) or plan(*args, **more))
    model, feeds = models.half_net()
    session = mixed(model)
    assert session.coverage["n_engine"] == 0
    assert sum("float16" in h["why"] for h in session.coverage["handed_over"]) >= 33 * 5
    n = len(cuts)
    assert n <= 3
    session.run(None, feeds)
    session.run(None, {"x": feeds["x"][:, :, :16]})
    assert len(cuts) == n


def test_what_only_a_run_shows_is_found_at_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = []
    plan = module._Plan
    monkeypatch.setattr(module, "_Plan", lambda *args, **more: cuts.append(args) or plan(*args, **more))
    model, feeds = models.half_net()
    model = without_shapes(model)
    session = InferenceSession(model, threads=1)
    assert session.coverage["planned"] is False
    with pytest.warns(HandedOverWarning, match="float16"):
        got = session.run(None, feeds)
    assert_same(got, peer(model).run(None, feeds))
    n = len(cuts)
    assert n <= 3
    session.run(None, feeds)
    assert len(cuts) == n


def test_float16_that_is_only_moved_stays_in_the_engine() -> None:
    """Guessed sizes refuse what a plan would refuse, not more."""
    x = models.info("x", models.H, ["n", "t", 4])
    y = models.info("y", models.H, ["t", "n", 4])
    model = models.build([models.node("Transpose", ["x"], ["y"], perm=[1, 0, 2])], [x], [y])
    session = InferenceSession(model, threads=1, fallback=None)
    assert session.coverage["planned"]
    feed = models.floats(2, 3, 4).astype(np.float16)
    assert np.array_equal(session.run(None, {"x": feed})[0], feed.transpose(1, 0, 2))


def test_guessed_sizes_that_ask_too_much_refuse_nothing() -> None:
    """A grid whose size is the square of a free axis: too large a constant for every size guessed but the last."""
    nodes, w = models.layer("x", "h")
    grid = [
        models.node("Shape", ["h"], ["s"], start=1, end=2),
        models.node("Concat", ["s", "s", "k"], ["ss"], axis=0),
        models.node("ConstantOfShape", ["ss"], ["c"]),
        models.node("ReduceSum", ["c"], ["r"], keepdims=0),
        models.node("Add", ["h", "r"], ["y"]),
    ]
    x = models.info("x", models.F, [1, "t", 8])
    model = models.build([*nodes, *grid], [x], [models.info("y", models.F, [1, "t", 8])], w | {"k": np.array([200000])})
    session = InferenceSession(model, threads=1)
    assert session.coverage["handed_over"] == []
    (got,) = session.run(None, {"x": models.floats(1, 3, 8)})
    assert_same([got], peer(model).run(None, {"x": models.floats(1, 3, 8)}))


def test_wrongly_inferred_sizes_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's inference is not to be relied on: parts whose shapes turn out otherwise run without them."""

    def wrong(model: bytes, shapes: Any) -> Any:
        return {name: (t, s and [d + 1 for d in s]) for name, (t, s) in inferred(model, shapes).items()}

    inferred = module.inferred
    monkeypatch.setattr(module, "inferred", wrong)
    for name in ("custom_contrib_operator", "wrong_declared_output", "scan", "optional"):
        model, feeds = models.MODELS[name]()
        session = mixed(model)
        assert_same(session.run(None, feeds), peer(model).run(None, feeds))
        assert session.coverage["n_engine"]


def test_wrongly_inferred_ranks_make_it_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    inferred = module.inferred
    monkeypatch.setattr(
        module, "inferred", lambda m, s: {n: (t, [1, *d] if d else d) for n, (t, d) in inferred(m, s).items()}
    )
    model, feeds = models.wrong_declared_output()
    session = mixed(model)
    with pytest.warns(HandedOverWarning, match="do not fit together"):
        got = session.run(None, feeds)
    assert_same(got, peer(model).run(None, feeds))
    assert session.coverage["n_engine"] == 0


def test_a_part_that_onnxruntime_does_not_load_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """First with the parts beside it, at last as the whole file; the reason is told."""
    from secateur.engine import parts

    open_peer = parts.open_peer

    def picky(model: bytes, threads: int | None, types_only: bool = False) -> Any:
        if not types_only and b"MatMul" not in model:
            raise parts.Peer("it is lonely")
        return open_peer(model, threads, types_only)

    monkeypatch.setattr(parts, "open_peer", picky)
    for name in ("custom_contrib_operator", "if_with_captures", "wrong_declared_output"):
        model, feeds = models.MODELS[name]()
        session = mixed(model)
        assert session.coverage["n_engine"] == 0
        assert any("it is lonely" in h["why"] for h in session.coverage["handed_over"])
        assert_same(session.run(None, feeds), peer(model).run(None, feeds))


def test_what_no_runtime_takes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur.engine import parts

    def nobody(model: bytes, threads: int | None, types_only: bool = False) -> Any:
        raise parts.Peer("not today")

    monkeypatch.setattr(parts, "open_peer", nobody)
    with pytest.raises(UnsupportedError, match=r"neither the engine nor ONNX Runtime takes .*BiasGelu.*not today"):
        InferenceSession(models.custom_contrib_operator()[0], threads=1)


def test_the_callers_mistakes_stay_the_callers() -> None:
    """A wrong feed is said in one line, and changes nothing of the plan."""
    model, feeds = models.if_with_captures()
    session = mixed(model)
    covered = session.coverage
    wrong = {
        "missing": {},
        "unknown input 'z'": feeds | {"z": feeds["x"]},
        "dtype float64": {"x": feeds["x"].astype(np.float64)},
        "shape": {"x": feeds["x"][:, :3]},
        "is a list": {"x": [1.0]},
        "feeds is a list": [feeds["x"]],
    }
    for words, given in wrong.items():
        with pytest.raises(UsageError, match=words):
            session.run(None, given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="names is a str"):
        session.run("y", feeds)
    whole = mixed(models.linear_classifier()[0])
    with pytest.raises(UsageError, match="expected"):
        whole.run(None, {"x": np.zeros((2, 3), np.float32)})
    assert session.coverage == covered
    session.run(["y"], feeds)


@pytest.mark.parametrize("name", ["linear_classifier", "if_with_captures"])
def test_a_forked_child_runs_it(name: str) -> None:
    model, feeds = models.MODELS[name]()
    session = mixed(model)
    want = session.run(None, feeds)

    def child() -> bool:
        assert_same(session.run(None, feeds), want)
        return True

    assert in_child(child) is True


def test_every_cut_of_a_file_that_is_handed_over_is_an_error() -> None:
    """Truncated inside subgraphs, functions, strings: one clear error, never a crash; the cut file reaches nobody."""
    for name in ("nested_if", "local_function", "string_constants", "sparse_initializer", "linear_classifier"):
        model, _ = models.MODELS[name]()
        for n in range(0, len(model), 7):
            with pytest.raises((FormatError, UnsupportedError)):
                InferenceSession(model[:n], threads=1, fallback=None)


def test_mutations_of_what_is_kept_raw_raise_only_clear_errors() -> None:
    rng = np.random.default_rng(3)
    names = ("if_with_captures", "nested_if", "scan", "local_function", "string_constants", "sparse_initializer")
    for i in range(600):
        data = bytearray(models.MODELS[names[i % len(names)]]()[0])
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, len(data)))
            data[at] = int(rng.integers(0, 256))
        try:
            _native.rewritten(bytes(data))
            _native.File(bytes(data)).partition({})
            InferenceSession(bytes(data), threads=1, fallback=None)
        except (FormatError, UnsupportedError, UsageError):
            pass


def test_more_parts_than_pay_run_as_one() -> None:
    """More parts than a model may fall into: it runs whole, and says why."""
    session = mixed(models.other_operators_between_layers()[0])
    assert isinstance(session._runs, Parts)
    assert any("would fall into" in h["why"] for h in session.coverage["handed_over"])


@pytest.mark.parametrize("name", ["half_net", "half_weights", "optional", "gru_of_a_speech_net"])
def test_packed_files_are_handed_over_as_well(name: str) -> None:
    model, feeds = models.MODELS[name]()
    assert_same(open_quietly(pack(model)).run(None, feeds), open_quietly(model).run(None, feeds))


def test_no_plan_of_what_runs_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing of this model runs in the engine"):
        open_quietly(models.half_net()[0]).save_plan(tmp_path / "plan.json")


def command(*arguments: object) -> int:
    return cli._main([str(a) for a in arguments])


def write(folder: Path, name: str) -> Path:
    model, feeds = models.MODELS[name]()
    (folder / "m.onnx").write_bytes(model)
    np.savez(folder / "x.npz", **{k: v.astype(str) if v.dtype == object else v for k, v in feeds.items()})
    return folder / "m.onnx"


def test_the_command_run_writes_strings_maps_and_sequences(tmp_path: Path) -> None:
    for name in ("tree_classifier", "strings", "loop_as_a_recurrence"):
        file = write(tmp_path, name)
        assert command("run", file, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz") == 0
        model, feeds = models.MODELS[name]()
        want = dict(zip([o.name for o in peer(model).get_outputs()], peer(model).run(None, feeds), strict=True))
        with np.load(tmp_path / "y.npz") as found:
            for key, value in want.items():
                if key == "p":
                    assert list(found["p.keys"]) == list(value[0])
                    assert np.array_equal(found["p"], [list(row.values()) for row in value])
                elif value.dtype == object:
                    assert list(found[key]) == list(value)
                else:
                    assert np.allclose(found[key], value, atol=1e-5)


def test_commands_take_such_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "if_with_captures")
    assert command("inspect", file) == 0
    assert "'If -> i' (If: operator If is not supported)" in capsys.readouterr().out.replace("\n", "")
    assert command("pack", file, "-o", tmp_path / "m.sct") in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_bench_compares_what_is_numbers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandedOverWarning)
        found = bench(models.tree_classifier()[0], against=("onnxruntime",), batch=2, seconds=0.02)
        assert found["checks"][0]["agree"] is True or found["checks"][0]["max_abs_error"] == 0
        with pytest.raises(UsageError, match=r"'q' is a seq\(tensor\(float\)\)"):
            bench(models.sequence_in_and_out()[0], against=("onnxruntime",), batch=2, seconds=0.02)
