"""Every file of the room, in every variant, obeys the laws."""

import pytest

from secateur import catalog
from secateur.constraints.both import Both
from secateur.constraints.codebook import Codebook
from secateur.constraints.nm import NM
from secateur.constraints.rows import Rows
from secateur.constraints.topk import TopK
from secateur.constraints.uniform import Uniform
from secateur.contracts import Constraint
from secateur.testing.constraints import check_constraint

VARIANTS: dict[str, list[Constraint]] = {
    "topk": [TopK()],
    "nm": [NM(), NM(m=2)],
    "rows": [Rows()],
    "uniform": [
        Uniform(max_bits=3),
        Uniform(per="row", max_bits=3),
        Uniform(zero="free", min_bits=1, max_bits=2),
        Uniform(zero="never", min_bits=1, max_bits=2),
        Uniform(per="row", zero="never", min_bits=1),
    ],
    "codebook": [
        Codebook(min_entries=1, max_entries=4),
        Codebook(min_entries=1, max_entries=3, zero="free"),
        Codebook(min_entries=1, max_entries=4, value_format="float16"),
        Codebook(min_entries=1, max_entries=4, mantissa_bits=5),
        Codebook(),
        Codebook(min_entries=1, max_entries=3, exact_below=40),
    ],
    "both": [
        Both((TopK(), Codebook(min_entries=1, max_entries=3))),
        Both((TopK(), Uniform(max_bits=3))),
        Both((TopK(), Uniform(per="row", zero="never", min_bits=1))),
        Both((NM(), Codebook(min_entries=1, max_entries=3, value_format="float16"))),
        Both((Uniform(zero="free", min_bits=1, max_bits=2), Rows())),
    ],
}
ALL = [
    pytest.param(c, id=f"{name}-{i}")
    for name in catalog.names("constraints")
    for i, c in enumerate(VARIANTS.get(name) or [catalog.load("constraints", name)()])
]


@pytest.mark.parametrize("constraint", ALL)
def test_laws(constraint: Constraint) -> None:
    check_constraint(constraint)
