"""Runs a study: its cells for each seed, the test part once when they are made, everything kept to go on later.

A folder holds `seed<N>/<cell>/` with the written net, `cell.json` and `test.json`, and the study's `<name>.json` and
`<name>.md`. Every cell has its own lock and is kept by itself: several processes may make different cells side by side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from secateur.errors import FormatError, UsageError
from secateur.limits import quoted
from secateur.reproduce import plan
from secateur.reproduce.grid import Cell
from secateur.shell import saving
from secateur.types import Progress

Report = Callable[[Progress], None]
Json = dict[str, Any]


def names() -> dict[str, str]:
    """Name -> one line, for every study of this folder."""
    return {p.stem: plan.about(p) for p in sorted(Path(__file__).parent.glob("*.yaml"))}


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
        task: which of the study's tasks, where it has several.
        cells: make only these cells (a name, a part or a shell pattern) and what they start from. Other cells that are
            finished in `out` are in the record too, with `resume`.
    Raises:
        UsageError: unknown name, task or cell; a bad study file; a cell that another process is making.
    """
    study = plan.read(path(name), task)
    if not study.matching(cells or "*"):
        raise UsageError(f"{study.name}: no cell matches {quoted(cells)}; cells: {', '.join(study.cells)}")
    running = Running(study, Path(out) / (task or ""), data_dir, on_progress)
    seeds = study.plan.seeds if seed is None else [seed]
    for s in seeds:
        running.one_seed(s, resume, cells or "*")
    return running.finish()


def path(name: str) -> Path:
    """The file of a study."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    if name not in names():
        raise UsageError(
            f"reproduce: {quoted(name)} is unknown; known: {', '.join(names())}, or the path of a study file (.yaml)"
        )
    return Path(__file__).with_name(f"{name}.yaml")


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
        for cell in reversed(list(self.study.cells.values())):  # what others start from stands before them
            if cell.name in wanted and cell.start is not None and not (resume and self._kept(seed, cell)):
                wanted.add(cell.start)
        made = [c for c in self.study.cells.values() if c.name in wanted and "recorded" not in c.plan]
        for cell in made:
            if not (resume and self._kept(seed, cell)):
                self._make(seed, cell, resume)
        # Only now: everything above was chosen on the validation part.
        for cell in made:
            self._test(seed, cell)
        self._speed(seed)

    def finish(self) -> Json:
        """The record of all that is finished in the folder, written there."""
        from secateur.reproduce import summary
        from secateur.reproduce.table import table

        found = summary.build(self.study, self.collected())
        name = self.study.name
        saving.write_bytes(self.out / f"{name}.json", saving.to_json(found))
        saving.write_bytes(self.out / f"{name}.md", (table(found, markdown=True) + "\n").encode())
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
                if facts is not None and tested.is_file():
                    of_seed = found.setdefault(seed, {"cells": {}, "speed": {}})
                    shown = {k: v for k, v in facts.items() if k not in ("plan", "key")}
                    of_seed["cells"][cell.name] = {**shown, **read_json(tested)}
            if seed in found and (folder / "speed.json").is_file():
                found[seed]["speed"] = read_json(folder / "speed.json")
        return dict(sorted(found.items()))

    # ---- cells -------------------------------------------------------------------------------------------------
    def _make(self, seed: int, cell: Cell, resume: bool) -> None:
        from secateur.reproduce.making import Maker

        plan_ = self.study.plan
        maker = Maker(plan_.kind, self.splits, self.study.cells, seed, self.out / f"seed{seed}", self._on_progress)
        place = self._place(seed, cell)
        with saving.locked(place):
            if resume and self._kept(seed, cell):  # another process was quicker
                return
            for stale in (place / "cell.json", place / "test.json", place.parent / "speed.json"):
                stale.unlink(missing_ok=True)
            facts = maker.make(cell, resume)
            saving.write_bytes(
                place / "cell.json", saving.to_json({"plan": cell.plan, "key": self._key(cell), **facts})
            )

    def _test(self, seed: int, cell: Cell) -> None:
        from secateur.reproduce import judging

        place = self._place(seed, cell)
        if not (place / "test.json").is_file():
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
        return hashlib.sha256(json.dumps([before, facts], sort_keys=True).encode()).hexdigest()[:24]

    def _place(self, seed: int, cell: Cell) -> Path:
        return self.out / f"seed{seed}" / cell.name


def read_json(path: Path) -> Any:
    """What a file holds. FormatError: it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise FormatError(f"{path}: cannot be read as JSON ({e}); delete it and run again") from None
