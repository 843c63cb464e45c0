"""Runs a study: its cells for each seed, the test part once when they are made, everything kept to go on later.

A folder holds `seed<N>/<cell>/` with the written net, `cell.json` and `test.json`, and the study's `<name>.json` and
`<name>.md`. Every cell has its own lock and is kept by itself: several processes may make different cells side by side.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.errors import BudgetError, DivergedError, FormatError, MissingExtraError, RefusedError, UsageError
from secateur.limits import quoted
from secateur.reproduce import plan
from secateur.reproduce.grid import Cell
from secateur.shell import saving
from secateur.types import Progress

if TYPE_CHECKING:
    from secateur.reproduce.making import Maker

Report = Callable[[Progress], None]
Json = dict[str, Any]


def names() -> dict[str, str]:
    """Name -> one line, for every study of this folder."""
    return {name: plan.about(file) for name, file in _files().items()}


def _files() -> dict[str, Path]:
    return {p.stem: p for p in sorted(Path(__file__).parent.glob("*.yaml"))}


def run(
    name: str,
    seed: int | None = None,
    out: str | Path = "runs",
    resume: bool = False,
    on_progress: Report | None = None,
    data_dir: str | Path | None = None,
    task: str | None = None,
    cells: str | None = None,
) -> Json:
    """Rerun a result; writes `<name>.json` and `<name>.md` into `out` and returns the record.

    Args:
        name: one of `names()`, or the path of a study file of your own.
        seed: one seed only; default: all of the study's.
        resume: keep the cells that are finished in `out`. A cell is repeated when its plan, or that of one that it
            starts from, has changed.
        task: which of the study's tasks, where it has several; None: all of them, one after the other.
        cells: make only these cells (a name, a part or a shell pattern) and what they start from. Other cells that are
            finished in `out` are in the record too, with `resume`.
    Raises:
        UsageError: unknown name, task or cell; a bad study file; a cell that another process is making.
    """
    file = path(name)
    if task is None and (tasks := plan.tasks_of(file)):
        for t in tasks:  # what is wrong with the last one is said before the first one runs
            _asked(file, t, cells)
        each = {t: run(name, seed, out, resume, on_progress, data_dir, t, cells) for t in tasks}
        return _together(file, Path(out), each)
    study = _asked(file, task, cells)
    running = Running(study, Path(out) / (task or ""), data_dir, on_progress)
    seeds = study.plan.seeds if seed is None else [seed]
    for s in seeds:
        running.one_seed(s, resume, cells or "*")
    return running.finish()


def _asked(file: Path, task: str | None, cells: str | None) -> plan.Study:
    """The study of a task; UsageError where it is bad, or no cell of it is asked for."""
    study = plan.read(file, task)
    if not study.matching(cells or "*"):
        raise UsageError(f"{study.name}: no cell matches {quoted(cells)}; cells: {', '.join(study.cells)}")
    return study


def _together(file: Path, out: Path, each: Json) -> Json:
    """The records of all tasks as one, written beside their folders."""
    from secateur.reproduce.table import table

    found = {"schema": 2, "name": file.stem, "about": plan.about(file), "tasks": each}
    saving.write_bytes(out / f"{file.stem}.json", saving.to_json(found))
    saving.write_bytes(out / f"{file.stem}.md", (table(found, markdown=True) + "\n").encode())
    return found


def path(name: str) -> Path:
    """The file of a study."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    files = _files()
    if name not in files:
        raise UsageError(
            f"reproduce: {quoted(name)} is unknown; known: {', '.join(files)}, or the path of a study file (.yaml)"
        )
    return files[name]


def recorded(study: plan.Study) -> dict[int, Json]:
    """Seed -> the figures that the study file itself brings, of nets that other studies made."""
    found: dict[int, Json] = {}
    for cell in study.cells.values():
        for seed, seen in cell.plan.get("recorded", {}).get("seeds", {}).items():
            found.setdefault(int(seed), {"cells": {}, "speed": {}})["cells"][cell.name] = dict(seen)
    return found


