"""From a module and example inputs to a flat program of ATen calls, by `torch.export`.

The caller's model is left as it was: modes, buffers, gradients and the random state. Why `torch.export`: see
docs/design/dependency-graph.md.
"""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UnsupportedError, check_finite, first_line
from secateur.graph.calling import arguments, evaluating, user_frame
from secateur.graph.cleaning import drop_assertions, make_concrete
from secateur.graph.example import Example
from secateur.graph.ops import moving
from secateur.graph.program import Call, Program, owner


def capture(model: nn.Module, example: Example) -> Program:
    """Trace the model, on a single example where rows are examples.

    Raises:
        UnsupportedError: the model runs but cannot be traced (control flow that depends on values, ...).
        ConstraintError: a parameter or a running statistic holds NaN or infinity.
    """
    statistics = [(n, b) for n, b in model.named_buffers() if n.endswith(("running_mean", "running_var"))]
    for name, tensor in [*model.named_parameters(), *statistics]:  # other buffers (attention masks) may hold -inf
        if tensor.is_floating_point():
            check_finite(tensor.detach(), name)
    exported = None
    with evaluating(model):
        if example.batched:
            args, kwargs = arguments(example.one)
            with contextlib.suppress(UnsupportedError):
                exported = _export(model, args, kwargs)
        if exported is None:
            args, kwargs = arguments(example.inputs)
            exported = _export(model, args, kwargs)
    return _program(model, exported, args, kwargs, example.batched)


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.export.ExportedProgram:
    try:
        with quiet_torch():
            exported = torch.export.export(model, args, kwargs, strict=False)
            if _writes_into_views(exported.graph):
                exported = exported.run_decompositions({})
            plain_bags(exported.graph)
        return exported
    except UnsupportedError:
        raise
    except Exception as e:
        what, instead = _untraced(e)
        # Hundreds of lines of torch's own frames would stand above the sentence; who looks for them finds them here.
        logging.getLogger("secateur").debug("torch.export failed", exc_info=e)
        raise UnsupportedError(f"{type(model).__name__} cannot be traced: {what}{user_frame(e)}; {instead}") from None


def _untraced(e: BaseException) -> tuple[str, str]:
    """What is in the way of a trace, and what to do about it."""
    frames = [f.f_locals.values() for f, _ in traceback.walk_tb(e.__traceback__)]
    if any(isinstance(v, nn.utils.rnn.PackedSequence) for values in frames for v in values):
        return (
            "packed sequences (pack_padded_sequence) have a length that depends on the values",
            "give the padded batch to the layer and take each sequence's last step, or mask its mean",
        )
    if any(isinstance(v, torch.jit.ScriptFunction | torch.jit.ScriptModule) for values in frames for v in values):
        return "a part is scripted (TorchScript)", "give the nn.Module it was made from"
    if "data-dependent" in str(e) or "GuardOnDataDependent" in type(e).__name__:
        what = "the code branches on a tensor's value"
        return what, "make the forward pass independent of the values (torch.where instead of if, no assert on them)"
    if "numpy()" in str(e):
        return "NumPy is used inside forward", "use torch's functions there"
    return first_line(e), "change that line, or compress the part of the model that can be traced"


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """Keeps torch's exporters from writing to the terminal: their progress, their log lines, their own deprecations."""
    loggers = [
        logging.getLogger(n)
        for n in ("torch.onnx", "torch.fx", "torch._dynamo", "torch.export", "torch._export", "onnxscript", "onnx_ir")
    ]
    names = [
        n
        for n in logging.root.manager.loggerDict
        if n.startswith(("torch.fx.", "torch.onnx.", "torch._export", "onnxscript.", "onnx_ir"))
    ]
    loggers += [logging.getLogger(n) for n in names]
    levels = [(g, g.level) for g in loggers]
    try:
        for g in loggers:
            g.setLevel(logging.CRITICAL + 1)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            for category in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.filterwarnings(
                    "ignore", category=category, module=r"(torch|copyreg|onnxscript|onnx_ir|onnx)(\.|$)"
                )
            warnings.filterwarnings("ignore", message="The tensor attributes? .* assigned during export")  # RNN caches
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
            yield
    finally:
        for g, level in levels:
            g.setLevel(level)


