"""The HTML page without a browser: self-contained, escaped, reproducible, of a reasonable size."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_sample as sample

from secateur.errors import EnvironmentFailure, FormatError, MissingExtraError
from secateur.report import document, figures, html, records

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>&\"'`${1}{{2}}"


class _Reader(HTMLParser):
    """Collects tags, attributes and text outside of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "img", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("make", [sample.lenet5, sample.deep, sample.minimal])
def test_page_is_well_formed_self_contained_and_small(make) -> None:
    page = html.render(make())
    reader = _read(page)
    assert len(page) < 3_000_000
    for tag, attributes in reader.tags:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "action", "data", "srcset"):
            link = attributes.get(name)
            assert link is None or link.startswith(("#", "data:,")), f"{tag} {name}={link}"
    outside = re.sub(r'<script type="text/plain" id="plotly">.*?</script>', "", page, flags=re.S)
    assert "http://" not in outside
    assert "https://" not in outside
    assert "default-src 'none'" in page
    assert [t for t, _ in reader.tags].count("h1") == 1


def test_page_says_what_the_record_says() -> None:
    text = _read(html.render(sample.lenet5())).text
    for part in (
        "659× smaller and 10.9× faster than the dense net",
        "What was won",
        "What was not",
        "secateur.zoo:lenet5",
        "3.00 KB (3,000 bytes)",
        "conv_csr_3x_avx512",
        "Intel(R) Xeon(R) Platinum 8481C",
        "within 4.4e-05",
        "torch 2.13.0",
        "model: secateur.zoo:lenet5",
        "6 min 42 s",
    ):
        assert part in text
    assert "levels" not in text
    assert "not met" in _read(html.render(sample.deep())).text


def test_everything_from_the_model_is_escaped() -> None:
    record = sample.lenet5()
    record |= {"model": EVIL, "data": EVIL, "recipe": EVIL, "date": EVIL, "notes": [EVIL]}
    record["cpu"] |= {"name": EVIL, EVIL: EVIL}
    record["versions"] |= {"secateur": EVIL, EVIL: EVIL}
    record["compressed"]["metric"]["name"] = EVIL
    record["dense"]["metric"]["name"] = EVIL
    record["dense"]["latency_ms"][EVIL] = {"median": 1.0}
    record["verify"][EVIL] = EVIL
    for item in (*record["layers"], *record["sections"], *record["stages"], *record["budget"]):
        item["name"] = EVIL
    for layer in record["layers"]:
        layer |= dict.fromkeys(("op", "constraint", "layout", "codec", "kernel", "note"), EVIL)
    for row in record["history"]:
        row["stage"] = EVIL
    record["stages"][0][EVIL] = EVIL
    page = html.render(record)
    tags = [tag for tag, _ in _read(page).tags]
    assert "img" not in tags
    assert tags.count("script") == 3
    assert page.count(EVIL) == 0
    assert EVIL in _read(page).text


def test_plots_survive_names_that_end_scripts() -> None:
    record = sample.lenet5()
    record["layers"][0]["name"] = "<!--<script>"
    page = html.render(record)
    inside = re.search(r'id="figures">(.*?)</script>', page, re.S).group(1)
    assert "<" not in inside
    assert json.loads(inside)["layers"]["data"][0]["x"][0] == "<!--<script>"


def test_same_record_same_bytes() -> None:
    assert html.render(sample.lenet5()) == html.render(sample.lenet5())


def test_report_rebuilds_from_the_file_alone(tmp_path: Path) -> None:
    records.write(tmp_path, sample.lenet5())
    path = html.report(tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text("utf-8") == html.render(sample.lenet5())
    path.unlink()
    assert html.report(tmp_path / "report.json") == path
    assert sorted(os.listdir(tmp_path)) == ["report.html", "report.json"]


def test_a_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html.write(tmp_path, sample.minimal())
    before = (tmp_path / "report.html").read_bytes()
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(EnvironmentFailure, match="the disk is full"):
        html.write(tmp_path, sample.lenet5())
    assert (tmp_path / "report.html").read_bytes() == before


def test_a_wrong_record_is_refused() -> None:
    with pytest.raises(FormatError, match="'dense' is missing"):
        html.render({k: v for k, v in sample.minimal().items() if k != "dense"})


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    document._plotly.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"secateur\[report\]"):
        html.render(sample.minimal())


