"""The abstract classes of all rooms. Read these files first: `sets`, `solving`, `counting`.

A class is abstract (here) or final (one file in its room). Final classes are frozen dataclasses: their fields are
their configuration, their recipe section and their record. Nothing here imports torch when run.
"""

from secateur.contracts.counting import (
    Meter as Meter,
)
from secateur.contracts.counting import (
    Objective as Objective,
)
from secateur.contracts.sets import (
    ActivationSet as ActivationSet,
)
from secateur.contracts.sets import (
    Constraint as Constraint,
)
from secateur.contracts.sets import (
    Piece as Piece,
)
from secateur.contracts.sets import (
    Term as Term,
)
from secateur.contracts.solving import (
    FROM_INPUTS as FROM_INPUTS,
)
from secateur.contracts.solving import (
    FROM_LOSS as FROM_LOSS,
)
from secateur.contracts.solving import (
    STATISTICS as STATISTICS,
)
from secateur.contracts.solving import (
    TRIAL as TRIAL,
)
from secateur.contracts.solving import (
    Allocate as Allocate,
)
from secateur.contracts.solving import (
    Effective as Effective,
)
from secateur.contracts.solving import (
    Problem as Problem,
)
from secateur.contracts.solving import (
    Saliency as Saliency,
)
from secateur.contracts.solving import (
    Solver as Solver,
)
from secateur.contracts.solving import (
    SolverState as SolverState,
)
from secateur.contracts.solving import (
    Statistics as Statistics,
)