def _place(node: Call) -> str:
    """` (file.py:12)` of the line that made a call, of its first user where it notes none."""
    for n in (node, *node.users):
        lines = [x for x in str(n.meta.get("stack_trace") or "").splitlines() if x.strip().startswith("File ")]
        if lines:
            file, line = lines[-1].split('"')[1], lines[-1].split("line ")[1].split(",")[0]
            return f" ({Path(file).name}:{line})"
    return ""


def _in_place(node: Call) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    name = node.target._schema.name
    return node.target._schema.is_mutable and name.endswith("_") and not name.endswith("__")


def _writes_into_views(graph: torch.fx.Graph) -> bool:
    for n in graph.nodes:
        if n.op != "call_function" or not isinstance(n.target, torch._ops.OpOverload):
            continue
        if n.target._schema.is_mutable and not _in_place(n):
            return True
        if _in_place(n):
            written = n.args[0]
            viewed = {str(u.target) for u in written.users if u is not n} & moving.Move.targets
            if written.op == "placeholder" or str(written.target) in moving.Move.targets or viewed:
                return True
    return False


def plain_bags(graph: torch.fx.Graph) -> None:
    """EmbeddingBag on indices [batch, bag] becomes a look-up and a reduction, which everything downstream knows.

    Torch's own ONNX form of it is a loop over sequences, on which ONNX Runtime (1.27) crashes the process.

    Raises:
        UnsupportedError: bags of other kinds (offsets of their own, padding).
    """
    aten = torch.ops.aten
    reductions = {0: aten.sum.dim_IntList, 1: aten.mean.dim, 2: aten.amax.default}
    for n in [n for n in graph.nodes if n.op == "call_function" and str(n.target).startswith("aten.embedding_bag.")]:
        weight, flat, offsets, _, mode, _, scale, last, padding = (*n.args, *[None] * 9)[:9]
        indices, factors = _unflattened(flat), _unflattened(scale)
        steps = str(offsets.target) == "aten.arange.start_step" and offsets.args[2]
        regular = indices is not None and steps == indices.meta["val"].shape[1] and not last
        if not regular or padding not in (None, -1) or (scale is not None and factors is None):
            raise UnsupportedError(
                f"EmbeddingBag at {owner(n) or 'forward'}: offsets or padding are not covered; give it indices of "
                "shape [batch, bag], or use Embedding and a mean",
                n.name,
            )
        with graph.inserting_before(n):
            made = _computed(graph, n, aten.embedding.default, weight, indices)
            if factors is not None:
                made = _computed(
                    graph, n, aten.mul.Tensor, made, _computed(graph, n, aten.unsqueeze.default, factors, -1)
                )
            made = _computed(graph, n, reductions[mode], made, [1])
        for user in list(n.users):
            if user.args[1] == 0:
                user.replace_all_uses_with(made)
            graph.erase_node(user)
        graph.erase_node(n)
    graph.eliminate_dead_code()


def _unflattened(node: Call) -> Call | None:
    """The matrix behind x.reshape(-1)."""
    kind = str(getattr(node, "target", "")).split(".")[1:2]
    if kind not in (["reshape"], ["view"]) or list(node.args[1]) != [-1] or node.args[0].meta["val"].dim() != 2:
        return None
    return node.args[0]


def _computed(graph: torch.fx.Graph, like: Call, target: Any, *args: Any) -> Call:
    """A new call in the place of `like`, with the value that the tracer would have noted."""
    made = graph.call_function(target, args)
    made.meta = {k: v for k, v in like.meta.items() if k != "val"}
    made.meta["val"] = target(*torch.fx.node.map_arg(args, lambda a: a.meta["val"]))
    return made


def _make_functional(graph: torch.fx.Graph) -> None:
    """x.relu_() becomes y = relu(x), and every later reader of x reads y."""
    order = {n: i for i, n in enumerate(graph.nodes)}
    for n in list(graph.nodes):
        if n.op != "call_function" or not _in_place(n):
            continue
        name = n.target._schema.name.removeprefix("aten::").removesuffix("_")
        packet = getattr(torch.ops.aten, name)
        n.target = getattr(packet, n.target._overloadname)
        written = n.args[0]
        written.replace_all_uses_with(n, delete_user_cb=lambda u, n=n: u is not n and order[u] > order[n])


