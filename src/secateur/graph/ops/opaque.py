"""Everything else: any input may reach every output, and no channel that touches it may be removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.graph.calling import tensors_of
from secateur.graph.ops._operator import Labels, Operator, Use, View, shaped, told
from secateur.graph.program import Call, Program

_NORMS = ("layer_norm", "group_norm", "instance_norm", "rms_norm")


class Opaque(Operator):
    """The careful default. Exact for what it says, blind to structure."""

    targets: ClassVar[frozenset[str]] = frozenset()

    def positive(self, node: Call, view: View) -> Any:
        total = torch.zeros(())
        # A parameter's own derivative must see influence from all live inputs, so masks are summed, not multiplied.
        for source in node.all_input_nodes:
            for part in [] if view.is_param(source) else tensors_of(view.mask(source)):
                total = total.to(part.device) + part.sum()
        return shaped(node.meta["val"], total.expand)

    def affine(self, node: Call, need: Tensor, program: Program) -> dict[str, Tensor]:
        # `need` is that of the first result; a call with several may be needed for another one.
        any_need = bool(need.any()) or not isinstance(node.meta["val"], Tensor)
        found = {}
        for source in node.all_input_nodes:
            name = program.params.get(source.name)
            if name:
                found[name] = torch.full(program.shapes[name], any_need)
        return found

    def label(self, node: Call, see: Callable[[Any], Tensor], labels: Labels, program: Program) -> Any:
        why = self.keeps(node)
        fixed = labels.fixed(why)
        for source in node.all_input_nodes:
            for part in tensors_of(see(source)):
                labels.pin(part, why)
            name = program.params.get(source.name)
            for axis in range(len(program.shapes[name]) if name else 0):
                labels.attach(str(name), axis, torch.full((program.shapes[str(name)][axis],), fixed))
        return shaped(node.meta["val"], lambda shape: torch.full(shape, fixed))

    def keeps(self, node: Call) -> str:
        """Why the channels that meet the call stay, in words."""
        kind = str(node.target).split(".")[1] if "." in str(node.target) else ""
        mixes = any(kind.endswith(n) for n in _NORMS)
        return f"{told(node)} takes the mean over all of them" if mixes else f"no rule takes {told(node)} apart"

    def sites(self, node: Call, program: Program) -> dict[str, Use]:
        kind = str(node.target).split(".")[1] if "." in str(node.target) else ""
        found = {}
        for source in node.all_input_nodes:
            name = program.params.get(source.name)
            if name and any(kind.endswith(n) for n in _NORMS):
                found[name] = Use("norm")
            elif name and len(program.shapes[name]) == 1:
                found[name] = Use("bias")
        return found
