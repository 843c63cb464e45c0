"""The run-time half with the wheel and NumPy alone: no torch, no onnx, no command-line libraries."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built with the environment's own build tools (incremental after an editable install)."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", str(out), str(ROOT)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(build, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("secateur-*.whl")
    return found


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel and NumPy, nothing else."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as z:
        z.extractall(site)
    source = Path(np.__file__).parent
    for name in (source.name, source.name + ".libs"):
        if (source.parent / name).exists():
            (site / name).symlink_to(source.parent / name)
    return site


def run(site: Path, code: str) -> str:
    """Run code in an isolated interpreter that sees only `site`."""
    clean = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
    setup = f"{clean}sys.path.insert(0, {str(site)!r})\n"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", setup + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_carries_the_engine_and_no_sources(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(n.startswith("secateur/native/_native") and n.endswith((".so", ".pyd")) for n in names)
    assert "secateur/py.typed" in names
    assert not [n for n in names if n.endswith((".cc", ".h"))]


def test_session_runs_with_numpy_alone(bare: Path, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    w = rng.normal(size=(5, 7)).astype(np.float32) * (rng.random((5, 7)) < 0.3)
    b = rng.normal(size=5).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    x = rng.normal(size=(3, 7)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    code = f"""
import numpy as np, secateur
from secateur import formats
onnx = open({str(path)!r}, "rb").read()
session = secateur.InferenceSession(formats.pack(onnx))
(y,) = session.run(None, {{"x": np.load({str(tmp_path / "x.npy")!r})}})
np.save({str(tmp_path / "y.npy")!r}, y)
banned = [m for m in sys.modules if m.split(".")[0] in ("torch", "onnx", "typer", "rich", "pydantic")]
assert not banned, banned
"""
    run(bare, code)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), x @ w.T + b, rtol=1e-5, atol=1e-6)


def test_a_missing_extra_is_named(bare: Path) -> None:
    code = """
import importlib.util
try:
    import secateur
    secateur.compress
except ImportError as e:
    print(type(e).__name__, e)
"""
    assert "secateur[compress]" in run(bare, code)
