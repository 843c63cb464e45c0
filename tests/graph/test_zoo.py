"""Half of the channels of every family taken away: the smaller net answers as the masked one, everywhere."""

from __future__ import annotations

import copy
import json
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.export.onnx import to_bytes
from secateur.graph import apply_surgery, shrink, trace
from secateur.graph.calling import arguments, tensors_of

from .families import NETS, PAGE, built, half_gone, row, trained

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
WHOLE = ("GCN", "GAT")  # no batch axis


def answers(net: nn.Module, example: object, training: bool = False) -> list[Tensor]:
    """In double, on a copy."""
    wide = torch.utils._pytree.tree_map(lambda x: x.double() if x.is_floating_point() else x, example)
    args, kwargs = arguments(wide)
    with torch.no_grad():
        return tensors_of(copy.deepcopy(net).double().train(training)(*args, **kwargs))


@pytest.mark.parametrize("name", NETS)
def test_half_of_every_group_goes(name: str) -> None:
    net, example = built(name)
    t = trace(net, example)
    weights = half_gone(net, t)
    small, surgery = shrink(net, t, weights)
    masked = copy.deepcopy(net)
    with torch.no_grad():
        for n, p in masked.named_parameters():
            p.copy_(weights[n])
    for training in (False, True):
        for y, want in zip(answers(small, example, training), answers(masked, example, training), strict=True):
            assert torch.allclose(y, want, rtol=0, atol=1e-6 * (1 + float(want.abs().max())))
    promised: Counter[tuple[str, int]] = Counter()
    for site in t.groups:
        for m in (*site.members, *site.removes):
            promised[m.param, m.axis] += site.shape[0] // 2 * m.repeat
    gone = {(e["tensor"], e["axis"]): e["size"] - len(e["keep"]) for e in surgery["edits"]}
    assert gone == {k: n for k, n in promised.items() if n}
    again = apply_surgery(net, json.loads(json.dumps(surgery)))
    again.load_state_dict(small.state_dict())
    for y, want in zip(answers(again, example), answers(small, example), strict=True):
        assert torch.equal(y, want)
    run_everywhere(small, example, dynamic_batch=name not in WHOLE)
    line = row(name, t, trace(small, example))
    assert line in PAGE.read_text("utf-8").splitlines(), (
        f"docs/families.md is stale: python {'tests/graph/families.py'}"
    )


def test_the_page_holds_the_kept_record_of_the_study() -> None:
    assert PAGE.read_text("utf-8").endswith(trained()), "docs/families.md is stale: python tests/graph/families.py"


def run_everywhere(small: nn.Module, example: object, dynamic_batch: bool) -> None:
    """The ONNX file in the engine answers as the module does."""
    onnx = to_bytes(small, example, dynamic_batch=dynamic_batch)
    session = secateur.InferenceSession(onnx)
    args, _ = arguments(example)
    feeds = {i.name: x.numpy() for i, x in zip(session.get_inputs(), args, strict=True)}
    with torch.no_grad():
        wanted = tensors_of(small(*args))
    for y, want in zip(session.run(None, feeds), wanted, strict=True):
        assert np.abs(y - want.numpy()).max() <= 1e-4 * (1 + float(want.abs().max()))
