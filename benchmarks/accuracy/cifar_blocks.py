"""1x4 blocks in int8 of the CIFAR-10 ResNet-20 within a share of the weights, beside iso-accuracy's share of the MACs.

    python benchmarks/accuracy/cifar_blocks.py runs/cifar-blocks --out benchmarks/results/cifar-blocks.json

The dense net, objective and ten epochs of `reproduce iso-accuracy --task cifar`; `gradual` by Adam and, at a tenth, by
SGD. A net is one folder (half an hour of one core) and is not trained again where its folder is finished. Validation
chooses the optimizer; the test part is read of what was chosen, from the packed file in the engine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import secateur
from secateur import InferenceSession, data, zoo
from secateur.shell import saving

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks" / "speed"))
from run import provenance  # noqa: E402

DENSE = ROOT / "benchmarks" / "nets" / "cifar" / "seed0" / "dense,width=1.0" / "model.safetensors"
WEIGHTS, ENDS = 268336, ["conv1.weight", "linear.weight"]
CODES = {"name": "uniform", "per": "row"}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam"},
    "sgd": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
}
NETS = {"nnz80adam": (0.2, "adam"), "nnz90adam": (0.1, "adam"), "nnz90sgd": (0.1, "sgd")}


def recipe(share: float, optimizer: str) -> dict[str, Any]:
    """That of the study's blocks, with a limit on weights."""
    return {
        "constrain": [
            {"where": "*", "exclude": ENDS, "with": [{"name": "blocks", "rows": 1, "cols": 4}, CODES]},
            {"where": ENDS, "with": CODES, "level": {"bits": 8}},
        ],
        "quantize": {"weights": None, "activations": 8},
        "budget": {"nnz": int(share * WEIGHTS)},
        "objective": [{"name": "task", "weight": 0.5}, {"name": "distillation", "weight": 0.5}],
        "solver": {"name": "gradual", "epochs": 10},
        "training": {**OPTIMIZERS[optimizer], "batch_size": 128, "augment": "flip_crop", "threads": 1},
        "baselines": [],
        "bench": {"seconds": 0.1, "against": []},
    }


def accuracy(session: InferenceSession, batches: Any) -> float:
    """Share of the examples that the packed file names rightly."""
    name = session.get_inputs()[0].name
    return float(
        np.concatenate([session.run(None, {name: x.numpy()})[0].argmax(1) == y.numpy() for x, y in batches]).mean()
    )


def main() -> None:
    """Train what is missing, judge, choose, read the test part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the nets' folders")
    parser.add_argument("--out", type=Path, help="JSON with provenance")
    given = parser.parse_args()
    splits, found = data.load("cifar10", None), {}
    for name, (share, optimizer) in NETS.items():
        folder = given.folder / name
        if not (folder / "report.json").is_file():
            dense = zoo.resnet20()
            zoo.load_weights(dense, DENSE)
            asked = {"valid": splits.valid, "recipe": recipe(share, optimizer), "seed": 0}
            secateur.compress(dense.eval(), splits.train.batched(128), **asked).save(folder)
        session = InferenceSession(str(folder / "model.sct"), threads=1)
        row = {"weights": share, "optimizer": optimizer, "nbytes": (folder / "model.sct").stat().st_size}
        found[name] = {**row, "valid": accuracy(session, splits.valid)}
    for share in dict.fromkeys(share for share, _ in NETS.values()):
        best = max((n for n in found if found[n]["weights"] == share), key=lambda n: found[n]["valid"])
        session = InferenceSession(str(given.folder / best / "model.sct"), threads=1)
        found[best]["test"] = accuracy(session, splits.test)
    print(json.dumps(found, indent=1))
    if given.out:
        saving.write_bytes(given.out, saving.to_json({"nets": found, "provenance": provenance()}))


if __name__ == "__main__":
    main()
