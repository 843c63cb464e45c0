"""From a model as people hold it to the plain module that can be compressed: wrappers off, reparametrizations baked in.

What is taken off computes the same in evaluation mode. What cannot be taken off is refused in one sentence.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from secateur.errors import UsageError
from secateur.graph.copying import copied

_WRAPPERS = ("OptimizedModule", "DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")
_INNER = ("_orig_mod", "module")


def plain(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy without wrappers, masks and parametrizations, and sentences that say what was taken off.

    Raises:
        UsageError: scripted, lazy, not in float32, or something that cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"model: {type(model).__name__}; an nn.Module is needed")
    inner, notes = unwrapped(model)
    _check_kind(inner)
    made = copied(inner)
    for name, child in list(made.named_modules()):
        for key, wrapped in list(child.named_children()):
            bare, said = unwrapped(wrapped)
            if bare is not wrapped:
                setattr(child, key, bare)
                notes += [f"{f'{name}.' if name else ''}{key}: {s}" for s in said]
    for module in made.modules():
        module.__dict__.pop("_compiled_call_impl", None)
    with torch.no_grad():
        baked = [f"{name}{'.' if name else ''}{s}" for name, m in list(made.named_modules()) for s in _bake(m)]
    if baked:
        notes.append(f"baked into plain weights: {', '.join(baked)}")
    return made, notes


def unwrapped(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The module inside torch.compile and DataParallel, and what was around it; the very object, no copy."""
    notes = []
    while type(model).__name__ in _WRAPPERS:
        inner = next((model._modules[k] for k in _INNER if isinstance(model._modules.get(k), nn.Module)), None)
        if inner is None:
            break
        notes.append(f"taken out of {type(model).__name__}")
        model = inner
    return model, notes


def reparametrized(model: nn.Module) -> list[str]:
    """Names of weights that are computed from others: torch's masks, weight and spectral norms, parametrizations."""
    found = []
    for prefix, module in model.named_modules():
        names = [*getattr(module, "parametrizations", {}), *(n for n, _ in _hooks(module))]
        found += [f"{prefix}.{n}" if prefix else n for n in names]
    return found


def _check_kind(model: nn.Module) -> None:
    name = type(model).__name__
    if any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        raise UsageError(f"model: {name} is scripted (TorchScript), its code cannot be cut; give the nn.Module itself")
    lazy = [n for n, p in model.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]
    if lazy:
        raise UsageError(
            f"model: {lazy[0]} has no shape yet (a lazy layer); run the model once on a batch, and train it"
        )
    for n, p in model.named_parameters():
        if p.dtype != torch.float32 and (p.is_floating_point() or p.is_complex()):
            raise UsageError(
                f"model: {n} is {str(p.dtype).removeprefix('torch.')}; training and export are in float32; give "
                "model.float() and float32 inputs (uniform levels and codebooks make the weights small)"
            )


def _hooks(module: nn.Module) -> list[tuple[str, Any]]:
    """Weight name and hook of the older tools, which compute a weight before every call."""
    found: list[tuple[str, Any]] = []
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            found.append((hook._tensor_name, hook))
        elif type(hook).__name__ in ("WeightNorm", "SpectralNorm") and hasattr(hook, "name"):
            found.append((str(hook.name), hook))
    return found


def _bake(module: nn.Module) -> list[str]:
    """Every computed weight of one module becomes a parameter of that value; their names and what they were."""
    done = []
    for name, hook in _hooks(module):
        kind = type(hook).__name__
        if isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, name)
            kind = "pruning mask"
        elif kind == "WeightNorm":
            nn.utils.remove_weight_norm(module, name)
        else:
            nn.utils.remove_spectral_norm(module, name)
        done.append(f"{name} ({kind})")
    if parametrize.is_parametrized(module):
        training, module.training = module.training, False  # spectral norm iterates in training mode
        # A copy shares the class that torch made for the original, and removal takes the property off that class.
        own = {k: v for k, v in vars(type(module)).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(type(module).__name__, type(module).__bases__, own)
        for name, chain in list(module.parametrizations.items()):  # type: ignore[union-attr, operator]
            kinds = ", ".join(type(p).__name__.strip("_") for p in chain)
            with torch.enable_grad():  # it asks the computed weight whether it is trained
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
            if name in module._buffers:  # all its parts were frozen
                setattr(module, name, nn.Parameter(module._buffers.pop(name), requires_grad=False))  # type: ignore[arg-type]
            done.append(f"{name} ({kinds})")
        module.training = training
    if done and isinstance(module, nn.RNNBase):  # its forward reads this list, not the attributes
        module._flat_weights = [getattr(module, n, None) for n in module._flat_weights_names]
    return done
