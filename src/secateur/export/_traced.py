"""A network through torch's exporter: the traced program, and torch's own ONNX graph of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import MissingExtraError, UnsupportedError, first_line
from secateur.export._attention import write_out_attention
from secateur.export._registry import made_once
from secateur.graph.calling import tensors_of, user_frame
from secateur.graph.capture import plain_bags, quiet_torch

OPSET = 18  # the exporter's native set; ONNX Runtime 1.14 and OpenVINO 2023.0 and later run it


def capture(model: nn.Module, args: Any, kwargs: Any, dynamic: bool) -> torch.export.ExportedProgram:
    shapes: Any = None
    if dynamic:
        batch = torch.export.Dim("batch")

        def free(t: Any) -> Any:
            return {0: batch} if isinstance(t, Tensor) and t.dim() else None

        # A batch of one would be taken for a constant.
        args, kwargs = torch.utils._pytree.tree_map(
            lambda t: torch.cat((t, t)) if isinstance(t, Tensor) and t.dim() and t.shape[0] == 1 else t, (args, kwargs)
        )
        spec = torch.utils._pytree.tree_map(free, (tuple(args), kwargs))
        shapes = dict(inspect.signature(model.forward).bind(*spec[0], **spec[1]).arguments)
    try:
        with quiet_torch():
            exported = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
            plain_bags(exported.graph)
            write_out_attention(exported)
            return exported
    except UnsupportedError:
        raise
    except Exception as e:
        hint = (
            "export with dynamic_batch=False, or take the batch size from the input" if dynamic else "see torch.export"
        )
        raise UnsupportedError(
            f"{type(model).__name__} cannot be exported: {first_line(e)}{user_frame(e)}; {hint}"
        ) from e


@contextmanager
def plain_call(model: nn.Module, kwargs: Any, answer: Any) -> Iterator[None]:
    """Inside: forward names its keywords one by one and answers with tensors alone.

    torch.export takes no free axes through `**keywords`, and ONNX has no outputs that are numbers or text: constants
    of the code among the outputs are left out.
    """
    forward = model.forward
    known = inspect.signature(forward)
    named = [p for p in known.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY) for k in kwargs if k not in known.parameters]
    constants = [v for v in torch.utils._pytree.tree_leaves(answer) if not isinstance(v, Tensor)]
    if not constants and len(named) == len(known.parameters):
        yield
        return

    def plain(*args: Any, **keywords: Any) -> Any:
        return tensors_of(forward(*args, **keywords)) if constants else forward(*args, **keywords)

    plain.__signature__ = known.replace(parameters=[*named, *more])  # type: ignore[attr-defined]
    own = model.__dict__.get("forward")
    model.__dict__["forward"] = plain
    try:
        yield
    finally:
        model.__dict__.pop("forward")
        if own is not None:
            model.__dict__["forward"] = own


def raw_onnx(model: nn.Module, exported: torch.export.ExportedProgram) -> tuple[Any, torch.export.ExportedProgram]:
    """Torch's own graph, and the program it names its values after (decomposed: numbering differs from `exported`)."""
    try:
        from secateur.export import _fake_quantize, _recurrent

        with quiet_torch(), made_once():
            if _recurrent.projected(exported):
                exported = _recurrent.unrolled(exported)
            program = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=OPSET,
                optimize=False,
                verbose=False,
                external_data=False,
                custom_translation_table=_recurrent.translations() | _fake_quantize.translations(),
            )
        return program.model_proto, program.exported_program or exported  # type: ignore[union-attr]
    except ImportError as e:
        raise MissingExtraError("torch's ONNX exporter needs onnxscript; pip install 'secateur[compress]'") from e
    except Exception as e:
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        what = next((line for line in lines if "node" in line.lower() or "aten" in line), lines[0] if lines else "?")
        raise UnsupportedError(
            f"{type(model).__name__}: torch's ONNX exporter has no form for it: {what[:300]}; "
            "replace the operation by one that ONNX knows"
        ) from e


def symbolic_shapes(
    exported: torch.export.ExportedProgram,
) -> tuple[dict[str, list[int | str]], dict[str, int | str]]:
    """Shapes of traced values and traced integers, free axes as text. The exporter names its values as the trace."""
    shapes: dict[str, list[int | str]] = {}
    sizes: dict[str, int | str] = {}
    for n in exported.graph.nodes:
        value = n.meta.get("val")
        if n.op == "call_function" and isinstance(value, Tensor):
            shapes[n.name] = [d if isinstance(d, int) else str(d) for d in value.shape]
        elif n.op == "call_function" and isinstance(value, int | torch.SymInt) and not isinstance(value, bool):
            sizes[n.name] = value if isinstance(value, int) else str(value)
    return shapes, sizes


def parameter_names(model: nn.Module, raw: Any) -> dict[str, str]:
    """Initializer name -> the parameter's or buffer's first name (tied ones share)."""
    first: dict[int, str] = {}
    found = {}
    initializers = {t.name for t in raw.graph.initializer}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        first.setdefault(id(tensor), name)
        if name in initializers:
            found[name] = first[id(tensor)]
    return found
