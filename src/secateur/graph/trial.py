"""Does a changed network answer as the one before? Both run in double precision, in evaluation and training mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from secateur.errors import first_line
from secateur.graph.calling import evaluating, tensors_of, user_frame
from secateur.graph.copying import copied
from secateur.graph.doubled import in_double
from secateur.graph.program import Program
from secateur.graph.surgery import Surgery, load, operate, sibling
from secateur.types import Weights

_OTHERWISE = "it answers otherwise then"


@dataclass
class Folded:
    """Weights after folding, in double: what every parameter becomes before anything is cut."""

    values: dict[str, Tensor]
    made: dict[str, Tensor] = field(default_factory=dict)  # biases that layers without one need now


class Trial:
    """Builds candidates and compares them with the masked model in double (or as the code allows)."""

    def __init__(self, masked: nn.Module, program: Program) -> None:
        self.masked, self.program = masked, program
        self.dtype: torch.dtype | None = torch.float64
        self.whys: list[str] = []  # what candidates failed by, in words
        self.inputs: list[dict[str, Tensor]] = []
        try:
            self.wanted = self._settle()
        except (RuntimeError, TypeError, ValueError):
            self.dtype = None  # the code insists on its own types
            self.wanted = self._settle()
        self.trained = self._in_training(_as(copied(masked), self.dtype))

    def _settle(self) -> list[Tensor]:
        """Choose the inputs to compare on: the example's batch, and batches of 1 and 3 where the code takes them."""
        model, self.inputs, wanted = _as(self.masked, self.dtype), [], []
        for batch in (None, 1, 3) if self.program.batched else (None,):
            inputs = self.program.noisy(batch, self.dtype)
            try:
                wanted += self._answer(model, inputs)
            except Exception:
                if batch is None:
                    raise
                continue
            self.inputs.append(inputs)
        return wanted

    def proven(self, folded: Folded, surgery: Surgery) -> nn.Module | None:
        """The finished module, or None when it fails to reproduce the masked one."""
        exact = made(_as(copied(self.masked), self.dtype), folded, surgery)
        try:
            got = [t for inputs in self.inputs for t in self._answer(exact, inputs)]
        except Exception as e:  # whatever the user's code throws at sizes it does not expect
            self.whys.append(f"{first_line(e)}{user_frame(e)}")
            return None
        if len(got) != len(self.wanted):
            self.whys.append(_OTHERWISE)
            return None
        for y, w in zip(got, self.wanted, strict=True):
            # Only the order of sums differs: in double far below 1e-9 of the largest output.
            finite = w[w.isfinite()].abs()
            bound = (1e-9 if self.dtype is not None else 1e-4) * max(1e-3, float(finite.max()) if len(finite) else 0.0)
            if y.shape != w.shape or not torch.allclose(y, w, rtol=0.0, atol=bound, equal_nan=True):
                self.whys.append(_OTHERWISE)
                return None
        if self.trained is not None and self._in_training(exact) != self.trained:
            self.whys.append("it fails in training mode then")  # a part of that mode reads channels that are gone
            return None
        return made(copied(self.masked), folded, surgery)

    def _in_training(self, model: nn.Module) -> list[torch.Size] | None:
        """The shapes that `model` answers in training mode, None when it does not run; `model` is used up."""
        inputs = self.program.noisy(3, self.dtype)
        args, kwargs = self.program.rebuild([inputs.get(n) for n in self.program.inputs])
        try:
            with (
                torch.random.fork_rng(devices=[]),
                torch.no_grad(),
                in_double() if self.dtype is not None else contextlib.nullcontext(),
            ):
                answer = model.train()(*args, **kwargs)
        except Exception:  # whatever the user's code throws at sizes it does not expect
            return None
        return [t.shape for t in tensors_of(answer)]

    def _answer(self, model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
        args, kwargs = self.program.rebuild([inputs.get(n) for n in self.program.inputs])
        with evaluating(model), in_double() if self.dtype is not None else contextlib.nullcontext():
            answer = model(*args, **kwargs)
        return [t.double() for t in tensors_of(answer)]


def made(model: nn.Module, folded: Folded, surgery: Surgery) -> nn.Module:
    """`model` itself with these weights, cut; nothing is proved of it."""
    load(model, folded.values)
    operate(model, surgery)
    rows = {e["tensor"]: e["keep"] for e in surgery["edits"] if e["axis"] == 0}
    load(model, {k: v[rows[sibling(k)]] if sibling(k) in rows else v for k, v in folded.made.items()})
    return model


def in_turn(
    model: nn.Module, program: Program, changes: Mapping[str, Callable[[Weights], tuple[dict[str, Tensor], Surgery]]]
) -> tuple[nn.Module, list[str]]:
    """The model after changes under which it answers as before, one upon the other, and the names of those that fail.

    Args:
        model: not changed.
        changes: name -> the parameters now -> what they become, and the record of what is cut or moved.
    """
    now, kept = copied(model), []
    for name, change in changes.items():
        values, surgery = change({n: p.detach() for n, p in now.named_parameters() if n in program.shapes})
        moved = Trial(now, program).proven(Folded(values), surgery)
        if moved is None:
            kept.append(name)
        else:
            now = moved
    return now, kept


def _as(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    return model if dtype is None else copied(model).to(dtype)
