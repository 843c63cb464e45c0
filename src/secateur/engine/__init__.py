"""The Python face of the C++ engine. Importing and running it needs NumPy only."""

from __future__ import annotations

from secateur.engine.bench import bench as bench
from secateur.engine.inspect import inspect as inspect
from secateur.engine.session import InferenceSession as InferenceSession
from secateur.engine.session import isas as isas
from secateur.engine.side_by_side import side_by_side as side_by_side
from secateur.native._native import usable_cpus as usable_cpus

__all__ = ["InferenceSession", "bench", "inspect", "isas", "side_by_side", "usable_cpus"]
