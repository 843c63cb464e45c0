"""Finds weights: trace, sites, coupled channels, effective weights; and cuts what no longer matters."""

from secateur.graph.rewrite import after_cut, apply_surgery, shrink
from secateur.graph.statistics import recalibrate
from secateur.graph.tracing import Traced, trace

__all__ = ["Traced", "after_cut", "apply_surgery", "recalibrate", "shrink", "trace"]
