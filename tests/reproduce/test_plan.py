"""Study files: what a grid becomes, and one clear error at once for every way to be wrong."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from secateur import reproduce
from secateur.errors import UsageError
from secateur.reproduce import plan

PLAN: dict[str, Any] = {
    "about": "two bits or three",
    "data": "digits",
    "seeds": [0],
    "n_weights": 100,
    "grid": {"bits": {2: {"start": "small", "entries": 4}, 3: {"start": "large", "entries": 8}}, "epochs": [1, 2]},
    "parts": {
        "small": {"title": "small", "model": "secateur.zoo:lenet300", "epochs": 1, "training": {}},
        "large": {"title": "large", "model": "secateur.zoo:lenet5", "epochs": 1, "training": {}},
        "codes": {
            "title": "$bits bits for $epochs",
            "from": "$bits.start",
            "recipe": {
                "constrain": {"where": "*", "with": {"name": "codebook", "max_entries": "$bits.entries"}},
                "budget": {"nbytes": "2KB"},
                "solver": {"name": "one_shot", "epochs": "$epochs"},
            },
        },
        "again": {"title": "again", "from": "codes", "recipe": {"budget": {"nnz": 100}}},
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    """The plan with values set at dotted places; None removes."""
    raw = copy.deepcopy(PLAN)
    for place, value in changes.items():
        *path, last = place.split("__")
        at = raw
        for key in path:
            at = at[key]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return raw


def test_a_part_is_repeated_along_the_axes_that_it_uses() -> None:
    cells = plan.checked("s", PLAN).cells
    assert list(cells) == [
        *("small", "large"),
        *(f"{part},bits={b},epochs={e}" for part in ("codes", "again") for b in (2, 3) for e in (1, 2)),
    ]
    cell = cells["codes,bits=3,epochs=2"]
    assert cell.start == "large"
    assert cell.plan["title"] == "3 bits for 2"
    assert cell.plan["recipe"]["constrain"]["with"]["max_entries"] == 8
    assert cell.plan["recipe"]["solver"]["epochs"] == 2
    assert cells["again,bits=2,epochs=1"].start == "codes,bits=2,epochs=1"


def test_cells_are_named_or_matched() -> None:
    study = plan.checked("s", PLAN)
    assert [c.name for c in study.matching("codes,bits=2,*")] == ["codes,bits=2,epochs=1", "codes,bits=2,epochs=2"]
    assert len(study.matching("codes")) == 4
    assert [c.name for c in study.matching("small")] == ["small"]
    assert study.matching("code") == []


def test_a_task_brings_keys_of_its_own() -> None:
    raw = changed(tasks={"a": {"data": "mnist", "grid": {"epochs": [5]}}, "b": {}})
    assert plan.checked("s", raw, "a").plan.data == "mnist"
    assert "codes,bits=2,epochs=5" in plan.checked("s", raw, "a").cells
    assert plan.checked("s", raw, "b").plan.data == "digits"


CLAIM = {"says": "x", "part": "codes", "against": "small", "claimed": 0.1, "expect": {"low": 0, "high": 1}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"about": None}, r"about: Field required"),
        ({"grids": {}}, r"unknown key 'grids'; did you mean 'grid'\?"),
        ({"task": "spelling"}, r"task: .*'classification'.* got 'spelling'"),
        ({"seeds": []}, r"seeds: .*at least 1"),
        ({"parts__small__titel": "x"}, r"unknown key 'parts.small.titel'; did you mean 'title'\?"),
        ({"parts__small__from": "large"}, r"parts.small: model and from given; needs one of"),
        ({"parts__small__epochs": None}, r"parts.small: epochs is missing beside model"),
        ({"parts__small__recipe": {}}, r"parts.small: recipe does not belong beside model"),
        ({"parts__small__training": {"lr": -1}}, r"small: .*dense.*lr: .*greater than 0"),
        ({"parts__codes__recipe__solver": {"name": "magic"}}, r"codes,bits=2,epochs=1: .*magic"),
        ({"parts__codes__from": "codes"}, r"from 'codes' is no earlier part"),
        ({"parts__codes__from": "smal"}, r"from 'smal' is no earlier part at this point; earlier: small, large"),
        ({"parts__codes__title": "$bit"}, r"parts.codes: \$bit is no axis; known: bits, epochs"),
        ({"parts__codes__title": "$bits.entry"}, r"\$bits.entry: bits=2 has no key 'entry'; known: start, entries"),
        ({"parts__codes__title": "$epochs.entry"}, r"epochs=1 has no key 'entry'; known: none"),
        ({"grid__epochs": []}, r"grid.epochs: \[\]; a list of different values"),
        ({"grid__epochs": [1, 1]}, r"grid.epochs: \[1, 1\]; a list of different values"),
        ({"grid__epochs": 6}, r"grid.epochs: 6; a list"),
        ({"grid__epochs": ["../x"]}, r"grid.epochs: .*names of letters, digits"),
        ({"grid__epochs": list(range(2000))}, r"more than 1000 cells"),
        ({"claims": [{**CLAIM, "part": "code"}]}, r"'code' names no part or cell; parts: small, large, codes, again"),
        ({"claims": [{**CLAIM, "expect": {"low": 2, "high": 1}}]}, r"claims.0.expect: low 2 is above high 1"),
        ({"claims": [{k: v for k, v in CLAIM.items() if k != "expect"}]}, r"claims.0.expect: Field required"),
        ({"claims": [{**CLAIM, "figure": "speed"}]}, r"claims.0.figure: .*got 'speed'"),
        ({"goals": [{"part": "none", "measure": 1}]}, r"'none' names no part"),
        ({"tasks": []}, r"tasks: \[\]; a mapping of name"),
    ],
)
def test_a_bad_study_is_one_error_at_once(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(changed(**change), sort_keys=False))
    with pytest.raises(UsageError, match=message) as caught:
        reproduce.run(str(path), out=tmp_path / "out")
    assert str(caught.value).startswith("study mine: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_of_several_tasks_one_is_read_and_all_are_checked_before_the_first_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has the tasks a; choose one with --task"):
        plan.checked("mine", changed(tasks={"a": {}}))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(changed(tasks={"a": {}, "b": {"grid": {"epochs": 6}}}), sort_keys=False))
    with pytest.raises(UsageError, match=r"grid.epochs: 6; a list"):
        reproduce.run(str(path), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "", "a: !!python/object:os.system x"])
def test_a_file_that_is_no_study_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="study mine: "):
        reproduce.run(str(path))
    with pytest.raises(UsageError, match="study gone: cannot be read"):
        reproduce.run(str(tmp_path / "gone.yaml"))