class Running:
    """One study in one folder."""

    def __init__(
        self, study: plan.Study, out: Path, data_dir: str | Path | None = None, on_progress: Report | None = None
    ) -> None:
        self.study, self.out = study, out
        self._data_dir, self._on_progress = data_dir, on_progress

    @cached_property
    def splits(self) -> Any:
        """The data: training, validation and test part, seen to be of the task's kind."""
        from secateur import data

        splits = data.load(self.study.plan.data, self._data_dir)
        self.study.plan.kind.check(next(iter(splits.train)), f"study {self.study.name}: data {self.study.plan.data}")
        return splits

    def one_seed(self, seed: int, resume: bool, pattern: str = "*") -> None:
        """Make the cells that match and what they start from; then the test part of each, and the timing."""
        wanted = {c.name for c in self.study.matching(pattern)}
        for cell in reversed(list(self.study.cells.values())):  # what others need stands before them
            if cell.name in wanted and not (resume and self._final(seed, cell)):
                wanted |= set(cell.needs)
        made = [c for c in self.study.cells.values() if c.name in wanted and "recorded" not in c.plan]
        for cell in made:
            if not (resume and self._final(seed, cell)):
                self._make(seed, cell, resume)
        # Only now: everything above was chosen on the validation part.
        for cell in made:
            self._test(seed, cell)
        self._speed(seed)

    def finish(self) -> Json:
        """The record of all that is finished in the folder, written there; nets are timed beside each other for it."""
        from secateur.reproduce import summary
        from secateur.reproduce.table import table

        seeds = self.collected()
        found = summary.build(self.study, seeds, self._latency(seeds))
        name = self.study.name
        saving.write_bytes(self.out / f"{name}.json", saving.to_json(found))
        saving.write_bytes(self.out / f"{name}.md", (table(found, markdown=True) + "\n").encode())
        if found["latency"]:
            from secateur.reproduce import frontier

            try:
                saving.write_bytes(self.out / f"{name}.html", frontier.page(found).encode())
            except MissingExtraError as e:  # the record is written, only its plot is not
                logging.getLogger("secateur").warning(f"{name}.html is not drawn: {e}")
        return found

    def collected(self) -> dict[int, Json]:
        """Seed -> the facts of its finished cells (those of recorded ones too) and its timing."""
        found = recorded(self.study)
        for folder in sorted(self.out.glob("seed*")):
            if not folder.name[4:].isdigit():
                continue
            seed = int(folder.name[4:])
            for cell in self.study.cells.values():
                facts = self._kept(seed, cell)
                tested = self._place(seed, cell) / "test.json"
                if facts is None or not ("failed" in facts or tested.is_file()):
                    continue
                of_seed = found.setdefault(seed, {"cells": {}, "speed": {}})
                if "failed" in facts:
                    of_seed.setdefault("failed", {})[cell.name] = facts["failed"]
                else:
                    shown = {k: v for k, v in facts.items() if k not in ("plan", "key")}
                    of_seed["cells"][cell.name] = {**shown, **read_json(tested)}
            if seed in found and (folder / "speed.json").is_file():
                found[seed]["speed"] = read_json(folder / "speed.json")
        return dict(sorted(found.items()))

    # ---- cells -------------------------------------------------------------------------------------------------
    def _make(self, seed: int, cell: Cell, resume: bool) -> None:
        place = self._place(seed, cell)
        with saving.locked(place):
            if resume and self._final(seed, cell):  # another process was quicker
                return
            for stale in (place / "cell.json", place / "test.json", place.parent / "speed.json"):
                stale.unlink(missing_ok=True)
            facts = self._made(seed, cell, resume)
            saving.write_bytes(
                place / "cell.json", saving.to_json({"plan": cell.plan, "key": self._key(cell), **facts})
            )

    def _made(self, seed: int, cell: Cell, resume: bool) -> Json:
        """The facts of a net; in a contest also why there is none."""
        try:
            return self._maker(seed).make(cell, resume)
        except (RefusedError, BudgetError, DivergedError) as e:
            if self.study.plan.contest is None or cell.start is None:
                raise
            return {"failed": str(e), "refused": isinstance(e, RefusedError)}

    def _test(self, seed: int, cell: Cell) -> None:
        from secateur.reproduce import judging

        place = self._place(seed, cell)
        if "failed" not in (self._kept(seed, cell) or {}) and not (place / "test.json").is_file():
            found = judging.test(place, self.study.plan.kind, self.splits.test)
            saving.write_bytes(place / "test.json", saving.to_json(found))

    def _speed(self, seed: int) -> None:
        from secateur.reproduce import judging

        asked, folder = self.study.plan.speed, self.out / f"seed{seed}"
        if asked is not None and not (folder / "speed.json").is_file():
            names_ = {k: getattr(asked, k) for k in ("part", "control", "dense")}
            found = judging.speed(folder, names_, asked.seconds, self.splits.test)
            if found:
                saving.write_bytes(folder / "speed.json", saving.to_json(found))

    def _latency(self, seeds: Mapping[int, Json]) -> Json:
        """The nets that the study times, those of the first seed that has them, all in one run on one machine.

        Kept; measured again when a net has been made since, on another machine or at another level of its kernels.
        """
        from secateur.engine import plans
        from secateur.reproduce import judging

        asked, file = self.study.plan.latency, self.out / "latency.json"
        names = [c.name for pattern in asked.nets for c in self.study.matching(pattern)] if asked else []
        seed_of: dict[str, int] = {}
        for name in dict.fromkeys(names):
            cell = self.study.cells[name]
            seed = next((s for s, found in seeds.items() if name in found["cells"]), None)
            if seed is not None and "recorded" not in cell.plan:
                seed_of[name] = seed
        if asked is None or not seed_of:
            return {}
        places = {name: self._place(seed, self.study.cells[name]) for name, seed in seed_of.items()}
        made = {name: read_json(place / "cell.json")["key"] for name, place in places.items()}
        key = hashlib.sha256(json.dumps([made, asked.model_dump(), plans.machine()]).encode()).hexdigest()[:24]
        found = dict(read_json(file)) if file.is_file() else {}
        if found.get("key") != key:
            for name, seed in seed_of.items():
                self._maker(seed).restore(self.study.cells[name])
            found = {"key": key, **judging.latency(places, asked.against, asked.seconds, self.splits.test)}
            saving.write_bytes(file, saving.to_json(found))
        return found

    def _maker(self, seed: int) -> Maker:
        from secateur.reproduce.making import Maker

        plan_ = self.study.plan
        folder, costs, checked = self.out / f"seed{seed}", plan_.contest is not None, plan_.bar is not None
        return Maker(plan_.kind, self.splits, self.study.cells, seed, folder, self._on_progress, costs, checked)

    def _final(self, seed: int, cell: Cell) -> Json | None:
        """As `_kept`, but for what a method refused: another version of it may not, and to ask takes a second."""
        facts = self._kept(seed, cell)
        return None if facts is None or facts.get("refused") else facts

    def _kept(self, seed: int, cell: Cell) -> Json | None:
        """The facts of a finished cell with this very plan, and those of the cells before it."""
        file = self._place(seed, cell) / "cell.json"
        if not file.is_file():
            return None
        facts = dict(read_json(file))
        return facts if facts.get("key") == self._key(cell) else None

    def _key(self, cell: Cell) -> str:
        """Of the cell's plan (its title aside) and the plans of the cells before it."""
        before = self._key(self.study.cells[cell.start]) if cell.start is not None else self.study.plan.data
        facts = {k: v for k, v in cell.plan.items() if k != "title"}
        of_teacher = [] if cell.teacher is None else [self._key(self.study.cells[cell.teacher])]
        return hashlib.sha256(json.dumps([before, facts, *of_teacher], sort_keys=True).encode()).hexdigest()[:24]

    def _place(self, seed: int, cell: Cell) -> Path:
        return self.out / f"seed{seed}" / cell.name


def read_json(path: Path) -> Any:
    """What a file holds. FormatError: it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise FormatError(f"{path}: cannot be read as JSON ({e}); delete it and run again") from None