def test_figures_are_there_when_their_numbers_are() -> None:
    assert set(figures.build(sample.lenet5())) == {"size", "metric", "latency", "frontier", "layers", "bytes", "curves"}
    assert figures.build(sample.lenet5())["metric"].title == "Accuracy on the test set"
    assert set(figures.build(sample.deep())) == {"size", "metric", "latency", "layers", "bytes"}
    assert figures.build(sample.minimal()) == {}


def test_parts_are_named_by_what_they_are() -> None:
    record = sample.lenet5()
    record["layers"].append({"name": "odd", "op": "norm", "shape": [3], "nnz": 3})
    record["sections"].append({"name": "odd", "kind": "tensor", "nbytes": 9})
    record["sections"].append({"name": "", "kind": "tensor", "nbytes": 9})
    kinds = {name: kind for name, kind, _ in figures.file_parts(record)}
    assert kinds["fc1.weight"] == "weight"
    assert kinds["fc1.bias"] == "bias"
    assert kinds["odd"] == "norm"
    assert kinds["graph"] == "graph"
    assert kinds["constant"] == "weight"


def test_biases_are_no_bars_of_their_own() -> None:
    record = sample.lenet5()
    record["layers"].append({"name": "fc2.bias", "op": "bias", "shape": [10], "nnz": 10})
    assert figures.build(record)["layers"].data[0]["x"] == ["conv1", "conv2", "fc1", "fc2"]
    assert "fc2.bias" in html.render(record)


def test_bytes_add_up_to_the_file() -> None:
    record = sample.lenet5()
    assert sum(n for *_, n in figures.file_parts(record)) == record["compressed"]["nbytes"]
    record.pop("sections")
    assert sum(n for *_, n in figures.file_parts(record)) == record["compressed"]["nbytes"]
    node = figures.build(record)["bytes"].data[0]
    tops = [v for v, p in zip(node["values"], node["parents"], strict=True) if p == "r"]
    assert sum(tops) == node["values"][0] == record["compressed"]["nbytes"]


def test_curves_split_into_panels_and_stages() -> None:
    figure = figures.build(sample.lenet5())["curves"]
    assert {trace["name"] for trace in figure.data} == {
        "loss", "metric", "sparsity", "primal residual", "dual residual", "lr",
    }  # fmt: skip
    assert "dense: steps 0 to" in figure.text
    record = sample.lenet5()
    record["history"] = [{"step": i, "loss": 1.0 / (i + 1)} for i in range(30_000)]
    (line,) = figures.build(record)["curves"].data
    assert len(line["x"]) <= 2000
    record["history"] = [{"step": 0, "loss": 1.0}, {"loss": 2.0}, {"step": "x", "loss": 1.0}]
    assert "curves" not in figures.build(record)


def test_the_baseline_is_drawn_beside_the_run() -> None:
    rows = [{"stage": "dense", "step": 10 * i, "loss": 1.0} for i in range(1, 4)]
    rows += [{"stage": "main.approach", "step": 30 + 10 * i, "loss": 0.5} for i in range(1, 4)]
    rows += [{"stage": "one_shot.polish", "step": 60 + 10 * i, "loss": 0.7} for i in range(1, 4)]
    record = sample.lenet5() | {"history": rows}
    figure = figures.build(record)["curves"]
    own, other = figure.data
    assert own["x"] == [10, 20, 30, 40, 50, 60]
    assert other["x"] == [40, 50, 60]
    assert other["name"] == "one-shot, same retraining"
    assert figure.layout["showlegend"] is True
    assert "approach: steps 40 to 60" in figure.text
    only = figures.build(record | {"history": rows[6:]})["curves"]
    assert len(only.data) == 1


def test_equal_layer_names_stay_apart() -> None:
    record = sample.lenet5()
    for layer in record["layers"]:
        layer["name"] = "w"
    assert figures.build(record)["layers"].data[0]["x"] == ["w", "w (2)", "w (3)", "w (4)"]


def test_layers_without_weights_or_bits() -> None:
    record = sample.lenet5()
    for layer in record["layers"]:
        layer |= {"nnz": 0, "bits": None}
    record["layers"][0]["shape"] = [0]
    figure = figures.build(record)["layers"]
    assert len(figure.data) == 1
    assert figure.layout["yaxis"]["range"] == [0, 1]
    html.render(record)


def test_density_is_drawn_on_a_linear_axis_from_zero() -> None:
    record = sample.lenet5()
    record["layers"][0]["nnz"], record["layers"][1]["nnz"] = 1, 25_000
    axis = figures.build(record)["layers"].layout["yaxis"]
    assert axis.get("type", "linear") == "linear"
    assert axis["range"][0] == 0
    assert "log" not in axis["title"]["text"]


