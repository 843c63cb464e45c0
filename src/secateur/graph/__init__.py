"""Finds weights: trace, sites, coupled channels, effective weights; and cuts what no longer matters."""

from secateur.graph.example import Example, settle
from secateur.graph.factors import factored
from secateur.graph.reorder import placed, reorder
from secateur.graph.rescale import rescaled, scalable, scaled
from secateur.graph.rewrite import Pinned, Proof, shrink, stays
from secateur.graph.surgery import after_cut, apply_surgery
from secateur.graph.tracing import Traced, trace

__all__ = [
    "Example",
    "Pinned",
    "Proof",
    "Traced",
    "after_cut",
    "apply_surgery",
    "factored",
    "placed",
    "reorder",
    "rescaled",
    "scalable",
    "scaled",
    "settle",
    "shrink",
    "stays",
    "trace",
]
