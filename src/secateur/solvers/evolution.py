"""Evolution: a genetic algorithm chooses which rows and columns of the weights come first, then they are retrained."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

import torch
from torch import Tensor

from secateur.contracts import TRIAL, Problem, Term
from secateur.errors import MissingExtraError, UsageError
from secateur.solvers._at_once import AtOnce
from secateur.solvers._state import State
from secateur.terms import views
from secateur.terms.live import project_live
from secateur.types import Level, Stage

_OFF = 1e-12  # of the importance: what is switched off goes before all the rest, the smallest first
_RIVALS = 3  # of which the second parent is the most different from the first


@dataclass(frozen=True)
class Evolution(AtOnce):
    """A steady-state genetic algorithm over rows and columns, then masked retraining.

    A genome holds one bit for every row and every column of each weight's matrix, and for every coupled channel.
    Weights in a row or a column that is 0 go first, then come the levels of the budget and the nearest member, so that
    every genome is an answer; that of ones alone is one-shot's, and is in the first population. The others have a
    density drawn from (0, 1) each. Parents are a random one and, of three others, the one that is most different; their
    two children (uniform crossover, and sometimes one flipped bit) stay where they are better than the worst. The loss
    is `Problem.trial`; a genome is tried once.

    Args:
        trials: genomes tried, those of the first population too.
        population: genomes kept.
        flip: probability that one bit of a child is flipped.
    Reference: Poyatos et al., EvoPruneDeepTL, Neural Networks 158, 2023, arXiv:2202.03844. There the genome is the
        answer and its ones are free; here the budget says how many weights stay.
    """

    trials: int = 200
    population: int = 30
    flip: float = 0.07
    needs: ClassVar[frozenset[str]] = frozenset({TRIAL})
    reference: ClassVar[str] = "Poyatos et al., EvoPruneDeepTL, arXiv:2202.03844"

    def __post_init__(self) -> None:
        if not 2 <= self.population <= self.trials or not 0 <= self.flip <= 1:
            raise UsageError(
                f"solver evolution: trials={self.trials}, population={self.population}, flip={self.flip}; "
                "2 <= population <= trials and 0 <= flip <= 1 needed"
            )
        if find_spec("deap") is None:
            raise MissingExtraError(
                "solver evolution needs the package deap; install it: pip install 'secateur[search]'"
            )

    def refuses(self, term: Term) -> str | None:
        """What has no support to choose: products of factors, values alone."""
        support = term.constraint.before(Stage.VALUES, None)
        plain = support is not None and support[0].stage == Stage.SUPPORT
        return None if plain else f"evolution chooses which weights stay, and {term.constraint.name} keeps them all"

    def init(self, problem: Problem) -> State:
        """The whole search; the best answer of all is taken."""
        with _seeded(problem.seed):
            levels, near = self.best(_Answers(problem))
        state = State(problem)
        state.levels = levels
        state.show(near)
        state.freeze(state.live)
        return state

    def best(self, answers: _Answers) -> tuple[dict[str, Level], dict[str, Tensor]]:
        """Levels and weights of the best genome."""
        from deap import tools

        kept = [answers.genome(1.0), *(answers.genome(random.random()) for _ in range(self.population - 1))]
        kept.sort(key=answers.loss)
        for _ in range((self.trials - self.population) // 2):
            first = random.choice(kept)
            rivals = random.sample(kept, min(_RIVALS, len(kept)))
            second = max(rivals, key=lambda g: sum(a != b for a, b in zip(first, g, strict=True)))
            children = tools.cxUniform(list(first), list(second), 0.5)
            for child in children:
                if random.random() < self.flip:
                    tools.mutFlipBit(child, 1.0 / len(child))
            kept = sorted([*kept, *children], key=answers.loss)[: self.population]
        return answers.of(kept[0])


class _Answers:
    """What the genomes of a problem mean, and what each loses."""

    def __init__(self, problem: Problem) -> None:
        self.p, self.live = problem, {k: w.detach() for k, w in problem.params.items()}
        self._shapes: dict[str, tuple[int, int]] = {}
        for t in problem.terms:
            rows, cols = views.matrix(t.site, t.constraint.view, self.live).shape
            self._shapes[t.site.name] = rows, 0 if t.site.op == "channels" else cols
        self._importance, self._known = problem.importance(), dict[tuple[int, ...], float]()

    def genome(self, density: float) -> list[int]:
        """Each bit is 1 with this probability."""
        return [int(random.random() < density) for _ in range(sum(map(sum, self._shapes.values())))]

    def of(self, genome: list[int]) -> tuple[dict[str, Level], dict[str, Tensor]]:
        """Levels and weights."""
        bits, h = torch.tensor(genome, dtype=torch.bool), dict[str, Tensor | None]()
        for t in self.p.terms:
            rows, cols = self._shapes[t.site.name]
            row, col, bits = bits[:rows, None], bits[rows : rows + cols], bits[rows + cols :]
            weight, known = views.matrix(t.site, t.constraint.view, self.live), self._importance.get(t.site.name)
            on = (row & col if cols else row).expand(weight.shape).to(weight.device)
            whole = torch.ones_like(weight, dtype=torch.float64) if known is None else known.double()
            h[t.site.name] = whole.where(on, whole * _OFF)
        p = self.p
        return project_live(p.terms, p.allocate, self.live, h, 1.0, p.effective, p.companions)

    def loss(self, genome: list[int]) -> float:
        """Tried once; what is no number is the worst."""
        assert self.p.trial is not None, "asked for in `needs`"
        key = tuple(genome)
        if key not in self._known:
            loss = self.p.trial(self.of(genome)[1])
            self._known[key] = loss if loss == loss else float("inf")
        return self._known[key]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Python's generator, which the library draws from, seeded; its state comes back."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
