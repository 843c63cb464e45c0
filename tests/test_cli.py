"""The command line: exit codes and one clear message for every mistake; nothing half-written stays."""

import io
import json
import operator
import os
import pickle
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur import cli
from secateur.errors import MissingExtraError
from secateur.formats import unpack
from secateur.shell import interrupts

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A pruned two-layer net as ONNX."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=s).astype(np.float32) * (rng.random(s) < 0.1) for s in ((64, 32), (10, 64))]
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w1", "b1"], ["y"], transB=1),
    ]
    constants = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    constants += [
        numpy_helper.from_array(rng.normal(size=n).astype(np.float32), f"b{i}") for i, n in ((0, 64), (1, 10))
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "pruned.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def run(*argv: object) -> int:
    return cli._main([str(a) for a in argv])


def test_pack_unpack_run(model: Path, tmp_path: Path, capsys: Capture) -> None:
    packed, back = tmp_path / "p.sct", tmp_path / "back.onnx"
    assert run("pack", model, "-o", packed) == 0
    assert packed.stat().st_size < model.stat().st_size / 4
    assert run("unpack", packed, "-o", back) == 0
    x = np.random.default_rng(1).normal(size=(5, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    answers = []
    for file in (model, packed, back):
        assert run("run", file, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz") == 0
        with np.load(tmp_path / "y.npz") as z:
            answers.append(z["y"])
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])
    np.savez(tmp_path / "x.npz", x=x)
    assert run("run", packed, "--input", tmp_path / "x.npz", "--output", tmp_path / "z.npz") == 0
    assert "y: float32 [5, 10]" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.tmp"))


def test_inspect(model: Path, capsys: Capture) -> None:
    assert run("inspect", model, "--time", "--tune", "off") == 0
    assert "Gemm" in capsys.readouterr().out
    assert run("inspect", model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["nnz"] == sum(layer["nnz"] for layer in found["layers"])


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file with a node that the engine does not have."""
    graph = helper.make_graph(
        [
            helper.make_node("CumSum", ["x", "axis"], ["s"], name="sums"),
            helper.make_node("MatMul", ["s", "w"], ["y"], name="product"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [
            numpy_helper.from_array(np.array(1), "axis"),
            numpy_helper.from_array(np.ones((3, 2), np.float32), "w"),
        ],
    )
    path = tmp_path / "foreign.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def test_nodes_handed_over_are_said_once(foreign: Path, tmp_path: Path, capsys: Capture) -> None:
    said = (
        "secateur: 1 of 2 nodes and 100.0 % of the multiply-adds run in the engine; ONNX Runtime takes 'sums' (CumSum: "
    )
    np.save(tmp_path / "x.npy", np.array([[1, 2, 3]], np.float32))
    assert run("run", foreign, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz") == 0
    assert capsys.readouterr().err.count(said) == 1
    with np.load(tmp_path / "y.npz") as y:
        assert np.array_equal(y["y"], [[10, 10]])
    assert run("bench", foreign, "--against", "onnxruntime", "--seconds", "0.1") == 0
    printed = capsys.readouterr()
    assert printed.err.count(said) == 1
    assert run("inspect", foreign) == 0
    assert "1 of 2 nodes" in capsys.readouterr().out


def test_without_onnxruntime_one_error_names_the_nodes(
    foreign: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    np.save(tmp_path / "x.npy", np.array([[1, 2, 3]], np.float32))
    assert run("run", foreign, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'sums' (CumSum: " in line
    assert "pip install 'secateur[peers]'" in line
    assert run("inspect", foreign) == 0  # that needs no runtime


def test_bench_names_peers(model: Path, capsys: Capture) -> None:
    assert run("bench", model, "--against", "onnxruntime", "--seconds", "0.1", "--json") == 0
    assert "onnxruntime" in capsys.readouterr().out
    assert run("bench", model, "--against", "tensorflow") == 2
    assert "unknown; known: onnxruntime, openvino, torch" in capsys.readouterr().err


def test_bench_writes_its_record_and_its_plots(model: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "speed.json"
    argv = ("bench", model, "--against", "onnxruntime", "--seconds", "0.1", "--out", out)
    assert run(*argv) == 0
    assert {r["model"] for r in json.loads(out.read_text())["runs"]} == {"model", "model_int8"}
    assert (tmp_path / "speed.html").stat().st_size > 1000
    assert run(*argv, "--no-int8", "--plot", tmp_path / "p.html") == 0
    assert {r["model"] for r in json.loads(out.read_text())["runs"]} == {"model"}
    assert (tmp_path / "p.html").is_file()
    assert "no dense net was given" in capsys.readouterr().out


def test_bench_without_plotly_writes_the_record_and_says_so(
    model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*args: object) -> None:
        raise MissingExtraError("plotly is not installed")

    monkeypatch.setattr("secateur.report.timings.write", missing)
    argv = ("bench", model, "--against", "", "--no-int8", "--seconds", "0.1")
    assert run(*argv, "--out", tmp_path / "a.json") == 0
    assert "no plots: plotly is not installed" in capsys.readouterr().err
    assert (tmp_path / "a.json").is_file()
    assert run(*argv, "--plot", tmp_path / "p.html") == 2


def test_bench_exits_1_when_results_differ(model: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.engine.agreement._tolerance", lambda *args: -1.0)
    assert run("bench", model, "--against", "onnxruntime", "--no-int8", "--seconds", "0.1") == 1
    assert "results differ, so the timings mean nothing: onnxruntime on model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["pack", "{tmp}/none.onnx", "-o", "{tmp}/a.sct"], "no such file"),
        (["pack", "{tmp}", "-o", "{tmp}/a.sct"], "is a folder"),
        (["pack", "{model}", "-o", "{tmp}/no/such/a.sct"], "does not exist"),
        (["unpack", "{model}", "-o", "{tmp}/a.onnx"], ".sct"),
        (["pack", "{model}", "-o", "{tmp}"], "is a folder; give the name of a file"),
        (["pack", "/dev/zero", "-o", "{tmp}/a.sct"], "is a device"),
        (["run", "{model}", "--input", "{tmp}/none.npy", "--output", "{tmp}/y.npz"], "no such file"),
        (["run", "{model}", "--input", "{model}", "--output", "{tmp}/y.npz"], "not a readable"),
        (["inspect", "{tmp}/none.sct"], "none.sct"),
        (["report", "{tmp}/none"], "none"),
        (["verify", "{tmp}"], "missing"),
        (["compress", "{tmp}/none.yaml", "-o", "{tmp}/out"], "no such file"),
        (["plan", "{tmp}/none.yaml"], "no such file"),
        (["reproduce", "lenet6"], "lenet5-mnist"),
        (["reproduce"], "--list"),
        (["compresss"], "compresss"),
        (["compress"], "recipe"),
        (["bench", "{model}", "--threads", "0"], "threads"),
    ],
)
def test_user_mistakes_are_one_line_and_exit_2(
    argv: list[str], said: str, model: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert run(*[a.format(tmp=tmp_path, model=model) for a in argv]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "a.sct").exists()
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    "argv",
    [
        "pack {model} -o {model}",
        "pack {model} -o {tmp}/link.onnx",
        "pack {tmp}/link.onnx -o {model}",
        "pack {model} -o {tmp}/hard.onnx",
        "unpack {model} -o {model}",
        "run {model} --input {tmp}/x.npz --output {tmp}/x.npz",
        "run {model} --input {tmp}/x.npz --output {model}",
        "bench {model} --out {model}",
        "bench {model} --dense {tmp}/x.npz --plot {tmp}/x.npz",
        "bench {model} --input {tmp}/x.npz --out {tmp}/x.npz",
        "bench {tmp} --out {tmp}/recipe.yaml",
        "compress {tmp}/recipe.yaml -o {tmp}",
        "compress {tmp}/named.yaml -o {tmp}",
        "compress {tmp}/again.yaml -o {tmp}",
    ],
)
def test_an_input_is_never_its_own_output(argv: str, model: Path, tmp_path: Path, capsys: Capture) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 32), np.float32))
    (tmp_path / "link.onnx").symlink_to(model.name)
    (tmp_path / "hard.onnx").hardlink_to(model)
    recipe = "model: secateur.zoo:digits_cnn\ndata: digits\nbudget: {nnz: 100}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    (tmp_path / "named.yaml").write_text(f"{recipe}weights: {tmp_path}/model.safetensors\n")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "again.yaml").write_text(f"{recipe}weights: {tmp_path}/dense.safetensors\n")
    (tmp_path / "dense.safetensors").write_bytes(b"of an earlier run")
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    assert run(*[a.format(tmp=tmp_path, model=model) for a in argv.split()]) == 2
    assert "is read by this command" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_record_and_plots_do_not_share_a_file(model: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run("bench", model, "--out", tmp_path / "speed.html") == 2
    assert "is where the plots go" in capsys.readouterr().err


def test_words_do_not_fall_into_what_goes_to_a_pipe(model: Path, tmp_path: Path, capsys: Capture) -> None:
    reading, writing = os.pipe()
    assert run("pack", model, "-o", f"/dev/fd/{writing}") == 0
    os.close(writing)
    with os.fdopen(reading, "rb") as f:
        assert unpack(f.read())
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "smaller" in printed.err


def _zipped(name: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr(name, b"x")
    return archive.getvalue()


FOREIGN = {
    "PyTorch file; export it first: torch.onnx.export": _zipped("archive/data.pkl"),
    "PyTorch file; export": pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + b"rest",
    "Python pickle": pickle.dumps({"a": 1}),
    "zip archive; unpack it": _zipped("model.onnx"),
    "NumPy arrays": _zipped("x.npy"),
    "HTML page": b"\n <!DOCTYPE html><html><body>404</body></html>",
    "pointer to a large file, not the file; run `git lfs pull`": b"version https://git-lfs.github.com/spec/v1\noid 1\n",
    "gzip": b"\x1f\x8b\x08" + bytes(40),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(40),
    "tensors only": (2).to_bytes(8, "little") + b'{"}',
    "XML": b"<?xml version='1.0'?><net/>",
    "field number out of range": bytes(99),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_other_kinds_are_named_with_their_path(
    kind: str, model: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "given.onnx"
    file.write_bytes(FOREIGN[kind])
    np.save(tmp_path / "x.npy", np.zeros((1, 32), np.float32))
    for argv in (
        ("pack", file, "-o", tmp_path / "o.sct"),
        ("inspect", file),
        ("run", file, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz"),
        ("bench", file, "--against", "", "--seconds", "0.1"),
    ):
        assert run(*argv) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"secateur: {file}: ")
        assert kind in line
    if "field number" not in kind:
        assert run("unpack", file, "-o", tmp_path / "o.onnx") == 2
        assert kind in capsys.readouterr().err
        assert run("bench", model, "--dense", file, "--against", "") == 2
        assert f"{file}: " in capsys.readouterr().err


def test_names_that_the_terminal_lacks_are_written_in_escapes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = onnx.load(model)
    net.graph.node[0].name = "schön-层"
    odd = tmp_path / os.fsdecode("m\u00f6dell-\u5c42".encode() + b"-\xff.onnx")  # not all names of files are text
    onnx.save(net, tmp_path / "net.onnx")
    (tmp_path / "net.onnx").rename(odd)
    handlers = [signal.getsignal(s) for s in interrupts.SIGNALS]
    for argv, code in ((["inspect", str(odd)], 0), (["inspect", f"{odd}x"], 2)):
        out, err = (io.TextIOWrapper(io.BytesIO(), "ascii") for _ in range(2))
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", out)
            patched.setattr(sys, "stderr", err)
            patched.setattr(sys, "unraisablehook", sys.unraisablehook)
            with pytest.raises(SystemExit) as ended:
                cli.main(argv)
        assert ended.value.code == code
        for stream in (out, err):
            stream.flush()
        words = (err if code else out).buffer.getvalue()
        assert b"\\xf6" in words
    for number, handler in zip(interrupts.SIGNALS, handlers, strict=True):
        signal.signal(number, handler)


def test_damaged_files_exit_2(model: Path, tmp_path: Path, capsys: Capture) -> None:
    packed = tmp_path / "p.sct"
    assert run("pack", model, "-o", packed) == 0
    data = bytearray(packed.read_bytes())
    cut, flipped = tmp_path / "cut.sct", tmp_path / "flip.sct"
    cut.write_bytes(data[: len(data) // 2])
    data[len(data) // 2] ^= 0x40
    flipped.write_bytes(data)
    half = tmp_path / "half.onnx"
    half.write_bytes(model.read_bytes()[:1000])
    for file in (cut, flipped, half):
        capsys.readouterr()
        assert run("inspect", file) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_unknown_operator_is_named(tmp_path: Path, capsys: Capture) -> None:
    graph = helper.make_graph(
        [helper.make_node("Bizarre", ["x"], ["y"], name="strange")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [2, "n"])],
    )
    path = tmp_path / "c.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    np.save(tmp_path / "x.npy", np.zeros((1, 3), np.float32))
    assert run("run", path, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz") == 2
    err = capsys.readouterr().err
    assert "strange" in err
    assert "Bizarre" in err


def test_recipe_mistakes(tmp_path: Path, capsys: Capture) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: secateur.zoo:digits_cnn\ndata: digits\nbudgett: {nnz: 100}\n")
    assert run("compress", recipe, "-o", tmp_path / "out") == 2
    assert "did you mean 'budget'" in capsys.readouterr().err
    recipe.write_text("model: secateur.zoo:digit_cnn\ndata: digits\nbudget: {nnz: 100}\n")
    assert run("compress", recipe, "-o", tmp_path / "out") == 2
    assert "digit" in capsys.readouterr().err
    recipe.write_text("model: secateur.zoo:digits_cnn\ndata: digitz\nbudget: {nnz: 100}\n")
    assert run("compress", recipe, "-o", tmp_path / "out") == 2
    assert "digitz" in capsys.readouterr().err
    recipe.write_text(
        "model: secateur.zoo:digits_cnn\ndata: digits\nbudget: {nnz: 100}\nconstrain: [{where: conv9, with: topk}]\n"
    )
    assert run("compress", recipe, "-o", tmp_path / "out") == 2
    assert "matches no layer" in capsys.readouterr().err


_USER_CODE = """
import torch
from secateur.data import TensorData
class Picky(torch.nn.Module):
    def __init__(self, n): super().__init__()
class Net(torch.nn.Linear):
    def __init__(self): super().__init__(3, 5)
def labels_beyond(): return [TensorData(torch.zeros(8, 3), torch.full((8,), 7), 4)] * 2
def too_wide(): return [TensorData(torch.zeros(8, 4), torch.zeros(8, dtype=torch.long), 4)] * 2
def fails(): raise RuntimeError("the disk with the pictures is not mounted")
class Late:
    def __len__(self): return 8
    def __iter__(self):
        yield torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)
        raise RuntimeError("picture 4 is damaged")
def late(): return Late(), Late()
"""


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        ("Picky", "late", r"my_code:Picky'.*TypeError.*missing 1 required positional argument"),
        ("Net", "fails", r"data 'my_code:fails'.*the disk with the pictures is not mounted \(my_code.py:10\)"),
        ("Net", "too_wide", r"Net does not run on example_inputs \[\d+, 4\]"),
        ("Net", "labels_beyond", r"loss: fails .* outputs float32 \[4, 5\], targets int64 \[4\]: IndexError"),
        ("Net", "late", r"your own code failed: RuntimeError: picture 4 is damaged \(my_code.py:15\)"),
    ],
)
def test_mistakes_in_the_users_own_code_are_not_called_our_bug(
    model: str, data: str, said: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_code.py").write_text(_USER_CODE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_code", None)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: my_code:{model}\ndata: my_code:{data}\nbudget: {{nnz: 9}}\ndense: {{epochs: 1}}\n")
    assert run("compress", recipe, "-o", tmp_path / "out", "-q") == 2
    err = capsys.readouterr().err
    assert re.search(said, err), err
    assert len(err.strip().splitlines()) == 1
    if data != "late":
        assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_not_thrown_away(tmp_path: Path, capsys: Capture) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: secateur.zoo:digits_cnn\ndata: digits\nbudget: {nnz: 100}\n")
    (tmp_path / "out" / "checkpoint").mkdir(parents=True)
    (tmp_path / "out" / "checkpoint" / "0000.safetensors").write_bytes(b"hours of training")
    assert run("compress", recipe, "-o", tmp_path / "out") == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert (tmp_path / "out" / "checkpoint" / "0000.safetensors").exists()


def test_a_budget_out_of_reach_exits_1_and_says_what_is_reachable(tmp_path: Path, capsys: Capture) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: secateur.zoo:digits_cnn\ndata: digits\nbudget: {nbytes: 40B}\n")
    assert run("plan", recipe) == 1
    err = capsys.readouterr().err
    assert "smallest" in err or "reach" in err


def test_environment_failures_exit_4(
    model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a.sct"))

    monkeypatch.setattr(os, "fsync", full)
    assert run("pack", model, "-o", tmp_path / "a.sct") == 4
    assert "the disk is full" in capsys.readouterr().err
    assert not list(tmp_path.glob("*a.sct*"))


def test_our_bugs_exit_70_with_a_log(
    model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secateur import formats

    monkeypatch.setattr(formats, "pack", operator.index)  # has no frame that could be taken for the user's own
    assert run("pack", model, "-o", tmp_path / "a.sct") == 70
    err = capsys.readouterr().err
    assert "internal error, this is our bug: TypeError" in err
    log = Path(err.split("traceback is in ")[1].split(",")[0])
    assert "TypeError" in log.read_text()
    log.unlink()


def test_latency_writes_a_table(model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur.engine import latency, tabulate

    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    monkeypatch.setattr(tabulate, "DENSITIES", (1.0, 0.5, 0.01))
    out = tmp_path / "table.json"
    assert run("latency", model, "-o", out) == 0
    said = capsys.readouterr()
    assert "rows of 2 layers" in said.out
    assert "timing the layers" in said.err
    table = latency.read(out)
    assert table.layers.keys() == {"w0", "w1"}
    assert run("latency", model, "--json", "--quiet") == 0
    assert latency.parse(json.loads(capsys.readouterr().out)) == table
    assert run("latency", model, "--quiet") == 0
    assert "microseconds by density" in capsys.readouterr().out
    assert run("latency", model, "-o", model) == 2
    assert "give another name" in capsys.readouterr().err


def test_latency_of_a_recipe_times_the_patterns_of_its_sets(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secateur.engine import latency, tabulate

    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    monkeypatch.setattr(tabulate, "DENSITIES", (1.0, 0.01))
    path = tmp_path / "recipe.yaml"
    path.write_text("{model: 'secateur.zoo:digits_cnn', data: digits, constrain: {where: '*', with: {name: blocks}}}")
    assert run("latency", path, "-o", tmp_path / "t.json", "--quiet") == 0
    table = latency.read(tmp_path / "t.json")
    assert {(r.pattern, r.bits) for r in table.rows} == {("any", 32), ("4x1", 32)}
    assert table.layers.keys() == {f"{name}.weight" for name in ("conv1", "conv2", "conv3", "fc1", "fc2")}


def test_methods_lists_every_room(capsys: Capture) -> None:
    from secateur import catalog

    assert run("methods", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(catalog.ROOMS)
    assert {e["name"] for e in found["constraints"]} >= {"topk", "nm", "rows", "uniform", "codebook", "all_of"}
    assert all(e["summary"] for entries in found.values() for e in entries)
    assert all(e["paper"] for room in ("constraints", "solvers") for e in found[room])
    assert run("methods") == 0


def test_help_has_an_example_everywhere(capsys: Capture) -> None:
    for name in cli.COMMANDS:
        assert run(name, "--help") == 0
        assert "Example" in capsys.readouterr().out, name


def test_a_reader_that_has_seen_enough_is_no_error(model: Path) -> None:
    """As `secateur inspect FILE | head -1`; a table ends in another way there than a plain line."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "secateur", "inspect", str(model)], stdout=writing, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
