"""Planetoid citation graphs, Cora and Citeseer: one batch is the whole graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.data.arrays import read_arrays
from secateur.data.places import open_set
from secateur.data.spec import Spec, Splits, check_labels
from secateur.errors import FormatError

CLASSES = {"cora": 7, "citeseer": 6}
IGNORED = -100  # what cross-entropy skips
_STEPS = 10
_MAX_NODES, _MAX_FEATURES, _LIMIT = 20_000, 10_000, 1 << 26

Batch = tuple[tuple[Tensor, Tensor], Tensor]


def load(which: str, data_dir: str | Path | None = None, *, batch_size: int = 1, download: bool = False) -> Splits:
    """Three parts of ((features, adjacency), labels), the whole graph each time, float32 and int64.

    Labels are -100, which cross-entropy ignores, on all nodes but the part's own: 20 a class for training, 500 for
    validation, 1,000 for the test (the usual public split). Features [nodes, words] have rows of sum 1; the adjacency
    [nodes, nodes] is D^-1/2 (A + I) D^-1/2 (Kipf & Welling, arXiv:1609.02907, eq. 2), dense. The training part gives
    the graph ten times, so that an epoch is ten steps; `batch_size` and `download` are not used. Looked for in
    `data_dir` (or SECATEUR_DATA) and its `planetoid/`: `cora.npz`, `citeseer.npz`. The published files are pickles,
    which are refused.

    Source: Sen et al. 2008; Yang et al., ICML 2016, arXiv:1603.08861.
    """
    del download, batch_size
    file = f"{which}.npz"
    folder = open_set(f"planetoid:{which}", data_dir, lambda f: (f / file).is_file())
    x, labels, edges, parts = _read(folder / file, CLASSES[which])
    adjacency = np.eye(len(x), dtype=np.float32)
    adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1
    scale = adjacency.sum(1) ** -0.5
    graph = (torch.from_numpy(x), torch.from_numpy(scale[:, None] * adjacency * scale))
    train, valid, test = ([_batch(graph, labels, rows)] for rows in parts)
    spec = Spec(which, tuple(x.shape), tuple(str(i) for i in range(CLASSES[which])), (0.0,), (1.0,), 1.0)
    return Splits(train * _STEPS, valid, test, spec)


def _batch(graph: tuple[Tensor, Tensor], labels: NDArray[np.int64], rows: NDArray[np.int64]) -> Batch:
    targets = torch.full((len(labels),), IGNORED)
    targets[rows] = torch.from_numpy(labels[rows])
    return graph, targets


def _read(
    path: Path, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], list[NDArray[np.int64]]]:
    """Features, labels, edges [n, 2] and the rows of the three parts; every index is checked."""
    counts = {"num_nodes": ("int64", ()), "num_features": ("int64", ())}
    sizes = read_arrays(path, counts, _LIMIT)
    nodes, words = int(sizes["num_nodes"]), int(sizes["num_features"])
    if not 0 < nodes <= _MAX_NODES or not 0 < words <= _MAX_FEATURES:
        raise FormatError(f"{path.name}: {nodes} nodes of {words} features; at most {_MAX_NODES} and {_MAX_FEATURES}")
    wanted: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "feat_indptr": ("int32", (nodes + 1,)),
        "feat_indices": ("int16", (None,)),
        "feat_data": ("float32", (None,)),
        "labels": ("int8", (nodes,)),
        "edges": ("int32", (None, 2)),
        **{f"{part}_idx": ("int32", (None,)) for part in ("train", "val", "test")},
    }
    z = read_arrays(path, wanted, _LIMIT)
    ends, columns, values = z["feat_indptr"], z["feat_indices"].astype(np.int64), z["feat_data"]
    steps = ends[1:].astype(np.int64) - ends[:-1]
    if ends[0] != 0 or (steps < 0).any() or ends[-1] != len(columns) or len(values) != len(columns):
        raise FormatError(f"{path.name}: the features' rows do not fit together; the file is damaged")
    rows = [z[f"{part}_idx"].astype(np.int64) for part in ("train", "val", "test")]
    edges = z["edges"].astype(np.int64)
    for what, index, top in (("feature", columns, words), ("edge", edges, nodes), *(("part", r, nodes) for r in rows)):
        if index.size and not 0 <= int(index.min()) <= int(index.max()) < top:
            raise FormatError(f"{path.name}: a {what} index is outside of 0 to {top - 1}; the file is damaged")
    labels = z["labels"].astype(np.int64)
    check_labels(path.name, labels[np.concatenate(rows)], classes)
    x = np.zeros((nodes, words), np.float32)
    x[np.repeat(np.arange(nodes), steps), columns] = values
    return x / np.maximum(x.sum(1, keepdims=True), 1), labels, edges, rows
