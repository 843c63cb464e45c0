"""Names in the written graph: parameters as the module calls them, inputs and outputs as the user wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.export._traced import parameter_names


def check_names(
    model: nn.Module,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    n_inputs: int,
    n_outputs: int,
    quantised: Mapping[str, Any] | None,
) -> None:
    """All that can be wrong with names, before the slow part."""
    own = {n for n, _ in [*model.named_parameters(), *model.named_buffers()]}
    for what, names, n in (("input", input_names, n_inputs), ("output", output_names, n_outputs)):
        if names is None:
            continue
        if len(names) != n or len(set(names)) != n:
            raise UsageError(f"{what}_names: {list(names)} given, {n} different names needed")
        if clash := own & set(names):
            raise UsageError(f"{what}_names: {clash.pop()!r} is a parameter's name; choose another")
    for name in quantised or {}:
        if name not in own:
            raise UsageError(f"quantised: no parameter named {name!r}; known: {', '.join(sorted(own))}")


def name_ends(g: Any, input_names: Sequence[str] | None, output_names: Sequence[str] | None, answer: Any) -> None:
    from secateur.export import _canonical as canonical

    output_names = _output_names(answer, len(g.outputs), output_names)
    for what, ends, names in (("input", g.inputs, input_names), ("output", g.outputs, output_names)):
        if names is None:
            continue
        # In two steps, so that swapping names cannot merge values.
        for i, end in enumerate(ends):
            canonical.rename(g, end.name, f"//{what}{i}")
            end.name = f"//{what}{i}"
        for end, name in zip(ends, names, strict=True):
            clash = name in g.constants or any(name in (*n.input, *n.output) for n in g.nodes)
            if clash:
                canonical.rename(g, name, f"{name}//inner")
                if name in g.constants:
                    g.constants[f"{name}//inner"] = g.constants.pop(name)
            canonical.rename(g, end.name, name)
            end.name = name


def as_exported(
    model: nn.Module, raw: Any, input_names: Sequence[str] | None, output_names: Sequence[str] | None, answer: Any
) -> bytes:
    """Graphs with If, Loop or Scan stay as torch wrote them but for names: values may be read inside a branch."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(raw)
    new = {old: name for old, name in parameter_names(model, raw).items() if old != name}
    for ends, names in (
        (made.graph.input, input_names),
        (made.graph.output, _output_names(answer, len(made.graph.output), output_names)),
    ):
        for end, name in zip(ends, names or [e.name for e in ends], strict=True):
            new[end.name] = name
    taken = set(new.values())
    names_of_values = {o for n in made.graph.node for o in n.output} - new.keys()
    new |= {name: f"{name}//inner" for name in names_of_values & taken}
    _rename_all(made.graph, new)
    kept = {t.name: t for t in reversed(made.graph.initializer)}  # shared weights are one initializer
    del made.graph.initializer[:]
    made.graph.initializer.extend(reversed(kept.values()))
    del made.graph.value_info[:], made.metadata_props[:]
    return bytes(made.SerializeToString(deterministic=True))


def has_subgraphs(graph: Any) -> bool:
    return any(a.type in (a.GRAPH, a.GRAPHS) for n in graph.node for a in n.attribute)


def _rename_all(graph: Any, new: Mapping[str, str]) -> None:
    """Values by their new names, in branches too: ONNX forbids that an inner name hides an outer one."""
    for thing in (*graph.input, *graph.output, *graph.initializer):
        thing.name = new.get(thing.name, thing.name)
    for n in graph.node:
        n.doc_string = ""
        del n.metadata_props[:]
        for names in (n.input, n.output):
            for i, name in enumerate(names):
                names[i] = new.get(name, name)
        for a in n.attribute:
            for inner in (*a.graphs, *([a.g] if a.type == a.GRAPH else [])):
                _rename_all(inner, new)


def _output_names(answer: Any, n: int, given: Sequence[str] | None) -> Sequence[str]:
    if given is not None:
        return given
    if isinstance(answer, Mapping):
        keys = [str(k) for k, v in answer.items() if isinstance(v, Tensor)]
        if len(keys) == n:
            return keys
    return ["output"] if n == 1 else [f"output_{i}" for i in range(n)]
