"""Networks, inputs and loaders as people write them: they work, or one sentence says why before any training."""

from __future__ import annotations

import copy
import json
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, prune
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import secateur
from secateur import graph
from secateur.engine import peers
from secateur.errors import RecordError, SecateurError, UnsupportedError, UsageError
from secateur.export import onnx as export
from secateur.export import stored
from secateur.graph.unwrapping import plain, reparametrized
from secateur.proof import record
from secateur.proof.judge import feeds
from secateur.training.batches import Loader

FAST = {"bench": {"seconds": 0.01, "against": ["torch"]}, "baselines": [], "solver": {"name": "one_shot", "epochs": 1}}
FAST |= {"training": {"threads": 1}}
Pair = namedtuple("Pair", "x z")


def batches(wrap: Callable[[Tensor], Any] = lambda x: x, n: int = 3, size: int = 8) -> list[tuple[Any, Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(wrap(torch.randn(size, 6, generator=g)), torch.randint(0, 3, (size,), generator=g)) for _ in range(n)]


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


class Nested(nn.Module):
    """A pair, a number and a None come in; a dict with a list and a tuple inside goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, pair: Any, scale: float, mask: None, more: dict[str, Tensor]) -> dict[str, Any]:
        y = self.c(torch.relu(self.a(pair.x) + self.b(pair.z))) * scale + more["shift"]
        return {"logits": y, "more": [y * 2, (y + 1,)]}


def nested(x: Tensor) -> tuple[Any, ...]:
    return Pair(x, x[:, :2].clone()), 2.0, None, {"shift": x[:, :1].clone()}


def test_nested_inputs_and_outputs_train_export_and_are_recorded() -> None:
    data = batches(nested)
    torch.manual_seed(0)
    result = secateur.compress(
        Nested(),
        data,
        valid=data,
        loss=lambda o, y: cross_entropy(o["logits"], y),
        evaluate=lambda m: float(m(*data[0][0])["more"][1][0].isfinite().all()),  # the nest is there in every runtime
        budget={"nnz": 40},
        recipe=FAST,
    )
    report = result.report
    assert report["verify"]["max_abs_error"] <= report["verify"]["tolerance"]
    assert report["verify"]["metric_engine"] == 1.0
    assert "torch" in report["compressed"]["latency_ms"]
    assert any("constants of the written graph: 2.0" in note for note in report["notes"])
    session = secateur.InferenceSession(result.files.sct)
    (inputs, _) = data[0]
    got = session.run(None, feeds([i.name for i in session.get_inputs()], inputs))
    with torch.no_grad():
        wanted = result.model(*inputs)
    assert torch.allclose(torch.from_numpy(got[2]), wanted["more"][1][0], atol=1e-5)


def test_a_number_that_changes_from_batch_to_batch_is_refused() -> None:
    data = [((x, float(i)), y) for i, (x, y) in enumerate(batches())]
    with pytest.raises(UsageError, match=r"batch 1 hold 1\.0 where the first batch has 0\.0.*as a tensor"):
        list(Loader(data).epoch(0))


# ---- networks --------------------------------------------------------------------------------------------------
def masked() -> nn.Module:
    net = mlp()
    prune.l1_unstructured(net[0], "weight", amount=0.5)
    net(torch.zeros(2, 6)).sum().backward()  # the masked weight is no leaf now, which copy.deepcopy refuses
    return net


def with_norm(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    net = mlp()
    norm(net[0])
    return net


def compiled_inside() -> nn.Module:
    net = mlp()
    net[0] = torch.compile(net[0])
    return net


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.DataParallel(mlp()),
        lambda: torch.compile(mlp()),
        compiled_inside,
        masked,
        lambda: with_norm(parametrizations.weight_norm),
        lambda: with_norm(parametrizations.spectral_norm),
        lambda: with_norm(parametrizations.orthogonal),
        lambda: with_norm(nn.utils.weight_norm),
        lambda: with_norm(nn.utils.spectral_norm),
    ],
)
def test_what_is_around_a_network_is_taken_off_and_said(make: Callable[[], nn.Module]) -> None:
    net = make().eval()
    state, x = copy.deepcopy(list(net.state_dict().items())), torch.randn(3, 6)
    found, notes = plain(net)
    assert len(notes) == 1
    assert sorted(n for n, _ in found.named_parameters()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert all(p.requires_grad and p.is_leaf for p in found.parameters())
    assert not reparametrized(found)
    if not any("OptimizedModule" in n for n in notes):  # running those would compile
        assert torch.allclose(found.eval()(x), net(x), atol=1e-6)
    assert all(a == b and torch.equal(v, w) for (a, v), (b, w) in zip(state, net.state_dict().items(), strict=True))
    assert {s.name for s in graph.trace(found, x).sites} >= {"0.weight", "2.weight"}


def test_a_masked_model_is_compressed_and_loaded_again(tmp_path: Path) -> None:
    result = secateur.compress(masked(), batches(), valid=batches(), budget={"nnz": 20}, recipe=FAST)
    assert result.report["compressed"]["nnz"] <= 20
    assert any("baked into plain weights: 0.weight (pruning mask)" in n for n in result.report["notes"])
    again = secateur.load(result.save(tmp_path), masked())
    x = torch.randn(4, 6)
    assert torch.equal(again(x), result.model(x))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: torch.jit.script(mlp()), "is scripted"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), r"0\.weight has no shape yet"),
        (lambda: mlp().half(), r"0\.weight is float16; .*model\.float\(\)"),
        (lambda: mlp().bfloat16(), r"0\.weight is bfloat16"),
        (lambda: mlp().double(), r"0\.weight is float64"),
        (lambda: print, "an nn.Module is needed"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_unwrapped_is_refused_in_one_sentence(make: Callable[[], Any], says: str) -> None:
    seen: list[Any] = []
    with pytest.raises(UsageError, match=says):
        secateur.compress(make(), batches(), valid=batches(), budget={"nnz": 9}, recipe=FAST, on_progress=seen.append)
    assert not seen


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.fc(self.b(x).mean((2, 3)))


def test_channel_shuffle_is_followed_element_by_element() -> None:
    net = Shuffle()
    with torch.no_grad():
        net.b.weight[:, 1] = 0  # input 1 of both groups is not read: channels 1 and 5 after the shuffle, 4 and 6 before
    traced = graph.trace(net, torch.randn(2, 3, 6, 6))
    alive = traced.effective(dict(net.named_parameters()))["a.weight"].flatten(1).any(1)
    read = torch.arange(8).reshape(2, 4).T.reshape(-1)[[i for i in range(8) if i % 4 != 1]]
    assert set(alive.nonzero().flatten().tolist()) == set(read.tolist())
    small, _ = graph.shrink(net, traced)
    x = torch.randn(2, 3, 6, 6)
    assert torch.allclose(small.eval()(x), net.eval()(x), atol=1e-6)


class Aux(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.aux = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        h = torch.relu(self.body(x))
        return (self.head(h), self.aux(h)) if self.training else self.head(h)


def test_a_cut_leaves_what_runs_in_training_mode_only_in_order() -> None:
    net = Aux()
    with torch.no_grad():
        net.body.weight[2:5] = 0
        net.body.bias[2:5] = 0
    small, _ = graph.shrink(net, graph.trace(net, torch.randn(2, 6)))
    assert [len(y) for y in small.train()(torch.randn(4, 6))] == [4, 4]
    loss = lambda o, y: cross_entropy(o[0], y) + cross_entropy(o[1], y) if isinstance(o, tuple) else cross_entropy(o, y)  # noqa: E731
    result = secateur.compress(net, batches(), valid=batches(), loss=loss, budget={"nnz": 40}, recipe=FAST)
    assert result.report["compressed"]["nnz"] <= 40
    assert [row["name"] for row in result.report["left_out"]] == ["aux.weight"]
    with pytest.raises(UsageError, match=r"a step on the first batch fails.*training mode only must suit loss="):
        secateur.compress(net, batches(), valid=batches(), budget={"nnz": 40}, recipe=FAST)


def test_a_frozen_layer_keeps_its_weights_under_rows_too() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    for layer in (net[0], net[1]):
        layer.requires_grad_(False)
    recipe = {**FAST, "constrain": [{"where": "*", "with": "rows"}], "solver": {"name": "gradual", "epochs": 1}}
    result = secateur.compress(net, batches(), valid=batches(), budget={"nnz": 110}, recipe=recipe)
    left = result.model[0].weight
    assert all(any(torch.equal(row, other) for other in net[0].weight) for row in left)
    assert not any(t["site"].startswith("0.") for t in result.report["terms"])


class Bags(nn.Module):
    def __init__(self, mode: str, **more: Any) -> None:
        super().__init__()
        self.e, self.fc = nn.EmbeddingBag(20, 8, mode=mode, **more), nn.Linear(8, 3)

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        return self.fc(self.e(x, None, *more))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_embeddings_are_sites_and_written_without_a_loop(mode: str) -> None:
    net, x = Bags(mode), torch.randint(0, 20, (2, 5))
    inputs = (x, torch.rand(2, 5)) if mode == "sum" else (x,)
    assert {s.name: s.op for s in graph.trace(net, inputs).sites}["e.weight"] == "embedding"
    data = export.to_bytes(net, inputs)  # compares with torch on batches of 1 and 3
    assert "e.weight" in stored.initializers(data)
    assert not {"If", "Loop"} & {n.op_type for n in onnx.load_model_from_string(data).graph.node}


def test_bags_compress() -> None:
    torch.manual_seed(0)
    data = [(torch.randint(0, 20, (8, 5)), y) for _, y in batches()]
    result = secateur.compress(Bags("mean"), data, valid=data, budget={"nnz": 60}, recipe=FAST)
    assert 50 < result.report["compressed"]["nnz"] <= 60


def test_other_bags_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"EmbeddingBag at e: offsets or padding are not covered"):
        graph.trace(Bags("mean", padding_idx=0), torch.randint(0, 20, (2, 5)))


class Chosen(nn.Module):
    """What an export with subgraphs looks like: torch.cond becomes an If whose branches read outer values."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        return self.b(torch.cond(h.sum() > 0, lambda h: h * 2, lambda h: h - 1, (h,)))


def test_graphs_with_branches_are_written_as_torch_writes_them() -> None:
    data = export.to_bytes(Chosen(), torch.randn(2, 6), input_names=["x"], output_names=["h"])
    model = onnx.load_model_from_string(data)
    assert "If" in {n.op_type for n in model.graph.node}
    assert [i.name for i in (*model.graph.input, *model.graph.output)] == ["x", "h"]
    assert {"a.weight", "b.weight"} <= set(stored.initializers(data))


# ---- loaders ---------------------------------------------------------------------------------------------------
class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(x[0], y[0]) for x, y in batches(n=17, size=1)])


