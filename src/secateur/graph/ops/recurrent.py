"""LSTM, GRU and Elman networks, and their cells: every weight is used once a time step."""

from __future__ import annotations

import math
from typing import ClassVar

from secateur.graph.ops._operator import Use
from secateur.graph.ops.opaque import Opaque
from secateur.graph.program import Call, Program, shape_of

_CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class Recurrent(Opaque):
    """Weights stack their gates along axis 0 (LSTM: input, forget, cell, output; GRU: reset, update, new).

    Careful: a state feeds every gate of the next step, so all weights may matter while anything does.
    """

    targets: ClassVar[frozenset[str]] = frozenset(
        {f"aten.{c}.{kind}" for c in _CELLS for kind in ("input", "data")} | {f"aten.{c}_cell.default" for c in _CELLS}
    )

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        x = shape_of(node.args[0])  # [steps, batch, inputs], batch first or not, or a cell's [batch, inputs]
        steps = max(1, math.prod(x[:-1]) // max(1, program.batch))
        names = [program.params[a.name] for a in node.all_input_nodes if a.name in program.params]
        return {n: Use("recurrent", steps) if len(program.shapes[n]) > 1 else Use("bias") for n in names}
