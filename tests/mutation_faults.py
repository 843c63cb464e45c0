"""The faults of `mutation.py`: one wrong thing each, and the tests that must notice it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """`old`, which stands once in `file`, becomes `new`; `tests` are pytest's arguments."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def compiled(self) -> bool:
        """Is it in C++, so that the module must be built?"""
        return self.file.endswith((".cc", ".h"))


def _room(folder: str, default: tuple[str, ...], *faults: tuple[str, ...]) -> list[Fault]:
    """Faults of one room: (name, file, old, new, tests...); without tests of its own a fault takes the default ones."""
    return [Fault(f"{folder}: {n}", f"src/secateur/{f}", a, b, tuple(t) or default) for n, f, a, b, *t in faults]


def _laws(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/constraints/test_conformance.py::test_laws[{n}]" for n in names)


_VERIFY, _SPENDING, _ADMM = "tests/test_verify.py", "tests/test_spending.py", "tests/solvers/test_admm.py"
_OBS, _INPUTS, _WANDA = (
    "tests/solvers/test_obs.py",
    "tests/training/test_inputs.py",
    "tests/saliencies/test_saliencies.py",
)
_MASKS = "tests/solvers/test_"
_LOSS = "tests/training/test_sensitivity.py"
_RIGL, _SET, _AST = "tests/solvers/test_rigl.py", "tests/solvers/test_set.py", "tests/solvers/test_ast.py"
_LOTTERY, _SUBP, _SCRATCH = "tests/solvers/test_lottery.py", "tests/solvers/test_subp.py", "tests/test_scratch.py"
_SOLVERS, _SR_STE = "tests/solvers/test_conformance.py", "tests/solvers/test_sr_ste.py"
_NEW = "tests/solvers/test_{}.py"
_SSVI = _NEW.format("ssvi")
_METERS = "tests/budget/test_meters.py"
_LOOP, _STEPS = "tests/training/test_loop.py", "tests/solvers/test_steps.py"

CONSTRAINTS = _room(
    "constraints",
    (),
    (
        "top-k keeps one less",
        "constraints/topk.py",
        "lv.keep_largest(lv.scores(weight, importance).flatten(), level)",
        "lv.keep_largest(lv.scores(weight, importance).flatten(), max(level - 1, 0))",
        *_laws("topk-0"),
    ),
    (
        "top-k contains one more",
        "constraints/topk.py",
        "int(weight.count_nonzero()) <= level",
        "int(weight.count_nonzero()) <= level + 1",
        *_laws("topk-0"),
    ),
    (
        "top-k promises one less",
        "constraints/topk.py",
        "return Packing(n, n if level is None else level)",
        "return Packing(n, n if level is None else max(level - 1, 0))",
        *_laws("topk-0"),
    ),
    (
        "gather-scatter: a row takes one weight too many of a group",
        "constraints/gather_scatter.py",
        "room_r = np.repeat(self.per_row * np.arange(1, n + 1)",
        "room_r = np.repeat(1 + self.per_row * np.arange(1, n + 1)",
        *_laws("gather_scatter-1"),
    ),
    (
        "gather-scatter: banks are not counted",
        "constraints/gather_scatter.py",
        "(rows + self.per_row - 1) // self.per_row, banks)",
        "(rows + self.per_row - 1) // self.per_row, 0 * banks)",
        "tests/constraints/test_gather_scatter.py",
    ),
    (
        "crossbar: columns of all arrays one above the other go together",
        "constraints/crossbar.py",
        "return row, torch.arange(shape[1])",
        "return 0 * row, torch.arange(shape[1])",
        *_laws("crossbar-0"),
    ),
    (
        "N:M keeps one more",
        "constraints/nm.py",
        "order[:, level:], True",
        "order[:, level + 1 :], True",
        *_laws("nm-0"),
    ),
    (
        "N:M is content with one good group",
        "constraints/nm.py",
        "(self._groups(weight).count_nonzero(dim=1) <= level).all()",
        "(self._groups(weight).count_nonzero(dim=1) <= level).any()",
        *_laws("nm-0"),
    ),
    (
        "N:M curve is one level off",
        "constraints/nm.py",
        "float(dropped[self.m - level])",
        "float(dropped[max(self.m - level - 1, 0)])",
        *_laws("nm-0"),
    ),
    (
        "groups by the sum of magnitudes",
        "constraints/_groups.py",
        "self._kept(self._sums(lv.gains(weight, importance)), level, weight)",
        "self._kept(self._sums(lv.scores(weight, importance)), level, weight)",
        *_laws("rows-0"),
    ),
    (
        "groups with one weight do not count",
        "constraints/_groups.py",
        "there = self._sums((weight != 0).double()) > 0",
        "there = self._sums((weight != 0).double()) > 1",
        *_laws("rows-0"),
    ),
    (
        "a kept group's zeros are frozen",
        "constraints/_groups.py",
        "return self._spread(self._sums((weight != 0).double()) > 0, weight)",
        "return weight != 0",
        "tests/constraints/test_rows.py",
    ),
    (
        "score h |w|",
        "constraints/_levels.py",
        "size * importance.detach().double().sqrt()",
        "size * importance.detach().double()",
        *_laws("topk-0"),
    ),
    (
        "negative zeros stay",
        "constraints/_levels.py",
        "weight.masked_fill(dropped, 0.0).add_(0.0)",
        "weight.masked_fill(dropped, 0.0)",
        *_laws("topk-0"),
    ),
    (
        "one negative importance passes",
        "constraints/_levels.py",
        "if bool((importance < 0).any()):",
        "if bool((importance < 0).all()):",
        *_laws("topk-0"),
    ),
    (
        "uniform rounds down",
        "constraints/uniform.py",
        "codes = np.clip(np.ceil(ratio - 0.5)",
        "codes = np.clip(np.floor(ratio)",
        *_laws("uniform-0"),
    ),
    (
        "uniform has a code too many",
        "constraints/uniform.py",
        'return (1 << (level - 1)) - (self.zero == "level")',
        "return 1 << (level - 1)",
        *_laws("uniform-0"),
        "tests/constraints/test_uniform.py",
    ),
    (
        "codebook contains one value more",
        "constraints/codebook.py",
        'most + 1 if self.zero == "free" else most',
        "most + 1",
        *_laws("codebook-0"),
    ),
    (
        "halfway goes to the higher value",
        "constraints/_kmeans.py",
        '/ 2, side="right")',
        '/ 2, side="left")',
        *_laws("codebook-0"),
        "tests/constraints/test_codebook.py",
    ),
    (
        "joint sets: the values of all weights, not of the kept",
        "constraints/_kmeans.py",
        "        at = kept[self._order]\n",
        "        at = kept[self._order] | True\n",
        *_laws("codebook-0"),
    ),
    (
        "joint sets: gains that are none are kept",
        "constraints/topk.py",
        "            return won\n",
        "            return won | True\n",
        *_laws("topk-0"),
    ),
    (
        "a cluster's value is its first",
        "constraints/_pieces.py",
        "out[kept] = (start + total / sizes)[labels]",
        "out[kept] = start[labels]",
        *_laws("codebook-0"),
    ),
    (
        "following holds the old scale",
        "constraints/_pieces.py",
        "            scale = self._scale(matrix, codes)\n",
        "",
        "tests/constraints/test_uniform.py",
    ),
    (
        "joint: quantise then prune is not tried",
        "constraints/all_of.py",
        "        ends.append(turns.descended(turns.regained(turns.rounded(torch.ones_like(kept)))))\n",
        "",
        *_laws("all_of-0", "all_of-1"),
        "tests/constraints/test_all_of.py",
    ),
    (
        "joint: one part is enough",
        "constraints/all_of.py",
        "return all(p.contains(weight, part)",
        "return any(p.contains(weight, part)",
        *_laws("all_of-0"),
    ),
)

SOLVERS = _room(
    "solvers",
    (_ADMM,),
    ("dual with the wrong sign", "solvers/admm.py", "self.u[k] + live[k] - z", "self.u[k] - live[k] + z"),
    (
        "dual is not rescaled",
        "solvers/admm.py",
        "self.u[k] * (self.rho[k] / rho) if",
        "self.u[k] if",
    ),
    (
        "pull without its denominator",
        "solvers/admm.py",
        "live[k].lerp_(target, a / (1.0 + a))",
        "live[k].lerp_(target, min(a, 1.0))",
    ),
    ("target Z + U", "solvers/admm.py", "copy_(self.z[k] - self.u[k])", "copy_(self.z[k] + self.u[k])"),
    ("rho never reaches its end", "solvers/admm.py", "** (r / (n - 1)) if", "** (r / n) if", _ADMM, _STEPS),
    ("penalty twice as strong", "solvers/admm.py", "total + 0.5 * self.rho[k]", "total + self.rho[k]"),
    (
        "resume forgets the round",
        "solvers/admm.py",
        'State.unsaved | {"solver"}',
        'State.unsaved | {"solver", "round"}',
    ),
    (
        "resume forgets the structure",
        "solvers/_state.py",
        'if facts["held"]:',
        'if not facts["held"]:',
        f"{_SOLVERS}::test_laws[one_shot]",
    ),
    ("nothing makes up for what goes", "solvers/obs.py", "w[..., j:end] -= gone", "w[..., j:j] -= gone", _OBS),
    (
        "later blocks do not make up for what goes",
        "solvers/obs.py",
        "w[..., end:] -= error",
        "w[..., end:] -= 0 * error",
        _OBS,
    ),
    (
        "sets of whole rows are not refused",
        "solvers/_layerwise.py",
        'part.unit == "row"',
        'part.unit == "no such unit"',
        _OBS,
    ),
    (
        "what is settled is chosen anew",
        "solvers/obs.py",
        "held[..., at:end] = kept",
        "held[..., at:end] = ~kept",
        _OBS,
    ),
    (
        "the dual forgets",
        "solvers/layerwise_admm.py",
        "u, before = u + w - z, rho",
        "u, before = w - z, rho",
        "tests/solvers/test_layerwise_admm.py",
    ),
    (
        "weights that cannot matter keep their place",
        "solvers/_layerwise.py",
        "if not (found := _dead(state)):",
        "if not (found := {}):",
        _OBS,
    ),
    (
        "a contest takes the worst setting on validation",
        "reproduce/contest.py",
        "name = max(valid",
        "name = min(valid",
        "tests/reproduce/test_contest.py",
    ),
    (
        "judging counts as a step",
        "reproduce/cost.py",
        "done + 1 and not judged",
        "done + 1",
        "tests/reproduce/test_contest.py",
    ),
    (
        "the draw with the most loss is taken",
        "solvers/random_search.py",
        "(loss := problem.trial(drawn)) < best:",
        "-(loss := problem.trial(drawn)) < best:",
        "tests/solvers/test_random_search.py",
    ),
    (
        "a trial leaves other weights in the net",
        "training/trial.py",
        "for name, value in before.items():",
        "for name, value in ():",
        "tests/solvers/test_random_search.py",
    ),
    (
        "columns that are off do not go first",
        "solvers/evolution.py",
        "(row & col if cols else row)",
        "row",
        "tests/solvers/test_evolution.py",
    ),
    ("groups see each other's inputs", "training/inputs.py", "layer.groups, -1, columns", "1, -1, columns", _INPUTS),
    (
        "biases are corrected the wrong way",
        "training/bias.py",
        "found[name] - wanted[name]",
        "wanted[name] - found[name]",
        "tests/training/test_bias.py",
    ),
    (
        "an answer is written without a look",
        "training/phases.py",
        "feasible.contains(touched, answer.levels",
        "feasible.contains((), answer.levels",
        "tests/training/test_bias.py",
    ),
    (
        "a point holds what the one before held",
        "solvers/one_shot.py",
        "self.depth[k] <= i",
        "self.depth[k] < i",
        f"{_SOLVERS}::test_laws_with_short_rounds[one_shot]",
    ),
    (
        "what comes back has momentum",
        "solvers/_regrow.py",
        "g.masked_fill_(~held[k], 0.0)",
        "g.masked_fill_(~held[k], 1.0)",
        _RIGL,
    ),
    ("what stays competes with what comes", "solvers/_regrow.py", "(stays, _SURE)", "(stays, _LEAST)", _RIGL),
    ("the part that goes never ends", "solvers/rigl.py", "(1 + math.cos(math.pi * n / end))", "2", _RIGL),
    ("the means keep a draw's noise", "solvers/_posterior.py", "live[k] - self.noise[k]", "live[k]", _SSVI),
    ("widths feel no curvature", "solvers/_posterior.py", "p.grad * self.noise[k] / sigma +", "0 * sigma +", _SSVI),
    ("what comes has the width it had", "solvers/ssvi.py", ".where(~came, wide)", ".where(~came, state.rho[k])", _SSVI),
    ("signs are not told apart", "solvers/set.py", "for sign in (w > 0, w < 0):", "for sign in (w != 0,):", _SET),
    ("old weights are drawn anew", "solvers/set.py", ".where(old | ~held[k], drawn", ".where(~held[k], drawn", _SET),
    ("gradients are not corrected", "solvers/ast.py", "if bool(along < 0) and", "if bool(along < -9) and", _AST),
    ("turns never end", "solvers/ast.py", "if goes_on else {}", "if self.n_levels > 1 else {}", _AST),
    ("what waits moves", "solvers/ast.py", "self.full[k].where(waits, now)", "now.clone()", _AST),
    (
        "nothing is rewound",
        "solvers/lottery.py",
        'state.early if self.back_to == "early" else',
        'state.live if self.back_to == "early" else',
        _LOTTERY,
    ),
    (
        "the early moment is the start",
        "solvers/lottery.py",
        "if state.n == round(self.rewind",
        "if state.n == round(-1 * self.rewind - 1",
        _LOTTERY,
    ),
    ("angles do not count", "solvers/subp.py", "- alpha * overlap /", "- 0 * overlap /", _SUBP),
    (
        "any block comes back as likely",
        "solvers/subp.py",
        "perturbed = (spread / temperature)",
        "perturbed = (0 * spread)",
        _SUBP,
    ),
    (
        "the meter of supports counts half",
        "solvers/_straight.py",
        "(now - self.sad) / memory",
        "(now - self.sad) / 2 / memory",
        _SR_STE,
    ),
    (
        "from scratch begins with the dense net",
        "run/search.py",
        "load_weights(module, job.untrained)",
        "load_weights(module, {})",
        _SCRATCH,
    ),
    (
        "readers of other rows are a group's",
        "graph/tracing.py",
        "if name in behind & (columns | depthwise))",
        "if name in behind)",
        "tests/graph/test_readers.py",
    ),
    (
        "readers behind readers are readers",
        "graph/tracing.py",
        "weights or ahead.get(user, set())",
        "weights | ahead.get(user, set())",
        "tests/graph/test_readers.py",
    ),
    (
        "all the range goes to the rows",
        "run/equalize.py",
        "(read / made).sqrt()",
        "(read / made)",
        "tests/test_equalize.py",
    ),
    (
        "the Gram matrix is halved",
        "training/inputs.py",
        "return 2.0 * self._mean(",
        "return 1.0 * self._mean(",
        _INPUTS,
    ),
    ("wanda without the inputs", "saliencies/wanda.py", "else norm.square()", "else norm * 0 + 1", _WANDA),
    (
        "what is going is not pulled",
        "solvers/reweighted.py",
        "weights.masked_fill(kept, 0.0)",
        "weights.masked_fill(~kept, 0.0)",
        _NEW.format("reweighted"),
    ),
    (
        "a channel goes without its norm",
        "solvers/_units.py",
        "return replace(site, members=(*site.members, *beside))",
        "return site",
        _NEW.format("reweighted"),
    ),
    (
        "growth is not answered",
        "solvers/half_space.py",
        "(self.amplify * grows).maximum(quiet)",
        "quiet",
        _NEW.format("half_space"),
    ),
    (
        "what has left its half-space comes back",
        "solvers/half_space.py",
        "going & (live[k] == 0)",
        "going & (live[k] != live[k])",
        _NEW.format("half_space"),
    ),
    (
        "the score keeps what shrinks",
        "solvers/hesso.py",
        "1 + along / (size * step)",
        "1 - along / (size * step)",
        _NEW.format("hesso"),
    ),
    (
        "CRIC leaves the weights faded",
        "solvers/hesso.py",
        "state.show(state.saved)",
        "state.show({})",
        _NEW.format("hesso"),
    ),
    (
        "the envelope's corner one too early",
        "solvers/wgsef.py",
        "float(k))) - 1",
        "float(k))) - 2",
        _NEW.format("wgsef"),
    ),
    (
        "all scales are pulled",
        "solvers/mask_sparsity.py",
        "shrunk.where(state.going[k], live[k])",
        "shrunk",
        _NEW.format("mask_sparsity"),
    ),
    (
        "positive weights go first",
        "solvers/activating.py",
        "masked_fill(w >= 0, torch.inf)",
        "masked_fill(w <= 0, torch.inf)",
        _NEW.format("activating"),
    ),
    ("curvature without the signs", "training/sensitivity.py", "total[name] += z * hz", "total[name] += hz", _LOSS),
    ("Fisher of whole batches", "training/sensitivity.py", "for x in examples(batch))", "for x in [batch])", _LOSS),
    (
        "movement with the wrong sign",
        "training/calibration.py",
        "gain = -p.detach() * p.grad.detach()",
        "gain = p.detach() * p.grad.detach()",
        _LOSS,
    ),
    (
        "snip follows the weights",
        "saliencies/snip.py",
        "score.square() / weight.detach().double().square().clamp(min=TINY)",
        "score.square()",
        _WANDA,
    ),
    (
        "pruned weights move behind a learned mask",
        "solvers/_masks.py",
        "self.frozen.mask_(moved)",
        "moved = dict(moved)",
        _MASKS + "scl.py",
    ),
    ("gains are not balanced", "solvers/scl.py", "in balanced(gains).items()", "in gains.items()", _MASKS + "scl.py"),
    (
        "a gate gains nothing by its norm",
        "solvers/_masks.py",
        "one = one + views.matrix(alone, view, beside)",
        "one = one + 0 * views.matrix(alone, view, beside)",
        _MASKS + "pbt.py",
    ),
    (
        "the slope of a gate does not narrow",
        "solvers/pbt.py",
        "s = sharpness(state, self.sharpness, self.settle)",
        "s = 1.0",
        _MASKS + "pbt.py",
    ),
    ("attention learns straight through", "solvers/abp.py", "gates[k] * (1.0 - gates[k])", "0.25", _MASKS + "abp.py"),
    ("one Gumbel draw a gate", "solvers/gumbel.py", "(u.log() - (-u).log1p())", "u.log()", _MASKS + "gumbel.py"),
    ("no gate stays closed", "solvers/gumbel.py", "d < -self.margin", "d < -1e9", _MASKS + "gumbel.py"),
    (
        "sspq goes on choosing",
        "solvers/sspq.py",
        "(state.n < end and state.n % self.every == 0)",
        "state.n % self.every == 0",
        _MASKS + "sspq.py",
    ),
    ("pruned weights do not decay", "solvers/_straight.py", "return strength * sum(", "return 0.0 * sum(", _SR_STE),
    (
        "pruned weights do not follow the gradient",
        "solvers/_straight.py",
        "w + (live[k] - held[k])",
        "held[k] + (live[k] - held[k])",
        _SR_STE,
    ),
    (
        "the average follows what the net shows",
        "solvers/_straight.py",
        "return self.latent\n",
        "return self.live\n",
        _SR_STE,
    ),
    (
        "ramp over the whole stage",
        "solvers/gradual.py",
        "end = max(min(round(self.ramp * stage.length), stage.length - 1), 1)",
        "end = max(stage.length - 1, 1)",
        _STEPS,
    ),
    (
        "pruned weights come back",
        "solvers/gradual.py",
        "            state.hold()\n",
        "            pass\n",
        _STEPS,
    ),
    (
        "gradual prunes everything at its first step",
        "solvers/gradual.py",
        "share = schedules.get(self.schedule)(inside / end)",
        "share = 1.0",
        _STEPS,
    ),
    (
        "gradual ends short of its target",
        "solvers/gradual.py",
        "        state.land(1.0)\n",
        "        state.land(0.5)\n",
        _STEPS,
    ),
    (
        "one-shot does not hold its support",
        "solvers/_at_once.py",
        "        state.hold()\n",
        "",
        _STEPS,
    ),
    (
        "stages all begin dense",
        "solvers/_stages.py",
        "        at, low = stop, end\n",
        "        at = stop\n",
        _STEPS,
    ),
    ("cubic is square", "schedules.py", "(1.0 - clamp(progress)) ** 3", "(1.0 - clamp(progress)) ** 2", _STEPS),
    (
        "the living are called dead",
        "terms/live.py",
        "useless = (w != 0) & ~alive[name]",
        "useless = (w != 0) & alive[name]",
        _STEPS,
    ),
    (
        "the dead are not refilled",
        "terms/live.py",
        "if n_dead == 0 or attempt == refills or",
        "if True or",
        _STEPS,
    ),
    (
        "two masks: the later one wins",
        "terms/frozen.py",
        "self.masks[name] * same_strides if",
        "same_strides if",
        _STEPS,
    ),
)

TRAINING = _room(
    "training",
    (_LOOP,),
    (
        "snap never freezes",
        "training/phases.py",
        "if self.n > self.freeze_at:",
        "if self.n > self.total_steps:",
        _LOOP,
        _STEPS,
    ),
    (
        "average of the last step only",
        "training/average.py",
        "(1 + self.n) / (10 + self.n)",
        "0.0 * self.n",
        _LOOP,
        _STEPS,
    ),
    (
        "the average uses 1 - decay",
        "training/average.py",
        "for k in floating], 1.0 - keep)",
        "for k in floating], keep)",
        _LOOP,
        _STEPS,
    ),
    (
        "Compressor keeps its worst point",
        "api/own_loop.py",
        "if self._metric is None or metric > self._metric:",
        "if self._metric is None or metric < self._metric:",
        "tests/test_api.py",
    ),
    (
        "polish skipped",
        "run/attempt.py",
        "    if plan.polish > 0:\n        stages.held(",
        "    if plan.polish > 2:\n        stages.held(",
        "tests/test_api.py",
    ),
    ("the last point is the best", "training/loop.py", "return self.s.better(metric, self.metric)", "return True"),
    (
        "better is worse",
        "training/loop.py",
        "a > b if self.higher_is_better else a < b",
        "a > b",
        "tests/test_api.py::test_a_regression_with_two_inputs",
    ),
    ("temperature unsquared", "objectives/distillation.py", "self.temperature**2 * kl", "self.temperature * kl"),
    (
        "teacher of random weights",
        "run/stages.py",
        "        job.setting.teacher = job.dense\n",
        "        job.setting.teacher = copied(job.dense)\n"
        "        for m in job.setting.teacher.modules():\n"
        "            getattr(m, 'reset_parameters', int)()\n",
        "tests/test_api.py::test_distillation_learns_from_the_dense_net_itself",
    ),
    (
        "an error that rises is a gain",
        "run/job.py",
        "return gap if self.setting.higher_is_better else -gap",
        "return gap",
        "tests/test_api.py::test_an_error_that_rose_too_much_is_refused",
    ),
    (
        "every drop is accurate enough",
        "run/search.py",
        "return job.drop_limit is None or job.drop(candidate.metric) <= job.drop_limit + _SLACK",
        "return True",
        "tests/test_api.py::test_an_error_that_rose_too_much_is_refused",
    ),
    (
        "checkpoints unchecked",
        "training/checkpoint.py",
        "        _check_digest(raw)\n",
        "",
        "tests/test_resume.py::test_every_flipped_bit_of_a_checkpoint_is_one_clear_sentence",
    ),
    (
        "any recipe takes up a checkpoint",
        "training/checkpoint.py",
        'if facts["key"] != self._key:',
        'if facts["key"] == "":',
        "tests/test_resume.py::test_another_recipe_may_not_take_up_a_checkpoint",
    ),
)

_ALLOCATE, _MENUS = "tests/budget/test_allocate.py", "tests/budget/test_menus.py"
_PARETO = "tests/budget/test_pareto.py"
BUDGET = _room(
    "budget",
    (_PARETO, _ALLOCATE, _MENUS),
    (
        "one unit too few",
        "budget/one_pool.py",
        "int(budget / paying.pop() + 1e-9)",
        "int(budget / paying.pop() - 1e-9)",
    ),
    ("left-over goes by gain alone", "budget/one_pool.py", "following[i] / prices[i], -i", "following[i], -i"),
    (
        "ties to the later site",
        "budget/one_pool.py",
        "extra = min(left, int((p == threshold).sum()))",
        "extra = min(left, int((p == threshold).sum())) if i else 0",
    ),
    (
        "given sites are free",
        "budget/allocate.py",
        "                target -= priced(t, shape, t.level, meters)\n",
        "                pass\n",
    ),
    (
        "straight way to the target",
        "budget/allocate.py",
        "dense ** (1.0 - tightness) * target**tightness",
        "dense * (1.0 - tightness) + target * tightness",
    ),
    (
        "the fixed part is free",
        "budget/allocate.py",
        "limit.value - self.fixed.get(limit.kind, 0.0) for limit",
        "limit.value for limit",
        _ALLOCATE,
        _SPENDING,
    ),
    (
        "inputs of a crossbar do not move together",
        "budget/meters/crossbars.py",
        "int((band != 0).any(0).sum())",
        "int((band != 0).any() * band.shape[1])",
        _METERS,
    ),
    ("MACs without positions", "budget/meters/macs.py", "float(packing.nnz) * site.positions", "float(packing.nnz)"),
    (
        "no dense fallback",
        "budget/meters/nbytes.py",
        "min(packing.estimate, 4.0 * packing.n + 2.0)",
        "packing.estimate",
    ),
    (
        "one limit held is enough",
        "budget/pareto.py",
        "(better > 0) & (extra <= left).all(axis=1)",
        "(better > 0) & (extra <= left).any(axis=1)",
    ),
    (
        "five per cent over is within",
        "budget/pareto.py",
        "over = _spent(sites, choice) > budgets",
        "over = _spent(sites, choice) > 1.05 * budgets",
    ),
    ("nothing is filled up", "budget/pareto.py", "in range(64 + 8 * len(sites)):", "in range(0):"),
    ("layers may be cut off", "budget/menus.py", "menu[min(at_least, len(menu) - 1) :] if", "menu if"),
    (
        "no margin for trained values",
        "budget/fit.py",
        "return limit.value * (1 - kinds.meter(limit.kind).margin)",
        "return limit.value",
        _SPENDING,
    ),
    (
        "the emptiest answer is best",
        "budget/fit.py",
        "if best is None or now > used or",
        "if best is None or now < used or",
        _SPENDING,
    ),
    (
        "a missed budget is met",
        "budget/purse.py",
        "if sizes[limit.kind] > limit.value:",
        "if sizes[limit.kind] > 2 * limit.value:",
        _SPENDING,
    ),
    (
        "the last check of a budget is left out",
        "run/attempt.py",
        "    purse.check({**net.costs(",
        "    ({**net.costs(",
        _SPENDING,
        "tests/test_api.py",
    ),
    (
        "zeros in place lower parameters",
        "budget/meters/params.py",
        'packing.nnz if site.op == "channels" else packing.n',
        "packing.nnz",
        _METERS,
    ),
    (
        "biases are priced as nonzeros",
        "budget/meters/nnz.py",
        '0.0 if site.op in ("bias", "norm") else float(packing.nnz)',
        "float(packing.nnz)",
        _METERS,
    ),
    (
        "bytes come last",
        "budget/kinds.py",
        '_ORDER = ("values", "channels", "weights")',
        '_ORDER = ("weights", "channels", "values")',
        _METERS,
    ),
    ("dead weights are room", "budget/purse.py", "alive and (kinds", "(kinds", _SPENDING),
    (
        "a refusal counts as fixed what dies with units",
        "budget/purse.py",
        "(meter.on_machine and not alive)",
        "meter.on_machine",
        "tests/test_latency.py",
    ),
)

FORMATS = _room(
    "formats",
    ("tests/formats/test_formats.py",),
    (
        "the size law without its constant",
        "formats/container.py",
        "math.ceil(1.03 * self.bound_nbytes) + 32",
        "math.ceil(1.03 * self.bound_nbytes)",
    ),
    ("int8 arrays measured as uint8", "formats/container.py", '"int8": 3', '"int8": 2'),
    (
        "sections in bits",
        "formats/container.py",
        'bound_nbytes=s["bound_bits"] / 8, shape',
        'bound_nbytes=s["bound_bits"], shape',
        "tests/formats",
    ),
    (
        "the longer of two codings",
        "export/written.py",
        "        return min(map(formats.pack, files), key=len)\n",
        "        return max(map(formats.pack, files), key=len)\n",
        "tests/test_api.py::test_uniform_levels_are_int8_in_the_onnx_file_and_cost_no_byte_more",
    ),
    (
        "the limit on what a file decodes to is dropped",
        "formats/container.py",
        "sct_unpack(bytes(sct), limit, level)",
        "sct_unpack(bytes(sct), LIMIT, level)",
        "tests/malformed/test_sct.py",
    ),
)

VERIFY = _room(
    "verify",
    (_VERIFY,),
    (
        "always passes",
        "proof/verify.py",
        'passed = all(c["passed"] is not False for c in checks.rows)',
        "passed = True",
        f"{_VERIFY}::test_a_claimed_size_that_is_not_the_files",
    ),
    (
        "tolerance a thousandfold",
        "proof/agreement.py",
        "tolerance = SLACK * rounding + FLOOR",
        "tolerance = 1e3 * SLACK * rounding + 1e3 * FLOOR",
        f"{_VERIFY}::test_the_tolerance_is_a_few_roundings_of_the_net",
    ),
    (
        "tolerance tenfold",
        "proof/agreement.py",
        "tolerance = SLACK * rounding + FLOOR",
        "tolerance = 10 * SLACK * rounding + 10 * FLOOR",
        f"{_VERIFY}::test_the_tolerance_is_a_few_roundings_of_the_net",
    ),
    (
        "outputs not judged",
        "proof/verify.py",
        'passed = result["agree"] and not result["failed"]',
        'passed = not result["failed"]',
        f"{_VERIFY}::test_outputs_are_judged_and_not_by_a_thousandfold_tolerance",
    ),
    (
        "nonzeros not counted",
        "proof/verify.py",
        "int(np.count_nonzero(values))",
        'row["nnz"]',
        f"{_VERIFY}::test_one_nonzero_more",
    ),
    (
        "a claim that is left out is not missed",
        "proof/verify.py",
        " or kind in records.NET",
        "",
        f"{_VERIFY}::test_a_count_that_the_report_leaves_out",
    ),
    (
        "totals read from the report",
        "proof/verify.py",
        'report["compressed"].get(kind), cost)',
        'report["compressed"].get(kind), report["compressed"].get(kind))',
        f"{_VERIFY}::test_counts_are_taken_anew_and_not_from_the_report",
    ),
    (
        "drop read from the report",
        "proof/verify.py",
        "    return float(drop)\n",
        '    return float(claimed["drop_valid"])\n',
        f"{_VERIFY}::test_the_accuracy_drop_is_measured_anew",
    ),
    (
        "sets not judged",
        "proof/verify.py",
        "wrong += membership.outside(asked, onnx, cuts, state)\n        except",
        "wrong += membership.outside(asked, onnx, cuts, state)[:0]\n        except",
        f"{_VERIFY}::test_a_layer_that_left_its_codebook",
    ),
    (
        "a merged norm is not told from a changed one",
        "export/norms.py",
        "if all(n in state for n in names) and _plain(",
        "if False and _plain(",
        "tests/test_norms.py",
    ),
    (
        "tensors not compared",
        "proof/verify.py",
        "if not np.array_equal(v, expected[k])",
        "if v.shape != expected[k].shape",
        f"{_VERIFY}::test_one_last_bit_of_a_tensor",
    ),
    (
        "any budget holds",
        "proof/verify.py",
        'row["met"] and found <= row["asked"] + 1e-12',
        'row["met"]',
        f"{_VERIFY}::test_budget_entries_that_do_not_hold",
    ),
    (
        "NaN agrees with everything",
        "proof/agreement.py",
        'return worst if np.isfinite(worst) else float("inf")',
        "return worst if np.isfinite(worst) else 0.0",
        f"{_VERIFY}::test_runtimes_that_give_other_shapes_or_nan_do_not_agree",
    ),
)

_NODES = ("tests/parity/test_engine_nodes.py", "tests/parity/test_engine_operators.py")
_RATES = ("tests/engine/test_rates.py",)
ENGINE = [
    Fault(
        "engine: checksum not compared",
        "engine/formats/parts.h",
        "u32(end_) != sct::crc32(bytes.first(end_))",
        "u32(end_) > 0xffffffffu",
        ("tests/malformed/test_sct.py",),
    ),
    Fault(
        "engine: average pool counts the padding the other way round",
        "engine/plan/lower/pool.cc",
        'attr_i(n, "count_include_pad", 0) != 0',
        'attr_i(n, "count_include_pad", 0) == 0',
        _NODES,
    ),
    Fault(
        "engine: left padding of a convolution is its top",
        "engine/plan/lower/window.cc",
        "s.pad_left = to_int(L, n, win.begin[1])",
        "s.pad_left = to_int(L, n, win.begin[0])",
        _NODES,
    ),
    Fault(
        "engine: k-means forgets the clusters before",
        "engine/kernels/kmeans/ref.cc",
        "const double total = previous[a] + ",
        "const double total = (previous[a] < 1e300 ? 0 : previous[a]) + ",
        _laws("codebook-0"),
    ),
    Fault(
        "engine: the codes of a uniform grid change at whole multiples",
        "engine/kernels/uniform/ref.cc",
        "a_[static_cast<size_t>(i)] / (static_cast<double>(t) - 0.5)",
        "a_[static_cast<size_t>(i)] / static_cast<double>(t)",
        ("tests/constraints/test_uniform.py",),
    ),
    Fault(
        "engine: a bound on scales counts changing values twice",
        "engine/kernels/uniform/ref.cc",
        "moved += (sums_",
        "moved += 2 * (sums_",
        ("tests/constraints/test_uniform.py",),
    ),
    Fault(
        "engine: of equal scores the higher index stays",
        "engine/kernels/largest/ref.cc",
        "if (scores[i] == least) kept[i]",
        "if (scores[n - 1 - i] == least) kept[n - 1 - i]",
        _laws("topk-0"),
    ),
    Fault(
        "engine: Gemm without alpha",
        "engine/plan/lower/linear.cc",
        "alpha * weights()[turned ?",
        "weights()[turned ?",
        _NODES,
    ),
    Fault(
        "engine: Gemm without beta",
        "engine/plan/lower/linear.cc",
        "beta * from[scalar ? 0 : o]",
        "from[scalar ? 0 : o]",
        _NODES,
    ),
    Fault(
        "engine: kernels are ranked without this machine's rates",
        "engine/plan/lower/layer.h",
        "std::stable_sort(ways.begin(), ways.end(), [&](const auto& a",
        "if (false) std::stable_sort(ways.begin(), ways.end(), [&](const auto& a",
        _RATES,
    ),
    Fault(
        "engine: sessions that time nothing go by the calibration",
        "src/secateur/engine/session.py",
        "rates.read(plans.machine()) if asked else None",
        "rates.read(plans.machine())",
        _RATES,
    ),
    Fault(
        "engine: a calibration counts a layer with the others of its kernel only",
        "src/secateur/engine/calibrate.py",
        'for group in (rate, rate.partition("/")[0], ""):',
        'for group in (rate.partition("/")[0], ""):',
        _RATES,
    ),
]

_INT8, _PRUNING = "tests/post_training/test_int8.py", "tests/post_training/test_pruning.py"
POST_TRAINING = _room(
    "post_training",
    (_INT8,),
    (
        "a sum is rounded before its Relu too",
        "post_training/places.py",
        'if made in ("layer", "sum") and self.readers[source] == 1:',
        'if made == "layer" and self.readers[source] == 1:',
        f"{_INT8}::test_grids_follow_the_rules_of_recipes",
    ),
    (
        "what is joined keeps scales of its own",
        "post_training/places.py",
        'if kind in ("move", "join"):',
        'if kind == "move":',
        f"{_INT8}::test_grids_follow_the_rules_of_recipes",
    ),
    (
        "a scale of weights does not look at the bias",
        "post_training/writing.py",
        "scale = np.maximum(scale, size /",
        "scale = np.maximum(scale, 0 * size /",
        f"{_INT8}::test_scales_of_weights_hold_the_biases",
    ),
    (
        "magnitude alone decides what is pruned",
        "post_training/pruning.py",
        "score = w.astype(np.float64) ** 2 * _features",
        "score = w.astype(np.float64) ** 2 + 0 * _features",
        f"{_PRUNING}::test_what_a_weight_is_multiplied_with_decides",
    ),
    (
        "biases stay when weights go",
        "post_training/pruning.py",
        "(bias + moved.reshape(bias.shape))",
        "(bias + 0 * moved.reshape(bias.shape))",
        f"{_PRUNING}::test_biases_take_over_the_mean",
    ),
)

_HEADS = "tests/graph/test_heads_units.py"
GRAPH = _room(
    "graph",
    (_HEADS,),
    (
        "a head is queries and keys without its values",
        "graph/ops/attention.py",
        "labels.union(here, here[:1].expand(here.shape))",
        "labels.union(here[:1], here[:1])",
    ),
    (
        "units without readers go, whoever moves by them",
        "graph/ops/recurrent.py",
        "kept = (active > 0) & ((reach.T @ own.to(reach.dtype)) > 0)",
        "kept = (active > 0) & own",
    ),
    (
        "a unit with a bias is taken for dead",
        "graph/ops/recurrent.py",
        "seed = seed + weight(b).detach()",
        "seed = seed + 0 * weight(b).detach()",
    ),
)

_BAR = "tests/reproduce/test_bar.py"
STUDIES = _room(
    "reproduce",
    (_BAR,),
    (
        "a loss may grow by points, as an accuracy may fall",
        "reproduce/bar.py",
        "asked.points if kind.higher_is_better else asked.share * before",
        "asked.points",
        f"{_BAR}::test_what_may_be_lost",
    ),
    (
        "the mean of the seeds is small enough, the largest is not asked",
        "reproduce/bar.py",
        'largest = max(ours[s]["nbytes"]',
        'largest = min(ours[s]["nbytes"]',
        f"{_BAR}::test_every_seed_must_be_small_and_verified",
    ),
)
INSPECT = _room(
    "engine",
    ("tests/engine/test_inspect.py",),
    (
        "a transposed convolution costs what the engine computes of it, windows beyond the picture too",
        "engine/inspect.py",
        'if op != "ConvTranspose":',
        'if op != "":',
    ),
)

FAULTS = [
    *CONSTRAINTS,
    *GRAPH,
    *SOLVERS,
    *TRAINING,
    *BUDGET,
    *FORMATS,
    *VERIFY,
    *POST_TRAINING,
    *ENGINE,
    *STUDIES,
    *INSPECT,
]
