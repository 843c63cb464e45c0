"""The table of times: its file, its curves, the nets that it is made of. No test asks how long anything takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur import post_training
from secateur.engine import latency, patterned, tabulate
from secateur.engine.latency import Row, Table
from secateur.errors import FormatError, UnsupportedError, UsageError


def a_row(pattern: str, density: float, us: float, bits: int = 32, layer: str = "a.weight") -> Row:
    return Row(layer, "Conv", (8, 4, 3, 3), pattern, density, bits, us, 100 * density)


def a_table(*rows: Row) -> Table:
    return Table("cpu", "avx2", 1, 1, "0.0", "", rows, {32: 2.5})


PLAIN = (a_row("any", 1.0, 100.0), a_row("any", 0.5, 60.0), a_row("any", 0.1, 20.0))


def test_linear_between_points_and_flat_below_the_last() -> None:
    layer = a_table(*PLAIN).layers["a.weight"]
    assert layer.n == 8 * 4 * 9
    assert [layer.cost("us", 1.0, d) for d in (1.0, 0.75, 0.5, 0.3, 0.1, 0.01)] == pytest.approx(
        [100, 80, 60, 40, 20, 20]
    )
    assert layer.cost("nbytes", 1.0, 0.75) == pytest.approx(75)


def test_a_sparse_kernel_slower_than_the_dense_one_is_priced_as_it_is() -> None:
    """What is written is run by the kernels that the engine chooses, not by the best there are."""
    layer = a_table(a_row("any", 1.0, 100.0), a_row("any", 0.5, 130.0), a_row("any", 0.1, 20.0)).layers["a.weight"]
    assert [layer.cost("us", 1.0, d) for d in (1.0, 0.75, 0.5, 0.1)] == pytest.approx([100, 115, 130, 20])


def test_the_cheapest_pattern_that_contains_what_is_asked() -> None:
    layer = a_table(*PLAIN, a_row("4x1", 0.5, 40.0), a_row("16x1", 0.5, 30.0)).layers["a.weight"]
    asked = ("any", "4x1", "8x1", "16x1", "32x2", "2x1", ":4")
    assert [layer.cost("us", 1.0, 0.5, p) for p in asked] == [60, 40, 40, 30, 30, 60, 60]
    assert layer.cost("us", 1.0, 0.75, "4x1") == pytest.approx(70)  # half-way from 40 to the dense 100


def test_bits_that_the_table_lacks_are_priced_as_32() -> None:
    layer = a_table(*PLAIN).layers["a.weight"]
    assert layer.cost("us", 1.0, 0.5, "any", 8) == 60
    both = a_table(*PLAIN, a_row("any", 1.0, 30.0, 8), a_row("any", 0.5, 25.0, 8)).layers["a.weight"]
    assert both.cost("us", 1.0, 0.5, "any", 8) == 25


def test_narrower_layers() -> None:
    """Half of the outputs and inputs are a quarter of the weights; without rows for it in proportion."""
    half = [replace(a_row("any", d, us), width=0.5, shape=(4, 2, 3, 3)) for d, us in ((1.0, 30.0), (0.5, 24.0))]
    layer = a_table(*PLAIN, *half).layers["a.weight"]
    assert layer.n == 8 * 4 * 9
    assert layer.cost("us", 0.25, 1.0) == pytest.approx(30)
    assert layer.cost("us", 0.25, 0.75) == pytest.approx(27)
    assert layer.cost("us", 0.625, 0.5) == pytest.approx((24 + 60) / 2)
    assert layer.cost("us", 0.0, 1.0) == pytest.approx(15)
    assert layer.cost("us", 1.0, 1.0) == 100
    both = a_table(*PLAIN, a_row("any", 1.0, 20.0, 8), *(replace(r, bits=8, us=5.0) for r in half[:1]))
    assert both.layers["a.weight"].cost("us", 0.25, 1.0) == pytest.approx(25)  # of floats no narrower net was timed
    assert a_table(*PLAIN).layers["a.weight"].cost("us", 0.25, 1.0) == pytest.approx(25)


def test_written_and_read_back(tmp_path: Path) -> None:
    table = a_table(*PLAIN, a_row("4x1", 0.25, 9.5), a_row(":4", 0.5, 50.0), a_row("any", 1.0, 12.0, layer="b"))
    latency.write(tmp_path / "t.json", table)
    assert latency.read(tmp_path / "t.json") == table
    body = json.loads((tmp_path / "t.json").read_text())
    assert {"schema", "cpu", "isa", "threads", "batch", "engine", "rows", "rest_us"} <= body.keys()
    assert {"op", "shape", "pattern", "density", "bits", "us"} <= body["rows"][0].keys()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("us", v) for v in (-1, "5", None, 1e300, True)],
        *[("density", v) for v in (0, 1.5, "x", None)],
        *[("width", v) for v in (0, 1.5, "x", None)],
        *[("pattern", v) for v in ("channels", "rows", "4x", ":0", "4x1; x", 5)],
        *[("shape", v) for v in ([], [0, 4], ["8"], None, [1] * 9)],
        ("bits", 4),
        ("layer", 7),
    ],
)
def test_a_damaged_row_is_refused(key: str, value: Any, tmp_path: Path) -> None:
    body = a_table(*PLAIN).json()
    body["rows"][1][key] = value
    (tmp_path / "t.json").write_text(json.dumps(body))
    with pytest.raises(FormatError, match=r"t\.json: not a latency table, or a damaged one"):
        latency.read(tmp_path / "t.json")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(UsageError, match="cannot be read"):
        latency.read(path)
    bodies = ["", "[]", "5", "{}", json.dumps(a_table(*PLAIN).json() | {"schema": 1}), json.dumps(a_table().json())]
    for body in [*bodies, json.dumps(a_table(PLAIN[1]).json()), "[" * 100_000]:
        path.write_text(body)
        with pytest.raises(FormatError, match="not a latency table"):
            latency.read(path)


def a_net(n: int = 8) -> bytes:
    """Conv 4-n 3x3 with Relu on 6x6, depthwise 3x3, a global pool and a linear layer; `x` has a free batch."""
    rng = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    weights = [
        *(tensor("a.weight", n, 4, 3, 3), tensor("a.bias", n), tensor("d.weight", n, 1, 3, 3)),
        *(tensor("fc.weight.T", n, 5), tensor("fc.bias", 5)),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "a.weight", "a.bias"], ["h"], pads=[1] * 4),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "d.weight"], ["g"], group=n, pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["g"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "fc.weight.T"], ["m"]),
        helper.make_node("Add", ["m", "fc.bias"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def values(model: bytes) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(model).graph.initializer}


def test_layers_go_by_the_names_of_their_weights() -> None:
    found = patterned.layers(patterned.parsed(a_net()))
    assert [(x.name, x.op, x.outputs) for x in found] == [
        ("a.weight", "Conv", 0),
        ("d.weight", "Conv", 0),
        ("fc.weight", "MatMul", 1),
    ]


def test_zeros_lie_where_the_pattern_says() -> None:
    net = patterned.parsed(a_net())
    any_ = values(patterned.pruned(net, "any", 0.25))
    assert [np.count_nonzero(any_[k]) for k in ("a.weight", "d.weight", "fc.weight.T")] == [72, 18, 10]
    assert np.array_equal(any_["a.bias"], values(a_net())["a.bias"])
    blocks = values(patterned.pruned(net, "4x1", 0.25))["a.weight"].reshape(2, 4, 4, 9) != 0
    assert blocks.sum() == 72
    assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()
    across = values(patterned.pruned(net, "4x1", 0.5))["fc.weight.T"]  # inputs x outputs
    assert (across[:, :4] != 0).sum() in range(12, 21, 4)
    assert ((across[:, :4] != 0).all(axis=1) == (across[:, :4] != 0).any(axis=1)).all()
    groups = values(patterned.pruned(net, ":4", 0.5))["a.weight"]
    assert ((groups != 0).sum(axis=1) == 2).all()


def test_codes_are_drawn_as_those_of_normal_weights() -> None:
    """The largest of a row is 127, few are large, and what is kept is not zero."""
    net = patterned.parsed(
        post_training.quantize(a_net(), np.random.default_rng(0).standard_normal((4, 4, 6, 6), np.float32)).model
    )
    assert [x.name for x in patterned.layers(net)] == ["a.weight", "d.weight", "fc.weight"]
    dense, half = (values(patterned.pruned(net, "any", d))["a.weight_q"] for d in (1.0, 0.5))
    assert (np.abs(dense).max(axis=(1, 2, 3)) == 127).all()
    assert np.abs(dense).mean() < 60
    assert np.count_nonzero(dense) == 2 * np.count_nonzero(half) == dense.size


def test_a_table_of_a_net(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every layer at every point; kept for the next call, whatever the weights' values; new patterns are added."""
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    monkeypatch.setattr(tabulate, "DENSITIES", (1.0, 0.25))
    monkeypatch.setattr(tabulate, "WIDTHS", (0.5,))
    seen: list[tuple[int, int]] = []
    first = tabulate.table(a_net(), ("4x1",), told=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert first.points == {("any", 1.0, 32, 1.0), ("any", 0.25, 32, 1.0), ("4x1", 0.25, 32, 1.0)}
    assert {r.layer for r in first.rows} == {"a.weight", "d.weight", "fc.weight"}
    assert all(r.us > 0 for r in first.rows)
    assert first.rest(32) > 0
    net = patterned.parsed(a_net())
    again = tabulate.table(patterned.pruned(net, "any", 0.5), ("4x1",))
    assert again == first
    more = tabulate.table(a_net(), (latency.CHANNELS,), lambda bits, width: a_net(4))
    assert more.rows[: len(first.rows)] == first.rows
    assert more.points - first.points == {("any", 1.0, 32, 0.5)}
    assert {r.layer: r.shape for r in more.rows if r.width == 0.5}["a.weight"] == (4, 4, 3, 3)
    for file in (tmp_path / "latency").glob("*.json"):
        file.write_text("{}")
    with pytest.warns(UserWarning, match="timed again"):
        renewed = tabulate.table(a_net(), ("4x1",))
    assert renewed.points == first.points


def test_what_follows_a_layer_is_the_layers() -> None:
    """A pool is narrower when the layer before it is; other weights and runtimes, and what follows them, are not."""
    steps = [
        *((None, "quantize", 0, 1.0), (3, "qconv", 8, 5.0), (7, "max_pool", 0, 2.0), (None, "onnxruntime", 0, None)),
        *(
            (9, "relu", 0, 3.0),
            (4, "layout", 0, 0.5),
            (4, "qconv", 4, 4.0),
            (5, "lstm", 9, 7.0),
            (6, "softmax", 0, 1.0),
        ),
    ]

    class Session:
        coverage: ClassVar = {"handed_over": []}

        def explain(self, batch: int, repeats: int) -> list[dict[str, Any]]:
            return [{"layer": n, "kernel": k, "n_weights": w, "time_us": us} for n, k, w, us in steps]

    layers = [patterned.Layer(name, name, node, "Conv", (1, 1), 0, 1) for name, node in (("a", 3), ("b", 4))]
    found = tabulate._Maker(lambda bits, width: b"")._steps(Session(), layers)  # type: ignore[arg-type]
    assert {name: us for name, (us, _) in found.items()} == {"a": 7.0, "b": 4.5}


def test_rows_in_integers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the file in integers, beside those of floats; narrower nets in integers alone, blocks inside them too."""
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    monkeypatch.setattr(tabulate, "DENSITIES", (1.0, 0.25))
    monkeypatch.setattr(tabulate, "WIDTHS", (0.5,))
    monkeypatch.setattr(tabulate, "THINNED", (0.25,))
    asked = []

    def form(bits: int, width: float) -> bytes:
        asked.append((bits, width))
        net = a_net(8 if width == 1.0 else 4)
        return post_training.quantize(net, np.random.default_rng(0).standard_normal((4, 4, 6, 6), np.float32)).model

    found = tabulate.table(a_net(), ("1x4", latency.CHANNELS), form, "all")
    assert asked == [(8, 1.0), (8, 0.5)]
    whole = {(p, d, b, 1.0) for b in (32, 8) for p, d in (("any", 1.0), ("any", 0.25), ("1x4", 0.25))}
    assert found.points == whole | {("any", 1.0, 8, 0.5), ("1x4", 0.25, 8, 0.5)}
    assert {r.layer for r in found.rows if r.bits == 8} == {"a.weight", "d.weight", "fc.weight"}
    assert found.rest_us.keys() == {32, 8}
    assert found.notes == ()
    assert {p[2] for p in tabulate.table(a_net(), ("1x4",)).points} == {32}  # floats alone are another table


def test_integers_that_cannot_be_had_are_told() -> None:
    def form(bits: int, width: float) -> bytes:
        raise UnsupportedError("a forward that is no fixed graph")

    found = tabulate.table(a_net(), (), form, "all", cached=False)
    assert found.notes == ("no rows of 8 bits: a forward that is no fixed graph",)
    assert {r.bits for r in found.rows} == {32}


def test_a_net_without_layers_is_refused() -> None:
    net = patterned.parsed(a_net())
    del net.graph.node[:]
    net.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))
    with pytest.raises(UnsupportedError, match="nothing to tabulate"):
        tabulate.table(net.SerializeToString(), cached=False)


def test_rows_of_a_table_are_checked_against_its_dense_rows() -> None:
    with pytest.raises(ValueError, match="without its dense row"):
        latency.parse(replace(a_table(*PLAIN), rows=(*PLAIN, a_row("any", 0.5, 3.0, layer="b"))).json())