class _Ends:
    """What comes into a traced program, by its names there: parameters and buffers (first names), constants, inputs."""

    def __init__(self, model: nn.Module, exported: torch.export.ExportedProgram) -> None:
        self.params: dict[str, str] = {}
        self.buffers: dict[str, str] = {}
        self.static: dict[str, Tensor] = {}
        self.inputs: list[str] = []
        params = _first_names(model.named_parameters(remove_duplicate=False))
        buffers = _first_names(model.named_buffers(remove_duplicate=False))
        kinds = torch.export.graph_signature.InputKind
        for spec in exported.graph_signature.input_specs:
            name = spec.arg.name
            if spec.kind is kinds.PARAMETER:
                self.params[name] = params[str(spec.target)]
            elif spec.kind is kinds.BUFFER:
                self.buffers[name] = buffers[str(spec.target)]
            elif spec.kind is kinds.CONSTANT_TENSOR:
                self.static[name] = exported.constants[str(spec.target)].detach()
            elif spec.kind is kinds.USER_INPUT:
                self.inputs.append(name)
            else:
                raise UnsupportedError(
                    f"{type(model).__name__}: traced input {name} of kind {spec.kind.name} is not supported"
                )


def _first_names(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """Every name -> the first name of the same tensor: tied ones share."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in tensors}


def _constants(model: nn.Module, exported: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """Tensors that the traced graph itself holds."""
    found = {}
    for n in exported.graph_module.graph.nodes:
        if n.op != "get_attr":
            continue
        value: Any = exported.graph_module
        for part in str(n.target).split("."):
            value = getattr(value, part)
        if not isinstance(value, Tensor):
            kind = " ".join(str(user.target) for user in n.users).removeprefix("wrap_with_")
            raise UnsupportedError(
                f"{type(model).__name__} cannot be traced flat: {kind} inside forward is a program of its own"
                f"{_place(n)}; move it out of the forward pass (autocast around the call is fine)"
            )
        found[n.name] = value.detach()
    return found


def _program(
    model: nn.Module, exported: torch.export.ExportedProgram, args: Any, kwargs: Any, batched: bool
) -> Program:
    graph = exported.graph_module.graph
    _make_functional(graph)
    drop_assertions(graph)
    ends = _Ends(model, exported)
    static = ends.static | _constants(model, exported)
    inputs = ends.inputs
    given, structure = torch.utils._pytree.tree_flatten((args, kwargs))
    places = [i for i, g in enumerate(given) if g is not None] if len(given) != len(inputs) else range(len(given))
    example = {
        n: given[i].detach().clone() for n, i in zip(inputs, places, strict=True) if isinstance(given[i], Tensor)
    }
    fixed = [None if isinstance(g, Tensor) else g for g in given]

    def rebuild(leaves: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        full = list(fixed)
        for i, leaf in zip(places, leaves, strict=True):
            full[i] = fixed[i] if leaf is None else leaf
        rebuilt: tuple[tuple[Any, ...], dict[str, Any]] = torch.utils._pytree.tree_unflatten(full, structure)
        return rebuilt

    rows = [t.shape[0] for t in example.values() if t.dim() and batched]
    program = Program(
        nodes=tuple(graph.nodes),
        params=ends.params,
        buffers=ends.buffers,
        static=static,
        inputs=tuple(inputs),
        example=example,
        batch=rows[0] if rows else 1,
        batched=batched,
        shapes={n: tuple(p.shape) for n, p in model.named_parameters()},
        param_values={n: p.detach().clone() for n, p in model.named_parameters()},
        buffer_values={n: b.detach().clone() for n, b in model.named_buffers()},
        kinds={n: type(m) for n, m in model.named_modules()},
        frozen=frozenset(n for n, p in model.named_parameters() if not p.requires_grad),
        rebuild=rebuild,
    )
    make_concrete(program.nodes, program.given)
    return program
