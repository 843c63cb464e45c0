"""`first-try`: eight ordinary networks, `secateur.compress` with nothing but loaders and a fifteenth of the bytes.

A cell is one network and one seed: trained by a plain loop, compressed by the default recipe, verified from its files,
judged on the test part, which is read once. Cells run singly: a finished one is kept (`cell.json`) as long as it was
made from what is asked now, and a later call with `resume` collects it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.errors import UsageError
from secateur.reproduce import table as tables
from secateur.reproduce.study import read_json
from secateur.shell import saving
from secateur.types import Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from secateur.data.spec import Splits
    from secateur.data.tensors import TensorData

Report = Callable[[Progress], None]
Json = dict[str, Any]
NAME = "first-try"
ABOUT = "eight ordinary networks at the first try: the default recipe at 1/15 of the bytes"
DIVISOR, ALLOWED = 15, 0.03  # of the dense bytes (4 for each weight); points of a hundred that may be lost
_EXAMPLES = 5_000


@dataclass(frozen=True)
class Case:
    """One network: how it is built and trained densely, and its data."""

    build: Callable[[], nn.Module]
    data: str
    epochs: int
    lr: float
    change: Callable[[Splits], Splits] | None = None


def cases() -> dict[str, Case]:
    """The eight networks by name."""
    from secateur.zoo import ordinary as o

    return {
        "mobilenet": Case(o.MobileNet, "fashion_mnist", 10, 3e-3, _fewer),
        "vit": Case(o.ViT, "mnist", 20, 1e-3, _fewer),
        "gru": Case(o.GRUClassifier, "sst2", 4, 2e-3),
        "conv1d": Case(o.Conv1dNet, "fsdd", 15, 2e-3),
        "unet": Case(o.UNet, "fashion_mnist", 6, 2e-3, _noisy),
        "gcn": Case(o.GCN, "planetoid:cora", 20, 1e-2),
        "spiking": Case(o.SpikingNet, "mnist", 12, 2e-3, _fewer),
        "lstm": Case(lambda: o.CharLSTM(65), "text:tiny_shakespeare", 6, 5e-3),
    }


def run(
    seed: int | None = None,
    out: str | Path = "runs",
    resume: bool = False,
    on_progress: Report | None = None,
    data_dir: str | Path | None = None,
    cells: str = "*",
) -> Json:
    """Run the cells whose name (`mobilenet`, ...) matches `cells`; write `first-try.json` and `first-try.md`.

    Args:
        seed: of the dense training and of the compression; default 0.
        resume: keep the cells that are finished in `out`, those that `cells` leaves out too, unless what they were made
            from has changed.
    Raises:
        UsageError: no cell matches; the folder is in use.
    """
    from secateur.training import seeds

    out, seed, known = Path(out), seed or 0, cases()
    chosen = {n for n in known if fnmatchcase(n, cells)}
    if not chosen:
        raise UsageError(f"{NAME}: no cell matches {cells!r}; cells: {', '.join(known)}")
    done: dict[str, Json] = {}
    for name, case in known.items():
        folder, key = out / f"seed{seed}" / name, _key(case, seed)
        kept = read_json(folder / "cell.json") if resume and (folder / "cell.json").is_file() else {}
        if kept.get("key") == key:
            done[name] = kept
        elif name in chosen:
            with saving.locked(folder), seeds.isolated():
                done[name] = {"key": key, **_cell(case, seed, folder, data_dir, _named(on_progress, name))}
                saving.write_bytes(folder / "cell.json", saving.to_json(done[name]))
    record = _record(done, seed)
    saving.write_bytes(out / f"{NAME}.json", saving.to_json(record))
    saving.write_bytes(out / f"{NAME}.md", (table(record, markdown=True) + "\n").encode())
    return record


def _key(case: Case, seed: int) -> Json:
    """What a cell is made from, as JSON."""
    import torch

    with torch.device("meta"):  # shapes alone: no numbers are drawn
        shapes = [list(p.shape) for p in case.build().parameters()]
    return {
        "shapes": shapes,
        "data": [case.data, case.change.__name__ if case.change else "", _EXAMPLES],
        "dense": [case.epochs, case.lr],
        "divisor": DIVISOR,
        "seed": seed,
    }


def _cell(case: Case, seed: int, folder: Path, data_dir: str | Path | None, on_progress: Report | None) -> Json:
    """Train, compress, verify; then the test part, once."""
    import torch

    from secateur import api, data
    from secateur.training import metrics

    splits = data.load(case.data, data_dir)
    splits = case.change(splits) if case.change else splits
    torch.manual_seed(seed)
    net = case.build()
    began = time.monotonic()
    fit(net, splits.train, case.epochs, case.lr, on_progress)
    trained = time.monotonic()
    weights = sum(p.numel() for p in net.parameters())
    result = api.compress(
        net,
        splits.train,
        valid=splits.valid,
        budget={"nbytes": 4 * weights / DIVISOR},
        recipe={"bench": {"seconds": 0.5}, "baselines": []},  # which would not change the answer
        seed=seed,
        on_progress=on_progress or False,
    )
    seconds = time.monotonic() - trained
    result.save(folder)
    checks = result.verify()
    assert splits.test is not None
    judge = metrics.accuracy(splits.test)
    report = result.report
    return {
        "data": case.data,
        "weights": weights,
        "asked": 4 * weights / DIVISOR,
        "nbytes": report["compressed"]["nbytes"],
        "nnz": report["compressed"]["nnz"],
        "valid": [report[k]["metric_valid"] for k in ("dense", "compressed")],
        "test": [judge(net), judge(result.model)],
        "verify": report["verify"],
        "verified": checks["passed"],
        "latency_ms": {k: report[k]["latency_ms"] for k in ("dense", "compressed")},
        "seconds": {"dense": trained - began, "compress": seconds},
        "notes": report.get("notes", []),
        "cpu": report["cpu"],
        "versions": report["versions"],
    }


def fit(net: nn.Module, train: Any, epochs: int, lr: float, on_progress: Report | None = None) -> None:
    """A plain loop: Adam, half a cosine, cross-entropy; the net is in evaluation mode afterwards."""
    import torch
    from torch.nn.functional import cross_entropy

    optimizer = torch.optim.Adam(net.parameters(), lr)
    total = epochs * len(train)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 0.5 * (1 + math.cos(math.pi * s / total)))
    began = time.monotonic()
    net.train()
    for epoch in range(epochs):
        shuffled = train.order(torch.Generator().manual_seed(epoch)) if hasattr(train, "order") else train
        for x, y in shuffled:
            optimizer.zero_grad()
            cross_entropy(net(*x) if isinstance(x, tuple) else net(x), y).backward()
            optimizer.step()
            schedule.step()
        if on_progress is not None:
            on_progress(Progress("dense", epoch + 1, epochs, time.monotonic() - began))
    net.eval()


def _fewer(splits: Splits) -> Splits:
    """The first 5,000 training images: a study of kinds, not of records."""
    return replace(splits, train=splits.train.head(_EXAMPLES))  # type: ignore[attr-defined]


def _noisy(splits: Splits) -> Splits:
    """The first pictures under noise; to be told is which pixels belong to the object."""
    import torch

    from secateur.data.tensors import TensorData

    def change(part: TensorData, seed: int) -> TensorData:
        x: Tensor = part.inputs if part.permutation is None else part.inputs[part.permutation]  # type: ignore[assignment, index]
        low = x.amin()
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        return TensorData(x + noise, (x[:, 0] > low + 0.3).long(), part.batch_size)

    parts = (_fewer(splits).train, splits.valid, splits.test)
    return replace(splits, **dict(zip(("train", "valid", "test"), map(change, parts, (1, 2, 3)), strict=True)))  # type: ignore[arg-type]


def _record(cells: dict[str, Json], seed: int) -> Json:
    import platform

    import secateur

    first = next(iter(cells.values()))
    claims = {n: {"drop": c["test"][0] - c["test"][1], "allowed": ALLOWED} for n, c in cells.items()}
    for name, claim in claims.items():
        cell = cells[name]
        claim["met"] = claim["drop"] <= ALLOWED and cell["nbytes"] <= cell["asked"] and cell["verified"]
    return {
        "schema": 1,
        "name": NAME,
        "about": ABOUT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "secateur": secateur.__version__,
        "machine": {"arch": platform.machine(), "system": platform.system(), **first["cpu"]},
        "versions": first["versions"],
        "command": f"secateur reproduce {NAME} --seed {seed}",
        "seed": seed,
        "claims": claims,
        "cells": cells,
    }


def table(record: Json, markdown: bool = False) -> str:
    """One row per network."""
    head = ["net", "data", "weights", "bytes asked", "bytes", "dense test, %", "test, %", "lost, pt", "files", "met"]
    rows = []
    for name, cell in record["cells"].items():
        claim = record["claims"][name]
        rows.append(
            [
                name,
                cell["data"],
                f"{cell['weights']:,}",
                f"{cell['asked']:,.0f}",
                f"{cell['nbytes']:,}",
                f"{100 * cell['test'][0]:.2f}",
                f"{100 * cell['test'][1]:.2f}",
                f"{100 * claim['drop']:+.2f}",
                "verified" if cell["verified"] else "MISMATCH",
                "yes" if claim["met"] else "NO",
            ]
        )
    title = f"{record['name']}: {record['about']}"
    note = (
        f"Seed {record['seed']}, {record['machine'].get('name', '')}, {record['machine'].get('isa', '')}. A loss is "
        f"the dense net's accuracy minus the compressed one's on the test part, read once; allowed: {100 * ALLOWED:g} "
        "points. `files`: engine, ONNX Runtime and PyTorch agree on the written files, and every count was made again."
    )
    return "\n".join([f"# {title}" if markdown else title, "", *tables.lines(head, rows, markdown), "", note])


def _named(tell: Report | None, name: str) -> Report | None:
    return None if tell is None else lambda p: tell(replace(p, stage=f"{name} {p.stage}"))
