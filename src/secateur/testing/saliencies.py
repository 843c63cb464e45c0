"""Laws of a saliency: h >= 0, finite, the weight's shape, inputs untouched, same call same bits."""

from __future__ import annotations

from typing import Any

import torch

from secateur.contracts import STATISTICS, Saliency


def check_saliency(saliency: Saliency, seed: int = 0) -> None:
    """Raise AssertionError when a saliency breaks a law; the message names it."""
    name = type(saliency).__name__
    for dtype in (torch.float16, torch.float32, torch.float64):
        for shape in ((3, 4), (1, 1), (2, 3, 2, 2)):
            g = torch.Generator().manual_seed(seed)
            weight = torch.randn(*shape, generator=g).to(dtype)
            weight.view(-1)[0] = 0.0
            gradient = torch.randn(*shape, generator=g).to(dtype)
            before = weight.clone(), gradient.clone()
            h = saliency.importance(weight, _stats(saliency, gradient, seed))
            again = saliency.importance(weight, _stats(saliency, gradient, seed))
            assert torch.equal(weight, before[0]), f"{name}: the weight was changed"
            assert torch.equal(gradient, before[1]), f"{name}: a statistic was changed"
            if h is None:
                assert again is None, f"{name}: same call, different answer"
                continue
            assert again is not None, f"{name}: same call, different answer"
            assert torch.equal(h, again), f"{name}: same call, different bits"
            assert h.shape == weight.shape, f"{name}: h has shape {list(h.shape)}, the weight {list(weight.shape)}"
            assert bool(h.isfinite().all()), f"{name}: h is not finite"
            assert bool((h >= 0).all()), f"{name}: h is negative somewhere"


def _stats(saliency: Saliency, values: torch.Tensor, seed: int) -> dict[str, Any]:
    """Any values of the weight's shape, where a statistic may be negative; the Gram matrix has another shape."""
    known: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed + 1)}
    signed = ("gradient", "curvature", "movement")
    known |= {name: values if name in signed else values.square() for name in STATISTICS if name != "input_gram"}
    missing = saliency.needs - known.keys()
    assert not missing, f"{type(saliency).__name__} needs unknown statistics: {', '.join(sorted(missing))}"
    return {k: known[k] for k in saliency.needs}
