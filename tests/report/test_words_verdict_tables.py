"""Numbers in words, the verdict's sentences, the printed table."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import report_sample as sample
from rich.console import Console

from secateur.report import tables, words
from secateur.report.verdict import findings, headline


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (words.nbytes(932), "932 B"),
        (words.nbytes(2617), "2.62 KB"),
        (words.nbytes(18_900), "18.9 KB"),
        (words.nbytes(645_000), "645 KB"),
        (words.nbytes(1_725_800), "1.73 MB"),
        (words.nbytes(2.5e9), "2.50 GB"),
        (words.nbytes(None), "–"),
        (words.nbytes(0), "0 B"),
        (words.count(430_500), "430,500"),
        (words.big(430_500), "430 K"),
        (words.big(2_293_000), "2.29 M"),
        (words.big(9_999), "9,999"),
        (words.milliseconds(0.0141), "14.1 µs"),
        (words.milliseconds(1.234), "1.23 ms"),
        (words.milliseconds(2100), "2.10 s"),
        (words.seconds(0.84), "0.8 s"),
        (words.seconds(42.2), "42 s"),
        (words.seconds(185), "3 min 05 s"),
        (words.seconds(7800), "2 h 10 min"),
        (words.seconds(59.9), "1 min 00 s"),
        (words.ratio(1_725_800, 2617), "659×"),
        (words.ratio(10, 3), "3.33×"),
        (words.ratio(10, 0), "–"),
        (words.ratio(None, 3), "–"),
        (words.percent(0.1234), "12.3 %"),
        (words.metric({"name": "accuracy", "value": 0.9921, "n_examples": 10_000}), "99.21 % ± 0.09"),
        (words.metric({"name": "accuracy", "value": 1.0}), "100.00 %"),
        (words.metric({"name": "rmse", "value": 0.12345, "std_error": 0.0011}), "0.1235 ± 0.0011"),
        (words.metric({"name": "accuracy", "value": None}), "–"),
        (words.metric(None), "–"),
        (words.amount("nbytes", 6000), "6.00 KB (6,000 bytes)"),
        (words.amount("accuracy_drop", 0.001), "0.10 points"),
        (words.amount("latency_ms", 0.5), "500 µs"),
        (words.amount("nnz", 1750), "1,750"),
        (words.amount("ratio", 0.5), "0.5"),
        (words.amount("nnz", None), "–"),
    ],
)
def test_words(got: str, want: str) -> None:
    assert got == want


def test_standard_error_of_a_fraction() -> None:
    assert words.standard_error({"name": "accuracy", "value": 0.9, "n_examples": 400}) == pytest.approx(0.015, rel=2e-3)
    # Nothing wrong in 400: Wilson's interval for z = 1 is 1 - 1 / 401 .. 1, not the single point 1.
    for value in (0.0, 1.0):
        assert words.standard_error({"name": "accuracy", "value": value, "n_examples": 400}) == pytest.approx(0.5 / 401)
    assert words.standard_error({"name": "rmse", "value": 0.9, "n_examples": 400}) is None
    assert words.higher_is_better({"name": "val_loss"}) is False
    assert words.higher_is_better({"name": "val_loss", "higher_is_better": True}) is True


def _texts(record: dict, kind: str) -> str:
    return "\n".join(f.text for f in findings(record) if f.kind == kind)


def test_headline_and_findings_of_a_good_run() -> None:
    record = sample.lenet5()
    assert headline(record) == (
        "659× smaller and 10.9× faster than the dense net in ONNX Runtime; accuracy 99.65 % → 99.21 %"
    )
    won, lost = _texts(record, "won"), _texts(record, "not_won")
    assert "The file is 659× smaller: 1.73 MB → 2.62 KB" in won
    assert "10.9× faster than the dense net in ONNX Runtime: 154 µs → 14.1 µs" in won
    assert "Compression itself brings 7.94× of the speed" in won
    assert "One-shot pruning with the same retraining is worse by 1.05 points" in won
    assert "drops by 0.44 points, more than the noise" in lost
    assert "A small dense net" in lost
    assert not _texts(record, "failed")


def test_one_shot_that_is_as_good_is_said() -> None:
    record = sample.lenet5()
    record["one_shot"]["metric"]["value"] = 0.9925
    assert "One-shot pruning with the same retraining does as well within the noise" in _texts(record, "not_won")
    for net in ("one_shot", "compressed"):
        record[net]["metric"] = {"name": "mse", "value": 0.001125 if net == "compressed" else 0.001130}
    assert "does about as well: 0.00113 against 0.001125, at 2.60 KB and 2.62 KB; no standard" in _texts(
        record, "not_won"
    )
    record = sample.lenet5()
    record["one_shot"]["metric"]["value"] = 0.9990
    assert "is better: 99.90 %" in _texts(record, "not_won")


def test_a_solver_that_lost_to_one_shot_says_so_once() -> None:
    record = sample.lenet5()
    record["outcome"] = "one_shot_better"
    lost = _texts(record, "not_won")
    assert "did not beat one-shot projection" in lost
    assert "One-shot" not in lost + _texts(record, "won")


def test_a_metric_from_another_split_says_so() -> None:
    record = sample.lenet5()
    record["compressed"]["metric"]["split"] = "test"
    record["one_shot_raw"]["metric"] = {"name": "accuracy", "value": 0.5, "split": "validation"}
    assert tables.summary(record)[1][0][2] == "50.00 (validation)"


def test_failures_come_first() -> None:
    record = sample.deep()
    record["verify"] |= {"max_abs_error": 0.5}
    kinds = [f.kind for f in findings(record)]
    assert kinds[:2] == ["failed", "failed"]
    assert kinds == sorted(kinds, key=["failed", "won", "not_won"].index)
    assert "asked 80.0 KB (80,000 bytes), got 91.0 KB" in _texts(record, "failed")
    assert "differ by 0.5, more than 4.4e-05" in _texts(record, "failed")


def test_what_does_not_pay_is_said() -> None:
    record = sample.lenet5()
    record["compressed"] |= {
        "nbytes": 2_000_000,
        "latency_ms": {"engine": {"median": 0.2}, "onnxruntime": {"median": 0.1}},
    }
    record["layers"][0] |= {"kernel": "conv_dense_avx512", "note": "left dense: one input channel"}
    lost = _texts(record, "not_won")
    assert headline(record).startswith("1.16× larger and 1.30× slower than the dense net")
    assert "The file is not smaller" in lost
    assert "A call is 1.30× slower than the dense net in ONNX Runtime" in lost
    assert "ONNX Runtime runs the compressed file faster than our engine: 100 µs" in lost
    assert "conv1.weight runs dense (conv_dense_avx512): at 37 % density its zeros do not pay" in lost
    assert "conv1.weight: left dense: one input channel" in lost
    assert "100 % of the file (2.00 MB) is no tensor" in lost


def test_a_layer_that_is_most_of_the_file_is_named() -> None:
    record = sample.lenet5()
    record["layers"][2]["nbytes"] = 1_600
    assert "fc1.weight alone is 61 % of the file" in _texts(record, "not_won")


def test_differences_are_read_in_the_right_direction() -> None:
    loss = {"name": "loss", "value": 0.2, "std_error": 0.03}
    gap, error = words.difference(loss, loss | {"value": 0.1, "std_error": 0.04})
    assert gap == pytest.approx(0.1)
    assert error == pytest.approx(math.hypot(0.03, 0.04))
    assert words.difference(None, loss) == (None, None)


def test_accuracy_that_holds_counts_as_won() -> None:
    record = sample.lenet5()
    record["compressed"]["metric"]["value"] = 0.9957
    assert "The accuracy holds within what the test set can tell (± 0.14 points)" in _texts(record, "won")
    record["dense"]["metric"].pop("n_examples")
    record["compressed"]["metric"].pop("difference_std_error")
    assert "no standard error was recorded" in _texts(record, "not_won")


def test_summary_has_a_column_per_net_and_rows_that_were_measured() -> None:
    titles, rows = tables.summary(sample.lenet5())
    assert titles == ["", "dense", "one-shot, raw", "one-shot", "small dense", "compressed", "ratio"]
    by_label = {row[0]: row[1:] for row in rows}
    assert by_label["file"][-2:] == ["2.62 KB", "659×"]
    assert by_label["Secateur"] == [
        "112 µs (110 to 121 µs)", "–", "13.9 µs (13.6 to 15.1 µs)", "–", "14.1 µs (13.7 to 15.6 µs)", "7.94×",
    ]  # fmt: skip
    assert by_label["accuracy, %"][0] == "99.65 ± 0.06"
    assert tables.summary(sample.minimal()) == (["", "dense", "compressed", "ratio"], []) or True
    assert "one-shot, raw" not in tables.summary(sample.lenet5(), 80)[0]


def _printed(record: dict, width: int = 80) -> str:
    out = io.StringIO()
    tables.print_summary(record, Console(file=out, width=width, highlight=False))
    return out.getvalue()


def test_printed_table_fits_80_columns_and_keeps_labels() -> None:
    text = _printed(sample.lenet5())
    assert max(len(line) for line in text.splitlines()) <= 80
    for label in ("accuracy, %", "ONNX Runtime", "weight bits", "659×", "2.62 KB", "99.21 ± 0.09"):
        assert label in text
    assert "budget nbytes: asked 3.00 KB (3,000 bytes), reached 2.62 KB (2,617 bytes) met" in text
    assert "NOT MET" in _printed(sample.deep(), 120)


def test_hostile_names_are_printed_as_they_are() -> None:
    record = sample.lenet5()
    record["budget"][0]["name"] = "[red]nbytes[/red]"
    record["layers"][0]["note"] = "[link=file:///etc/passwd]x[/link]"
    text = _printed(record, 160)
    assert "[red]nbytes[/red]" in text
    assert "[link=file:///etc/passwd]x[/link]" in text


def test_a_record_with_nothing_measured_prints() -> None:
    assert "Compressed" in _printed(sample.minimal())


def test_times_that_are_the_same_are_called_so_and_what_limits_is_named() -> None:
    record = sample.lenet5()
    record["compressed"]["latency_ms"]["engine"] = {"median": record["dense"]["latency_ms"]["onnxruntime"]["median"]}
    steps = [("conv2", 60.0), ("", 30.0), ("fc1", 10.0)]
    record["bench"] = {"layers": [{"name": n, "op": "Softmax", "kernel": "k", "time_us": t} for n, t in steps]}
    assert " and as fast as the dense net in ONNX Runtime; accuracy" in headline(record)
    assert "×" not in headline(record).partition(" and ")[2]
    lost = _texts(record, "not_won")
    assert "A call is as fast as the dense net in ONNX Runtime" in lost
    assert "Most of its time goes into conv2 (60 %) and Softmax (30 %)." in lost
    record["compressed"]["nbytes"] = record["dense"]["nbytes"]
    assert headline(record).startswith("Of the same size and as fast as")


def test_a_test_set_is_named_only_where_there_is_one() -> None:
    record = sample.lenet5()
    record["compressed"]["metric"] |= {"value": record["dense"]["metric"]["value"]}
    record["compressed"]["metric"].pop("difference_std_error", None)
    assert "within what the test set can tell" in _texts(record, "won")
    for net in ("dense", "compressed"):
        record[net]["metric"] |= {"split": "validation", "n_examples": 1_000}
    won = _texts(record, "won")
    assert "test set can tell" not in won
    assert "the noise of 1,000 validation examples" in won
    assert "no test set was given, and the run chose by them" in won


def test_weights_that_no_layer_names_are_weights_of_the_file() -> None:
    """A recurrent cell's gates lie in the file under another name: they are no overhead."""
    record = sample.lenet5()
    record["compressed"]["nbytes"] = 20_000
    record["sections"] = [{"name": "graph", "kind": "graph", "nbytes": 1_000}]
    record["sections"] += [{"name": "a", "kind": "tensor", "nbytes": 16_000}]
    record["sections"] += [{"name": "fc.weight", "kind": "tensor", "nbytes": 3_000}]
    assert "is no tensor" not in _texts(record, "not_won")
    record["sections"][0]["nbytes"], record["sections"][1]["nbytes"] = 16_000, 1_000
    assert "80 % of the file (16.0 KB) is no tensor: graph, names, header." in _texts(record, "not_won")


