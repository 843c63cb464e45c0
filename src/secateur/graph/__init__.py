"""Finds weights: trace, sites, coupled channels, effective weights; and cuts what no longer matters."""

from secateur.graph.example import Example, settle
from secateur.graph.factors import factored
from secateur.graph.rewrite import Pinned, after_cut, apply_surgery, shrink
from secateur.graph.tracing import Traced, trace

__all__ = ["Example", "Pinned", "Traced", "after_cut", "apply_surgery", "factored", "settle", "shrink", "trace"]
