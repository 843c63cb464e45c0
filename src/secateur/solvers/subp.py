"""SUBP: blocks from scratch; redundant ones go softly, and come back by chance while the sparsity grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secateur import schedules
from secateur.contracts import Problem, Solver, Term
from secateur.errors import UsageError
from secateur.solvers._regrow import filled, not_free, period
from secateur.solvers._straight import Latent
from secateur.terms import views
from secateur.terms.frozen import Frozen
from secateur.types import Bands, Solution


@dataclass(frozen=True)
class SUBP(Solver):
    """Soft uniform block pruning: redundant blocks go, and come back by chance while the level tightens.

    At every update the blocks that the final level allows are chosen by score, and others are drawn to fill today's
    level. The optimizer's steps go to dense weights behind the net; those of blocks that are away decay.

    Score of a block among those of its band of rows: its share of sum |w|, less `alpha` times its share of the overlap
    sum_j |cos(b_i, b_j)|: large blocks matter, and such as point where no other does. Drawn without replacement, with
    chances softmax(score / temperature), scores in units of their spread. The level goes from dense to the final one
    between `start` and `end`; after that the blocks stay. For sets of blocks, several to a band of rows; where the
    band has a number of its own (`blocks: {per_row: true}`) work is balanced, as in the paper.

    Args:
        every: steps between two updates (an epoch in the paper); None: 100, and fewer where that would be less than
            ten updates.
        start, end: share of the steps where the level begins to move, and where it has arrived.
        schedule: name of the schedule in between.
        decay: of the weights of blocks that are away, in the gradient.
    Reference: Xiang et al., SUBP, NeurIPS 2023, arXiv:2310.06218, sec. 3.
    """

    alpha: float = 1.0
    temperature: float = 1.0
    decay: float = 2e-4
    every: int | None = None
    start: float = 0.04
    end: float = 0.72
    schedule: str = "linear"
    reference: ClassVar[str] = "Xiang et al., SUBP, NeurIPS 2023, arXiv:2310.06218"

    def __post_init__(self) -> None:
        counted = (self.every is None or self.every >= 1) and self.alpha >= 0 and self.decay >= 0
        if not counted or self.temperature <= 0 or not 0 <= self.start < self.end <= 1:
            raise UsageError(
                f"solver subp: alpha={self.alpha}, temperature={self.temperature}, decay={self.decay}, every="
                f"{self.every}, start={self.start}, end={self.end}; every >= 1, alpha and decay >= 0, temperature > 0 "
                "and 0 <= start < end <= 1 needed"
            )
        schedules.get(self.schedule)

    def refuses(self, term: Term) -> str | None:
        """What has no blocks beside one another: their angles are the score."""
        if why := not_free("subp", term):
            return why
        bands = _bands(term)
        if bands is not None and int(bands.cols.max()) > 0:
            return None
        return f"subp scores blocks beside one another by their angles, and {term.constraint.name} has none"

    def init(self, problem: Problem) -> Latent:
        """Nothing is pruned yet."""
        return Latent(problem)

    def penalty(self, state: Latent) -> Tensor | float:
        """The decay of what is away; its value is zero."""
        return state.pull(self.decay)

    def step(self, state: Latent) -> Latent:
        """The dense weights make the optimizer's step; new blocks when it is time."""
        state.follow()
        state.advance()
        begin, end = (round(share * state.problem.total_steps) for share in (self.start, self.end))
        every = period(self.every, end - begin)
        if begin < state.n <= end and ((state.n - begin) % every == 0 or state.n == end):
            self._update(state, schedules.get(self.schedule)((state.n - begin) / (end - begin)))
        else:
            state.show(state.candidate(state.latent))
        return state

    def finish(self, state: Latent) -> Solution:
        """The blocks of the final level (there already unless the run was cut short)."""
        if state.n < round(self.end * state.problem.total_steps) or state.frozen is None:
            self._update(state, 1.0)
        return state.solution()

    def _update(self, state: Latent, tightness: float) -> None:
        """Blocks for this tightness, and the weights in them."""
        p, final = state.problem, state.project(1.0, state.latent)[0]
        draws = torch.Generator().manual_seed(p.seed * 1_000_003 + state.n)
        scores: dict[str, Tensor] = {}
        chances: dict[str, Tensor] = {}
        for term in (t for t in p.terms if final[t.site.name] is not None):
            bands, view = _bands(term), term.constraint.view
            assert bands is not None
            score = angular(views.matrix(term.site, view, state.latent), bands, self.alpha)
            low, high = float(score.min()), float(score.max())
            ranked = (score - low) / (high - low or 1.0) + 1e-3
            for found, value in ((scores, ranked), (chances, drawn(score, self.temperature, draws))):
                found |= views.write(term.site, view, state.latent, _spread(value, bands))
        nothing = {k: torch.zeros_like(v, dtype=torch.bool) for k, v in scores.items()}
        near = filled(p, final, nothing, scores)
        state.levels = final
        if tightness < 1.0:
            masks = Frozen(p.terms, final, {**state.latent, **near}).masks
            state.levels = state.project(tightness, state.latent)[0]
            near = filled(p, state.levels, {k: masks[k] != 0 for k in scores}, chances)
        state.shown(near)


