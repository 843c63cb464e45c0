"""What a compression answers: the network, its files and its record; shown, saved and verified."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from torch import nn

from secateur.errors import MissingExtraError, UsageError
from secateur.export.rebuild import rebuild, surgery_json
from secateur.export.written import LEVEL, Written
from secateur.proof import verify
from secateur.report import tables, verdict, words
from secateur.shell import saving, showing

_TEXT_WIDTH = 120  # where no terminal says how wide a line may be


@dataclass(frozen=True, repr=False)
class Result:
    """What `compress` answers. `print` shows the before/after table, and so does a notebook.

    Attributes:
        model: a plain `nn.Module` in eval mode: no wrappers, zeros in place, removed channels gone.
        report: the record of DESIGN's `report.json`.
        files: the written forms of the model (`onnx`, `sct` bytes, ...).
        recipe: the resolved recipe as YAML.
        inputs: real inputs, a batch as the model takes it, on which `verify` compares the runtimes.
        example_inputs: the `graph.Example` that the model was traced on.
    """

    model: nn.Module
    report: dict[str, Any]
    files: Written = field(repr=False)
    recipe: str = field(repr=False)
    inputs: Any = None
    example_inputs: Any = None

    def __repr__(self) -> str:
        if not self.report:
            return f"Result({type(self.model).__name__}, {words.nbytes(len(self.files.sct))}, no report)"
        missed = [row["name"] for row in self.report["budget"] if row.get("met") is False]
        budget = f"budget missed: {', '.join(missed)}" if missed else "budget met" if self.report["budget"] else ""
        size = f"{words.nbytes(len(self.files.sct))} (dense {words.nbytes(self.report['dense']['nbytes'])})"
        metric = self.report["compressed"].get("metric")
        known = f"{metric['name']} {words.metric(metric, False)}" if metric else ""
        return f"Result({', '.join(filter(None, [type(self.model).__name__, size, known, budget]))})"

    def __str__(self) -> str:
        if not self.report:
            return repr(self)
        width = shutil.get_terminal_size((_TEXT_WIDTH, 24)).columns
        return showing.text(lambda console: tables.print_summary(self.report, console), width)

    def _repr_html_(self) -> str:
        """The table for a notebook's cell."""
        if not self.report:
            return f"<pre>{escape(repr(self))}</pre>"
        titles, rows = tables.summary(self.report)
        head = "".join(f"<th>{escape(t)}</th>" for t in titles)
        body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
        said = [*tables.budget_lines(self.report), *(f.text for f in verdict.findings(self.report))]
        lines = "".join(f"<li>{escape(text)}</li>" for text in said)
        title = escape(verdict.headline(self.report))
        return f"<p><b>{title}</b></p><table><tr>{head}</tr>{body}</table><ul>{lines}</ul>"

    def save(self, folder: str | Path, *, write: saving.Writer = saving.write_bytes) -> Path:
        """Write the run's files, each whole or not at all; the folder is made when missing.

        They are those of `secateur compress`, `report.html` among them where plotly is installed.

        Raises:
            EnvironmentFailure: disk full or not writable.
        """
        folder = save_network(self.files, self.recipe, self.report.get("model", ""), Path(folder), write)
        if self.report:
            write(folder / "report.json", saving.to_json(self.report))
            write_page(folder, self.report, write)
        return folder

    def verify(
        self, model: nn.Module | None = None, *, evaluate: Callable[[nn.Module], float] | None = None
    ) -> showing.Shown:
        """Save to a temporary folder and recompute from its files what the report claims, as `secateur verify` does.

        Bytes, nonzeros, multiply-adds, membership of the sets, budget, and the outputs of the engine, of ONNX Runtime
        and of PyTorch on the inputs of the run.

        Args:
            model: a fresh instance of the original network (not changed): the module is then rebuilt from
                `model.safetensors` and `surgery.json` as `secateur.load` does. Default: `self.model` stands for it.
            evaluate: the metric on the validation data, `model -> float`; without it metrics are not checked.
        Returns:
            `{"folder", "passed", "checks": [{"name", "passed", "claimed", "found", "note"}]}`; prints as a table.
        Raises:
            UsageError: there is no report, or no inputs are known.
        """
        if not self.report or self.inputs is None:
            raise UsageError("Result.verify: this result has no report or no inputs; take one that compress() gave")
        with tempfile.TemporaryDirectory(prefix="secateur-") as name:
            folder = save_network(self.files, self.recipe, self.report["model"], Path(name))
            saving.write_bytes(folder / "report.json", saving.to_json(self.report))
            module = self.model if model is None else rebuild(folder, model)
            given = verify.Given(module, self.inputs, self.example_inputs, evaluate)
            return verify.verify(folder, given=given)


def save_network(
    files: Written, recipe: str, model: str, folder: Path, write: saving.Writer = saving.write_bytes
) -> Path:
    """All files of a run but its report."""
    saving.make_folder(folder)
    contents = {
        "model.onnx": files.onnx,
        "model.sct": files.sct,
        "model.safetensors": files.tensors,
        "surgery.json": saving.to_json(surgery_json(files.surgery, model if ":" in model else None)),
        "recipe.yaml": recipe.encode(),
        **{LEVEL.format(i): level.onnx for i, level in enumerate(files.levels, 1)},
    }
    for name, content in contents.items():
        write(folder / name, content)
    return folder


def write_page(folder: Path, report: Mapping[str, Any], write: saving.Writer = saving.write_bytes) -> None:
    """`report.html` beside the finished files; without plotly a line of the log says what is missing."""
    from secateur.report import html

    try:
        write(folder / html.NAME, html.render(report).encode())
    except MissingExtraError as e:
        logging.getLogger("secateur").warning("%s: report.html was not written: %s", folder, e)
