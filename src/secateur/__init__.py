"""Secateur: neural-network compression that is really smaller and really faster, with proof.

The public names load lazily: `InferenceSession` needs NumPy only; `compress` and its kin need `secateur[compress]`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from secateur.shell import waiting
from secateur.version import __version__ as __version__

_WHERE = {
    "InferenceSession": "secateur.engine",
    "compress": "secateur.api",
    "Compressor": "secateur.api",
    "Result": "secateur.api",
    "load": "secateur.api",
    "plan": "secateur.api.plan",
    "quantize": "secateur.post_training",
    "sites": "secateur.api.sites",
    "sweep": "secateur.api.sweep",
}
__all__ = [
    "Compressor",
    "InferenceSession",
    "Result",
    "__version__",
    "compress",
    "load",
    "plan",
    "quantize",
    "sites",
    "sweep",
]

if TYPE_CHECKING:
    from secateur.api import Compressor as Compressor
    from secateur.api import compress as compress
    from secateur.api import load as load
    from secateur.api.plan import plan as plan
    from secateur.api.result import Result as Result
    from secateur.api.sites import sites as sites
    from secateur.api.sweep import sweep as sweep
    from secateur.engine import InferenceSession as InferenceSession
    from secateur.post_training import quantize as quantize


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        if name != "InferenceSession":
            waiting.passive()
        try:
            return getattr(importlib.import_module(_WHERE[name]), name)
        except ModuleNotFoundError as e:
            if (e.name or "").startswith("secateur"):
                raise
            extra = f"secateur.{name}: needs {e.name}, which is not installed; pip install 'secateur[compress]'"
            raise ImportError(extra, name=e.name) from None
    raise AttributeError(f"module 'secateur' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