def test_a_phone_gets_the_curves_in_one_column() -> None:
    figure = figures.build(sample.lenet5())["curves"]
    wide, narrow = figure.layout, figure.narrow[0]
    axes = [k for k in wide if k.startswith("xaxis")]
    assert axes == [k for k in narrow if k.startswith("xaxis")]
    assert any(wide[k]["domain"][0] > 0 for k in axes)
    assert all(narrow[k]["domain"] == [0, 1] for k in axes)
    assert figure.narrow[1] > figure.height


def test_the_page_says_how_to_load_the_result() -> None:
    record = sample.lenet5()
    record["inputs"] = [{"name": "x<1>", "type": "tensor(float)", "shape": ["batch", 1, 28, 28]}]
    page = html.render(record)
    assert "secateur.load(&quot;FOLDER&quot;)  # a plain nn.Module" in page
    assert "session = secateur.InferenceSession(&quot;FOLDER/model.sct&quot;)" in page
    assert "{&quot;x&lt;1&gt;&quot;: x})  # x: float array [batch, 1, 28, 28]" in page
    mine = html.render(record | {"model": "my.nets:Net", "data": "my.data:load"})
    assert "from my.nets import Net\nnet = secateur.load(&quot;FOLDER&quot;, model=Net())" in mine
    assert "secateur verify FOLDER --trust" in mine
    assert "secateur.load(&quot;FOLDER&quot;, model=Tiny())" in html.render(record | {"model": "Tiny"})


@pytest.mark.parametrize(
    ("model", "data", "trust"),
    [
        ("secateur.zoo:lenet5", "mnist", False),
        ("secateur.zoo:lenet5", "text:war_and_peace", False),  # a set of ours with a colon is no code
        ("secateur.zoo:lenet5", "my.data:load", True),
        ("my.nets:Net", "mnist", True),
        ("Tiny", "Python objects", False),
    ],
)
def test_the_page_asks_for_trust_where_verify_does(model: str, data: str, trust: bool) -> None:
    page = html.render(sample.lenet5() | {"model": model, "data": data})
    assert ("secateur verify FOLDER --trust" in page) == trust


def test_a_fallen_accuracy_comes_with_what_to_change() -> None:
    record = sample.lenet5()
    record["compressed"]["metric"] = dict(record["dense"]["metric"])
    assert "too low" not in html.render(record)
    for lost, where in ((0.05, "If the accuracy is too low"), (0.2, "To lose less")):  # once, below or in the verdict
        record["compressed"]["metric"]["value"] = record["dense"]["metric"]["value"] - lost
        page = html.render(record)
        assert where in page
        assert page.count("let the dense net teach") == 1
        assert "allow a larger budget (nbytes 3.00 KB (3,000 bytes)):" in page


def test_what_was_left_out_and_what_was_handed_over_is_on_the_page() -> None:
    record = sample.lenet5()
    assert "Left as it was" not in html.render(record)
    record["left_out"] = [{"name": "pos", "shape": [1, 17, 64], "n": 1088, "share": 0.016, "why": "frozen <x>"}]
    handed = [{"node": "n7", "op": "Trilu", "why": "unknown operator"}]
    record["coverage"] = {"compressed": {"n_nodes": 12, "n_engine": 11, "handed_over": handed}}
    page = html.render(record)
    assert "No constraint can act on these 1.6 % of all weights" in page
    assert "<td>1×17×64</td><td>1,088</td><td>1.6 %</td>" in page
    assert "frozen &lt;x&gt;" in page
    assert "11 of 12 nodes run in the engine; ONNX Runtime runs Trilu &#x27;n7&#x27; (unknown operator)" in page


def test_rows_of_the_layer_table_add_up_to_net_and_file() -> None:
    record = sample.lenet5()
    record["layers"].append({"name": "r.b", "op": "vector", "shape": [8], "nnz": 8, "nbytes": 40, "left_out": None})
    page = html.render(record)
    foot = page[page.index("<tfoot>") : page.index("</tfoot>")]
    weights = [x for x in record["layers"] if x["op"] not in ("bias", "norm", "vector")]
    assert f"<td>{sum(x['nnz'] for x in weights):,}</td>" in foot
    rest = record["compressed"]["nbytes"] - sum(x.get("nbytes") or 0 for x in record["layers"])
    assert f"<td>{rest:,}</td>" in foot
    assert f"<td>{record['compressed']['nbytes']:,}</td>" in foot
    assert "bound" not in page[: page.index('id="figures"')].lower().replace("bound_nbytes", "")
