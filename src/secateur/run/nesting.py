"""Sets whose levels can be changed at run time, as a run sees them: the loosest level first, the others beside it.

All but the last stage of a run knows the set inside (`peeled`); `run/chain.py` chooses and trains the tighter levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from secateur.budget import kinds
from secateur.contracts import Constraint, Term
from secateur.errors import UsageError
from secateur.types import Level, Limit, Stage


@dataclass(frozen=True)
class Chain:
    """What a recipe asks of the levels of a net.

    Attributes:
        shares: what each tighter level may take of every limit.
        sets: by site, the set of the recipe.
        given: by site, the levels that the recipe gives, from loose to tight.
    """

    shares: tuple[float, ...]
    sets: Mapping[str, Constraint]
    given: Mapping[str, tuple[Level, ...]]

    def at(self, term: Term, held: Level, i: int) -> Term:
        """A term of the loosest level, which is at `held`, as level `i` asks it: only chains move."""
        name = term.site.name
        if name in self.given:
            return replace(term, level=self.given[name][i], given=True)
        return replace(term, level=None, given=False) if name in self.sets else replace(term, level=held, given=True)

    def whole(self, term: Term, loosest: Level, tighter: Sequence[Mapping[str, Level]]) -> tuple[Term, Level]:
        """A term and its level as the recipe names them: all levels of the chain, where it is one."""
        name = term.site.name
        if name not in self.sets:
            return term, loosest
        level = (loosest, *(levels.get(name, loosest) for levels in tighter))
        return replace(term, constraint=self.sets[name].on(term.site)), level


def peeled(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The terms with the loosest level of every chain."""
    return tuple(
        replace(t, constraint=t.constraint.chain[0], level=t.level[0] if isinstance(t.level, tuple) else None)
        if t.constraint.chain
        else t
        for t in terms
    )


def chain_of(terms: Sequence[Term], limits: Sequence[Limit], integers: bool) -> Chain | None:
    """The chain that the terms ask for; None where they ask for none.

    Args:
        integers: does the recipe quantize what layers read?
    Raises:
        UsageError: what a net of several levels cannot have or cannot promise.
    """
    chains = [(t, t.constraint.chain[1]) for t in terms if t.constraint.chain]
    if not chains:
        return None
    shares = {own for _, own in chains}
    others = [t for t in terms if t.constraint.stage != Stage.SUPPORT]
    moved = [x.kind for x in limits if x.kind == kinds.DROP or kinds.meter(x.kind).margin]
    fixed = [kind for kind in kinds.known() if kind != kinds.DROP and not kinds.meter(kind).margin]
    why = None
    if len(shares) > 1:
        why = f"the sets name different shares ({', '.join(str(list(s)) for s in sorted(shares))}); name the same"
    elif others:
        why = f"{others[0].site.name} has values or a form of its own ({others[0].constraint.name}); use sets of zeros"
    elif integers:
        why = "activations on grids would need a scale for each level; leave `quantize` out"
    elif moved:
        why = f"a budget of {moved[0]} cannot be held at every level; limit {', '.join(fixed)} instead"
    elif not limits and not all(t.given for t, _ in chains):
        why = "no limit says where the levels lie; give a budget, or level: {sparsity: [...]} with a value for each"
    if why:
        raise UsageError(f"constrain: nested: {why}")
    given = {t.site.name: t.level for t, _ in chains if isinstance(t.level, tuple)}
    return Chain(next(iter(shares)), {t.site.name: t.constraint for t, _ in chains}, given)
