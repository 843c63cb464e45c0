"""What can be removed of the usual families of networks: `python tests/graph/families.py` writes the page.

Half of the channels of every group go, drawn by chance; `test_zoo.py` holds the page to it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from secateur.graph import Traced, shrink, trace
from secateur.graph.counts import held
from secateur.reproduce import bar
from secateur.reproduce.table import lines, shown

if __package__:
    from .nets import shake
    from .zoo_pictures import pictures
    from .zoo_sequences import sequences
else:
    from nets import shake
    from zoo_pictures import pictures
    from zoo_sequences import sequences

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "families.md"
RECORD = ROOT / "benchmarks" / "results" / "families.json"
NETS = [*pictures(), *sequences()]
HEAD = """# Families of networks

What can be removed of the usual families, in small forms written as their implementations write them
(`tests/graph/zoo_pictures.py`, `zoo_sequences.py`; random weights). Of every group of coupled channels half are taken,
whole heads of attention and whole hidden units, drawn by chance; the smaller net then answers as the one with zeros
does, in evaluation and in training mode, is saved and loaded, and its ONNX file gives the same answers in the engine.
Channels that make the model's outputs are not counted.
What a mean over all channels reads stays: without a channel the mean would be another. Zeros may come there all the
same, and `inputs`, `topk` and the other sets of weights act on it.

This page is made by `python tests/graph/families.py`.

| network | groups | channels that can go | multiply-adds, half of them gone | what stays, and why |
|---|---:|---:|---:|---|
"""
TRAINED = """
## From the data to the engine

One small net of each family of workloads (`zoo/families.py`, `zoo/ordinary.py`, `zoo.shape_detector`), trained on one
core, then compressed to a tenth of its bytes (4 a weight) by the default recipe, verified from the written files, and
run by the engine on the test part: `secateur reproduce families`. `one-shot` is projection and retraining for as many
epochs within the same bytes; `narrow` a net of about half the weights, its values alone coded, within the same bytes.
Met is a loss of at most 1.5 points, or of 5 % of a loss, within a tenth of the bytes. `detector` counts mean average
precision (overlap of a half), `denoiser` and `picture` mean squared error of values from 0 to 1; of `picture` all
parts are the same picture, which the net is to hold. `nodes` are those of the compressed file that the engine runs
itself.

"""


def built(name: str) -> tuple[nn.Module, object]:
    """A net of the zoo in evaluation mode, and its example inputs."""
    torch.manual_seed(3)
    net, example = (pictures() | sequences())[name]
    shake(net)
    return net.eval(), example


def half_gone(net: nn.Module, t: Traced) -> dict[str, Tensor]:
    """The weights with half of the channels of every group zero, drawn by chance, and their norms and biases."""
    g = torch.Generator().manual_seed(5)
    w = {n: p.detach().clone() for n, p in net.named_parameters()}
    for site in t.groups:
        dead = torch.zeros(site.shape[0], dtype=torch.bool)
        dead[torch.randperm(site.shape[0], generator=g)[: site.shape[0] // 2]] = True
        for m in site.members:
            index = torch.tensor(m.index if m.index is not None else range(site.shape[0] * m.repeat))
            w[m.param].index_fill_(m.axis, index[dead.repeat_interleave(m.repeat)], 0.0)
    return {n: v * t.kept(w).get(n, torch.ones(())) for n, v in w.items()}


def row(name: str, t: Traced, small: Traced) -> str:
    """The net's line of the page."""
    made = sum(site.shape[0] * m.repeat for site in t.groups for m in site.members)
    by: dict[str, list[str]] = {}
    for x in held(t):
        by.setdefault(x["why"], []).append(f"`{x['name']}`" + (f" {x['n']} of {x['of']}" if x["n"] < x["of"] else ""))
    stays = "; ".join(f"{', '.join(names)}: {why}" for why, names in by.items())
    total = made + sum(x["n"] for x in held(t))
    before, after = sum(t.macs.values()), sum(small.macs.values())
    macs = f"{before:,} to {after:,} ({after / before:.0%})"
    return f"| {name} | {len(t.groups)} | {made} of {total} | {macs} | {stays or '-'} |"


def trained() -> str:
    """The part of the page about the study `families`, from its kept record."""
    each = json.loads(RECORD.read_text("utf-8"))["tasks"]
    body = lines(bar.columns(each), bar.lines(each, shown), markdown=True)
    return TRAINED + "\n".join([*body, "", *(f"- {note}" for note in bar.notes(each))]) + "\n"


def main() -> None:
    """Write the page."""
    rows = []
    for name in NETS:
        net, example = built(name)
        t = trace(net, example)
        small, _ = shrink(net, t, half_gone(net, t))
        rows.append(row(name, t, trace(small, example)))
    PAGE.write_text(HEAD + "\n".join(rows) + "\n" + trained(), "utf-8")
    print(f"{PAGE}: {len(rows)} networks", file=sys.stderr)


if __name__ == "__main__":
    main()
