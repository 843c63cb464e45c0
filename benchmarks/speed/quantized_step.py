"""What int8 training costs: steps of a net on grids of activations and weights beside plain steps, in one process.

    python benchmarks/speed/quantized_step.py --out benchmarks/results/quantized-step.json

All run the same loop (forward, backward, Adam) on nets of their own: `plain`, the float net as it came;
`activations`, its forward pass on 8-bit grids whose scales are learned; `all`, weights on grids of eight bits besides,
as the last phase of a run trains them (reassigned every twentieth step). A turn is twenty steps of each; who begins
alternates; the ratio is taken turn by turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import run
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secateur import zoo
from secateur.constraints.uniform import Uniform
from secateur.contracts import Term
from secateur.graph import activations
from secateur.shell import saving
from secateur.terms import feasible
from secateur.training import learned
from secateur.training.phases import Phase, Snap
from secateur.types import Member, Site

TURN = 20
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "lenet5": (zoo.lenet5, (1, 28, 28), 128),
    "resnet20": (zoo.resnet20, (3, 32, 32), 64),
}
Step = Callable[[], None]


def on_grids(net: nn.Module, x: Tensor) -> tuple[nn.Module, list[str], tuple[Term, ...]]:
    """The forward pass on grids of plausible scales; their names; the terms of all weights of layers."""
    made = activations.calls(net)
    layers = [n for n, m in made.module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    grids = activations.find(made.module, [x], [f"{n}.weight" for n in layers])
    module, _ = activations.rewrite(made, grids)
    for grid in grids:
        module.get_buffer(grid.scale).fill_(4.0 / 255)
    terms = tuple(
        Term(
            Site(f"{n}.weight", "linear" if w.dim() == 2 else "conv", tuple(w.shape), (Member(f"{n}.weight"),)),
            Uniform(per="row"),
            8,
            True,
        )
        for n in layers
        for w in [module.get_parameter(f"{n}.weight")]
    )
    return module, learned.scales_of(module), terms


def sides(name: str, stack: ExitStack) -> dict[str, Step]:
    """A step by side, each on a net of its own with the same start and the same batches."""
    make, shape, n = NETS[name]
    g = torch.Generator().manual_seed(0)
    batches = [(torch.rand(n, *shape, generator=g), torch.randint(10, (n,), generator=g)) for _ in range(4)]

    def side(kind: str) -> Step:
        torch.manual_seed(0)
        net, scales, terms = make(), list[str](), tuple[Term, ...]()
        if kind != "plain":
            net, scales, terms = on_grids(net, batches[0][0][:2])
            stack.enter_context(learned.learning(net, scales))
        net = net.to(memory_format=torch.channels_last).train()
        params = dict(net.named_parameters())
        levels: feasible.Levels = {t.site.name: 8 for t in terms}
        phase = Snap(terms, levels, params, 100_000, scales=scales) if kind == "all" else Phase(params, 100_000)
        alone = {k: params[k].detach() for k in scales} if kind == "activations" else {}
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
        at = 0

        def step() -> None:
            nonlocal at
            x, y = batches[at % len(batches)]
            at += 1
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            with torch.no_grad():
                phase.before_step()
                before = {k: v.clone() for k, v in alone.items()}
                optimizer.step()
                learned.step_(alone, before)
                phase.after_step()

        return step

    return {kind: side(kind) for kind in ("plain", "activations", "all")}


def seconds(step: Step) -> float:
    """Wall time of one turn."""
    began = time.perf_counter()
    for _ in range(TURN):
        step()
    return time.perf_counter() - began


def measured(name: str, turns: int) -> dict[str, object]:
    """Ratios to the plain step, turn by turn; the first turn warms up."""
    with ExitStack() as stack:
        return _taking_turns(sides(name, stack), turns)


def _taking_turns(steps: dict[str, Step], turns: int) -> dict[str, object]:
    ratios: dict[str, list[float]] = {kind: [] for kind in steps if kind != "plain"}
    plain_ms = []
    for turn in range(turns):
        order = list(steps) if turn % 2 else list(reversed(steps))
        spent = {kind: seconds(steps[kind]) for kind in order}
        if turn:
            plain_ms.append(1e3 * spent["plain"] / TURN)
            for kind, found in ratios.items():
                found.append(spent[kind] / spent["plain"])
    return {
        "plain_ms": statistics.median(plain_ms),
        **{k: {"median": statistics.median(r), "min": min(r), "max": max(r)} for k, r in ratios.items()},
    }


def main() -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="turns of 20 steps; the first warms up")
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args()
    if given.turns < 2:
        parser.error(f"--turns {given.turns}: at least 2 are needed, the first only warms up")
    torch.set_num_threads(given.threads)
    record: dict[str, object] = {
        "what": "a step with 8-bit activations (and weights) over a plain step",
        "threads": given.threads,
    }
    for name in given.nets:
        record[name] = measured(name, given.turns)
        print(name, json.dumps(record[name]), flush=True)
    record["provenance"] = run.provenance()
    if given.out:
        saving.write_bytes(given.out, saving.to_json(record))


if __name__ == "__main__":
    main()
