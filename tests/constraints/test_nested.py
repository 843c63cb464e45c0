"""Chains of supports: as a set of matrices the loosest level; the laws are in test_conformance."""

import pytest
import test_blocks as blocks
import test_nm as nm
import test_rows as rows
import test_topk as topk
import torch

from secateur.constraints.blocks import Blocks
from secateur.constraints.codebook import Codebook
from secateur.constraints.nested import Nested
from secateur.constraints.nm import NM
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.errors import ConstraintError, UsageError
from secateur.export.membership import settings_of
from secateur.recipe import Recipe, build_constraint
from secateur.testing import brute_force

RULES = {TopK: topk.rule, NM: nm.rule, Rows: rows.rule, Blocks: blocks.rule}


def rule(constraint, masks, level):
    return RULES[type(constraint.of)](constraint.of, masks, level[0])


LAWS = [(Nested(of), brute_force.Supports(rule)) for of in (TopK(), NM(), Rows(), Blocks(rows=2))] + [
    (Nested(TopK(), (0.5, 0.1)), None)
]


def test_only_the_loosest_level_is_stored() -> None:
    w = torch.tensor([[3.0, -1.0, 0.5], [-4.0, 2.0, 0.0]])
    chain = Nested(TopK(), (0.5, 0.25))
    assert chain.project(w, (3, 2, 1)).tolist() == [[3.0, 0.0, 0.0], [-4.0, 2.0, 0.0]]
    assert chain.contains(w, (5, 1, 0))
    assert not chain.contains(w, (4, 4, 4))
    assert chain.packing((2, 3), (3, 2, 1)) == TopK().packing((2, 3), 3)


def test_a_level_for_each() -> None:
    chain = Nested(TopK(), (0.5, 0.25))
    assert chain.parse_level({"sparsity": [0.5, 0.8, 0.9]}, (10, 10)) == (50, 20, 10)
    for given in ({"sparsity": 0.5}, {"sparsity": [0.5, 0.8]}, {"sparsity": [0.8, 0.5, 0.9]}, {}):
        with pytest.raises(ConstraintError, match="nested"):
            chain.parse_level(given, (10, 10))


def test_what_no_chain_can_be_made_of() -> None:
    for of in (Codebook(), Nested(TopK()), "topk"):
        with pytest.raises(UsageError, match="supports nest"):
            Nested(of)
    for shares in ((), (0.5, 0.5), (0.5, 0.7), (1.0,), (0.0,), (True,), 3, tuple(0.9**i for i in range(1, 17))):
        with pytest.raises(UsageError, match="nested"):
            Nested(TopK(), shares)
    with pytest.raises(UsageError, match="name it alone"):
        build_constraint([{"name": "nested", "of": "topk"}, "codebook"])


def test_as_a_recipe_writes_it() -> None:
    given = {"name": "nested", "of": {"name": "blocks", "rows": 8}, "shares": [0.5, 0.25]}
    chain = build_constraint(given)
    assert chain == Nested(Blocks(rows=8), (0.5, 0.25))
    assert build_constraint(settings_of(chain)) == chain
    Recipe.from_dict({"model": "m:m", "constrain": {"where": "*", "with": given}})


def test_after_a_cut_all_levels_go_on() -> None:
    after, level = Nested(TopK()).after_cut((4, 4), [0, 1], [0, 2], (9, 3))
    assert (after, level) == (Nested(TopK()), (4, 3))
    w = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert Nested(TopK(), (0.5, 0.2)).tightest(w, (3, 3, 1)) == (2, 2, 1)
