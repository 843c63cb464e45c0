"""Heads: whole heads of attention go, from queries, keys, values and the output projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.constraints.rows import Rows


@dataclass(frozen=True)
class Heads(Rows):
    """{Z : at most k heads are nonzero}; the level is k, 0..heads of the layer.

    A row of the matrix holds one head: its rows of the query, key and value weights, in one matrix or in three. The
    graph finds heads in the products of the traced forward, not by names, and removes dead ones physically, with their
    biases and their columns of the output projection. Query heads that share a key/value head go with it, as one.

    Reference: Michel et al., NeurIPS 2019, arXiv:1905.10650; Voita et al., ACL 2019, arXiv:1905.09418.
    """

    view: ClassVar[str] = "head"
    unit: ClassVar[str] = ""
    level_keys: ClassVar[tuple[str, ...]] = ("heads", "keep", "sparsity", "density")
    reference: ClassVar[str] = "Michel et al., Are sixteen heads really better than one?, arXiv:1905.10650"
