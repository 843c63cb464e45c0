"""Deep copies of modules as training leaves them."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur.errors import UnsupportedError, first_line

M = TypeVar("M", bound=nn.Module)


def copied(model: M) -> M:
    """A deep copy. Tensors that were computed and kept (a mask, a membrane's last state) are copied by value.

    Raises:
        UnsupportedError: an attribute that cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        kept = {k: v for k, v in vars(module).items() if k not in ("_modules", "_parameters")}
        for value in tree_leaves(kept):
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as e:
        raise UnsupportedError(
            f"{type(model).__name__} cannot be copied ({first_line(e)}); "
            "remove what copy.deepcopy cannot copy from its attributes"
        ) from e
