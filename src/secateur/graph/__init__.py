"""Finds weights: trace, sites, coupled channels, effective weights; and cuts what no longer matters."""

from secateur.graph.tracing import Traced, trace

__all__ = ["Traced", "trace"]