def test_a_loader_over_an_iterable_data_set_is_counted_and_its_last_example_joined() -> None:
    """17 examples in eights: batch statistics of the one that is left do not exist."""
    loader = Loader(DataLoader(Stream(), batch_size=8))
    assert len(loader) == 3
    assert [len(y) for _, y in loader.epoch(0)] == [8, 8, 9]
    assert [len(y) for _, y in loader.epoch(0, skip=2)] == [9]
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    examples = TensorDataset(torch.randn(17, 6), torch.randint(0, 3, (17,)))
    train = DataLoader(examples, batch_size=8, shuffle=True)
    assert secateur.compress(net, train, valid=train, budget={"nnz": 30}, recipe=FAST).report["compressed"]["nnz"] <= 30


@pytest.mark.parametrize(
    ("train", "valid", "says"),
    [
        (
            [(x, y, y) for x, y in batches()],
            batches(),
            r"train: a batch is a tuple of 3; .*\(inputs, \(targets, weights\)",
        ),
        (batches(), [(x, y, y) for x, y in batches()], "valid: a batch is a tuple of 3"),
        ([{"x": x, "labels": y} for x, y in batches()], batches(), "train: a batch is a dict of x, labels"),
        (iter(batches()), batches(), "train: list_iterator can be iterated only once"),
        (batches(), iter(batches()), "valid: list_iterator can be iterated only once"),
        ([], batches(), "train: no batches"),
        (batches(), [], "valid: no batches"),
    ],
)
def test_other_loaders_are_refused_in_one_sentence(train: Any, valid: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        secateur.compress(mlp(), train, valid=valid, budget={"nnz": 9}, recipe=FAST)


def test_a_batch_that_cannot_train_is_refused_before_training() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    with pytest.raises(UsageError, match=r"a step on the first batch fails.*more than 1 value per channel"):
        secateur.compress(net, batches(size=1), valid=batches(), budget={"nnz": 9}, recipe=FAST)


# ---- work is not lost ------------------------------------------------------------------------------------------
def test_what_fails_at_the_end_fails_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no such luck")

    seen: list[Any] = []
    monkeypatch.setattr(record, "outputs_agree", broken)
    with pytest.raises(SecateurError, match="no training was begun: RuntimeError: no such luck"):
        secateur.compress(mlp(), batches(), valid=batches(), budget={"nnz": 20}, recipe=FAST, on_progress=seen.append)
    assert not seen


def test_a_record_that_fails_at_the_end_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = record.build
    calls = []

    def second(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("disk of cheese")
        return whole(*args, **kwargs)

    monkeypatch.setattr(record, "build", second)
    with pytest.raises(RecordError, match=r"finished and saved in .* RuntimeError: disk of cheese") as caught:
        secateur.compress(mlp(), batches(), valid=batches(), budget={"nnz": 20}, recipe=FAST)
    folder = Path(str(caught.value).partition("saved in ")[2].partition(" (")[0])
    x = torch.randn(4, 6)
    assert torch.equal(secateur.load(folder, mlp())(x), caught.value.result.model(x))
    assert json.loads((folder / "surgery.json").read_text())["schema"] == 1
    assert (folder / "model.sct").read_bytes() == caught.value.result.files.sct


def test_a_peer_that_fails_is_named_and_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "onnxruntime", lambda *a: (lambda feeds: 1 / 0, "9"))
    recipe = {**FAST, "bench": {"seconds": 0.01, "against": ["onnxruntime"]}}
    result = secateur.compress(mlp(), batches(), valid=batches(), budget={"nnz": 20}, recipe=recipe)
    assert "ZeroDivisionError" in result.report["bench"]["skipped"]["onnxruntime"]
    assert "engine" in result.report["compressed"]["latency_ms"]