def angular(weight: Tensor, bands: Bands, alpha: float) -> Tensor:
    """Block angular redundancy, higher = more important: the score of every block, [bands of rows, bands of columns].

    Blocks smaller than others (edges) are filled up with zeros; a block of zeros overlaps with all.
    """
    (row, in_row), (col, in_col) = ((band, _place(band)) for band in (bands.rows, bands.cols))
    high, wide = int(row.max()) + 1, int(col.max()) + 1
    tall, broad = int(in_row.max()) + 1, int(in_col.max()) + 1
    blocks = weight.new_zeros(high, wide, tall * broad)
    blocks[row[:, None], col[None], in_row[:, None] * broad + in_col[None]] = weight
    norm = blocks.norm(dim=2, keepdim=True)
    unit = blocks / norm.clamp(min=torch.finfo(weight.dtype).tiny)
    overlap = torch.stack([(u @ u.T).abs().sum(1) for u in unit])
    overlap = overlap.masked_fill(norm[..., 0] == 0, float(wide))
    size = blocks.abs().sum(2)
    tiny = torch.finfo(weight.dtype).tiny
    return size / size.sum(1, keepdim=True).clamp(min=tiny) - alpha * overlap / overlap.sum(1, keepdim=True)


def drawn(score: Tensor, temperature: float, draws: torch.Generator) -> Tensor:
    """Numbers in (0, 1] whose k largest are a draw of k without replacement, chances softmax(score / temperature)."""
    uniform = torch.rand(score.shape, generator=draws, dtype=torch.float64).clamp(min=1e-300)
    spread = score.double() / max(float(score.double().std(correction=0)), 1e-300)
    perturbed = (spread / temperature).cpu() - (-uniform.log()).log()  # Gumbel: the largest k are such a draw
    rank = perturbed.flatten().argsort().argsort() + 1
    return (rank / rank.numel()).view(score.shape).to(score)


def _bands(term: Term) -> Bands | None:
    return term.constraint.blocks(views.shape(term.site, term.constraint.view, {}))


def _place(band: Tensor) -> Tensor:
    """Of each line its place among those of its band."""
    order = band.argsort(stable=True)
    starts = torch.bincount(band).cumsum(0) - torch.bincount(band)
    place = torch.empty_like(band)
    place[order] = torch.arange(len(band)) - starts[band[order]]
    return place


def _spread(value: Tensor, bands: Bands) -> Tensor:
    """The matrix whose blocks' sums of squares are these values."""
    n = torch.outer(torch.bincount(bands.rows), torch.bincount(bands.cols)).to(value)
    return (value / n).sqrt()[bands.rows][:, bands.cols]
