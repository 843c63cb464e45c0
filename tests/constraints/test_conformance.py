"""Every file of the room, in every variant, obeys the laws.

The variants, each with an oracle written from the definition of its set, are the `LAWS` of the set's own test.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from secateur import catalog
from secateur.contracts import Constraint
from secateur.testing.constraints import check_constraint


def laws(name: str) -> list[tuple[Constraint, Any]]:
    if Path(__file__).with_name(f"test_{name}.py").exists():
        return import_module(f"test_{name}").LAWS
    return [(catalog.load("constraints", name)(), None)]


ALL = [
    pytest.param(constraint, oracle, id=f"{name}-{i}")
    for name in catalog.names("constraints")
    for i, (constraint, oracle) in enumerate(laws(name))
]


@pytest.mark.parametrize(("constraint", "oracle"), ALL)
def test_laws(constraint: Constraint, oracle: Any) -> None:
    check_constraint(constraint, oracle=oracle)