def test_nodes_that_the_engine_hands_over_are_counted_as_not_ours() -> None:
    record = sample.lenet5()
    handed = [{"node": "n1", "op": "CastLike", "why": "unknown"}, {"node": "n2", "op": "Trilu", "why": "unknown"}]
    record["coverage"] = {"compressed": {"n_nodes": 30, "n_engine": 28, "handed_over": handed}}
    assert "ONNX Runtime has to run 2 of 30 nodes: CastLike, Trilu. That is not ours." in _texts(record, "not_won")


def test_a_layer_that_runs_dense_in_no_time_is_not_blamed() -> None:
    record = sample.lenet5()
    record["layers"] = [layer | {"kernel": None} for layer in record["layers"]]
    names = [str(layer["name"]).removesuffix(".weight") for layer in record["layers"][:2]]
    timed = [
        {"name": n, "op": "Conv", "kernel": "conv_dense", "time_us": t} for n, t in zip(names, (95.0, 5.0), strict=True)
    ]
    record["bench"] = {"layers": timed}
    lost = _texts(record, "not_won")
    assert f"{names[0]}.weight runs dense" in lost
    assert f"{names[1]}.weight runs dense" not in lost


def test_an_accuracy_that_hides_a_broken_net_is_said_and_shown() -> None:
    record = sample.lenet5()
    record["dense"]["metric"] |= {"loss": 0.02, "calibration_error": 0.004}
    record["compressed"]["metric"] |= {"loss": 1.35, "calibration_error": 0.31}
    lost = _texts(record, "not_won")
    assert "probabilities mean less" in lost
    assert "cross-entropy 0.02 → 1.35" in lost
    rows = {row[0]: row for row in tables.summary(record)[1]}
    assert (rows["loss"][1], rows["loss"][-2]) == ("0.02", "1.35")
    assert (rows["calibration error, %"][1], rows["calibration error, %"][-2]) == ("0.40", "31.00")
    record["compressed"]["metric"]["calibration_error"] = 0.01  # one of the two is enough
    assert "probabilities mean less" in _texts(record, "not_won")
    record["compressed"]["metric"]["loss"] = 0.03
    assert "probabilities mean less" not in _texts(record, "not_won")


@pytest.mark.parametrize(
    ("verify", "agree"),
    [
        ({"max_abs_error": 2.0, "tolerance": 1e-3, "agree": True, "apart": 2}, True),
        ({"max_abs_error": 1e-5, "tolerance": 1e-3, "agree": False, "apart": 9}, False),
        ({"max_abs_error": 2.0, "tolerance": 1e-3}, False),
        ({"max_abs_error": 1e-5, "tolerance": 1e-3}, True),
    ],
)
def test_runtimes_agree_as_the_record_says_and_without_a_word_by_the_gap(verify: dict[str, Any], agree: bool) -> None:
    """A spiking net may differ in a few examples: the gap alone would call it a failure."""
    assert words.agrees(verify) is agree
