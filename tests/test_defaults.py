"""A recipe that names no set: what is taken depends on what is asked, is said in one sentence, and is written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from torch import nn

from secateur.api.asked import Asked, make_job
from secateur.api.rehearsal import check_fits
from secateur.proof.judge import Judge
from secateur.recipe import Recipe
from secateur.training.checkpoint import Ledger
from secateur.types import Member, Site


def site(name: str, shape: tuple[int, ...], op: str = "linear") -> Site:
    return Site(name, op, shape, (Member(name),))


SITES = [site("a.weight", (8, 4)), site("a.bias", (8,), "bias"), site("b.weight", (3, 8)), site("c.weight", (5, 4))]
GROUP = Site("a.weight.channels", "channels", (8,), (Member("a.weight"),), removes=(Member("b.weight", 1),))


def taken(budget: dict[str, Any], groups: tuple[Site, ...] = (GROUP,), **more: Any) -> dict[str, str]:
    recipe = Recipe.from_dict({"budget": budget, **more})
    terms = recipe.build_terms(SITES, groups)
    return {t.site.name: type(t.constraint).__name__ for t in terms}


@pytest.mark.parametrize(
    "budget",
    [{"nbytes": 900}, {"nbytes": 900, "macs": 50}, {"accuracy_drop": "1pt"}, {"nbytes": 900, "accuracy_drop": "1pt"}],
)
def test_bytes_take_supports_and_values_on_every_weight(budget: dict[str, Any]) -> None:
    assert taken(budget) == {"a.weight": "AllOf", "b.weight": "AllOf", "c.weight": "AllOf"}


def test_multiply_adds_take_channels_and_weights_where_no_channel_can_go() -> None:
    assert taken({"macs": 50}) == {"a.weight.channels": "Rows", "c.weight": "TopK"}
    assert taken({"macs": 50, "nnz": 30}) == {"a.weight.channels": "Rows", "c.weight": "TopK"}
    assert taken({"accuracy_drop": "1pt"}, minimise="macs") == {"a.weight.channels": "Rows", "c.weight": "TopK"}
    assert set(taken({"macs": 50}, groups=()).values()) == {"TopK"}


def test_nonzeros_take_the_largest_weights() -> None:
    assert taken({"nnz": 30}) == {"a.weight": "TopK", "b.weight": "TopK", "c.weight": "TopK"}


def test_what_is_given_is_not_touched() -> None:
    recipe = Recipe.from_dict({"budget": {"nbytes": 900}, "constrain": {"with": "nm"}})
    assert recipe.resolved(SITES, [GROUP]) == (recipe, None)


@pytest.mark.parametrize("kind", ["nbytes", "macs", "nnz", "accuracy_drop"])
@pytest.mark.parametrize("groups", [(), (GROUP,)])
def test_the_note_says_what_why_and_how_else(kind: str, groups: tuple[Site, ...]) -> None:
    budget = {kind: "1pt" if kind == "accuracy_drop" else 90}
    _, note = Recipe.from_dict({"budget": budget}).resolved(SITES, groups)
    assert note is not None
    assert kind in note
    assert "constrain: {with: " in note
    for written in note.split("{with: ")[1:]:  # what it tells the reader to write is a recipe
        Recipe.from_dict({"constrain": yaml.safe_load("{with: " + written.partition("}")[0] + "}")})


def test_the_resolved_recipe_lists_what_was_taken() -> None:
    recipe = Recipe.from_dict({"budget": {"macs": 50}}).resolved(SITES, [GROUP])[0]
    again = Recipe.from_text(recipe.to_yaml())
    assert again.constrain is not None
    assert [e.with_ for e in again.constrain] == ["rows", "topk"]
    assert again.constrain[1].where == ["c.weight"]
    assert again.resolved(SITES, [GROUP]) == (again, None)


def test_the_note_is_told_and_recorded(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))]
    task = nn.functional.cross_entropy
    judge = Judge("metric", lambda m: 0.0, "validation", None, True)
    asked = Asked(net, batches, task, lambda m: 0.0, True, None, judge, batches[0][0], "", "", [])
    job = make_job(asked, Recipe.from_dict({"budget": {"macs": 40}}), Ledger(), None)
    with caplog.at_level("WARNING", logger="secateur"):
        check_fits(asked, job)
    note = job.recipe.resolved(*job.start.traced.free)[1]
    assert note in asked.notes
    assert note in caplog.messages
    assert {type(t.constraint).__name__ for t in job.start.terms} == {"Rows"}
