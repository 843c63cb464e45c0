"""Compress a Hugging Face model while its own `Trainer` trains: one callback.

    python examples/transformers_trainer.py [FOLDER]

A small vision transformer learns scikit-learn's digits, then goes on training within a budget of bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from secateur import Result, data
from secateur.integrations.transformers import SecateurCallback

RECIPE = {
    "budget": {"nbytes": "30KB"},  # the dense file has some 170 KB
    "constrain": [{"where": "*", "with": "topk"}],
    "solver": {"name": "gradual"},
    "bench": {"seconds": 0.2},
}


def examples(batches: data.TensorData) -> list[dict[str, Any]]:
    """As a Trainer takes them: an item a digit, arguments by name."""
    return [{"pixel_values": x, "labels": int(y)} for xs, ys in batches for x, y in zip(xs, ys, strict=True)]


def train(model: ViTForImageClassification, items: list[Any], folder: Path, epochs: int, callback: Any = None) -> None:
    settings = TrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        learning_rate=2e-3,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    Trainer(model, settings, train_dataset=items, callbacks=[callback] if callback else []).train()


def main(folder: Path, dense_epochs: int = 12, epochs: int = 16) -> Result:
    torch.manual_seed(0)
    splits = data.load("digits")
    shape = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 10}
    size = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    model = ViTForImageClassification(ViTConfig(**shape, **size))

    def accuracy(net: Any) -> float:
        with torch.no_grad():
            right = [net(pixel_values=x)["logits"].argmax(1) == y for x, y in splits.valid]
        return float(torch.cat(right).float().mean())

    items = examples(splits.train)
    train(model, items, folder / "dense", dense_epochs)  # an ordinary network first; yours is trained already
    model.eval()
    print(f"dense: {accuracy(model):.1%} of the validation digits")
    callback = SecateurCallback(RECIPE, {"pixel_values": torch.zeros(2, 1, 8, 8)}, evaluate=accuracy)
    train(model, items, folder, epochs, callback)
    result = callback.result
    print(f"compressed: {accuracy(result.model.eval()):.1%}, {len(result.files.sct):,} bytes, in {folder / 'secateur'}")
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as place:
            main(Path(place))
