"""Time a model in the engine and in other runtimes: interleaved, warm, many inputs, results compared in the run.

The record of `bench`; models in it are called model, dense, and dense_int8 or model_int8:
`runs` [{runtime, model, version, latency_ms {median, p10, p90}, n_calls, rounds_ms (median of each turn)}],
`latency_ms` {model: {runtime: {median, p10, p90}}},
`ratios` [{of, to, median, p10, p90}] (how many times faster `to` is: always the engine on the model),
`checks` (see `agreement.compare`), `skipped` {peer or model: reason}, `compared` [sentences: what stands beside what],
`calibration` (of the int8 net, or None), `coverage` {model: of `InferenceSession`}, `threads`, `batch`, `n_inputs`,
`inputs` ("given" | "random"), `cpu`, `isa`, `machine`, `title`, `nbytes` {model: of the file}, `tune`, `clock`,
`kernels` (of the engine, in order).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.engine import agreement, peers, quantized
from secateur.engine.coverage import share
from secateur.engine.session import InferenceSession, read_model
from secateur.errors import UsageError
from secateur.native import _native

Array = NDArray[Any]
N_INPUTS = 32  # at least: fewer would let branch predictors and caches learn the input
BURST_SECONDS = 0.02  # one runtime's turn; long enough to be warm after a few calls, short against drifts of the clock
COLD_CALLS = 3  # first calls of a turn are not counted: another runtime has just had the caches


@dataclass
class Runner:
    """One runtime with one model."""

    runtime: str
    model: str  # "model", "dense", "model_int8" or "dense_int8"
    version: str
    call: peers.Call
    calls_per_turn: int = 1
    turns: list[list[float]] = field(default_factory=list)  # microseconds


def bench(
    path_or_bytes: str | os.PathLike[str] | bytes,
    against: Sequence[str] = ("onnxruntime", "openvino", "torch"),
    threads: int = 1,
    batch: int = 1,
    inputs: Array | Mapping[str, Array] | None = None,
    dense: str | os.PathLike[str] | bytes | None = None,
    seconds: float = 3.0,
    int8: bool = False,
    tune: str | None = None,
    module: Any = None,
    dense_module: Any = None,
    seed: int = 0,
    whole: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Median, 10th and 90th percentile of one call's time, for every runtime and model, and ratios with their spread.

    Turns of about 20 ms are interleaved in one process in an order drawn anew each round; the first calls of a turn
    are not counted. A ratio is taken per round, so that what disturbs a round disturbs both sides.

    Args:
        path_or_bytes: the model, `.onnx` or `.sct` (unpacked for the peers).
        against: of "onnxruntime", "openvino", "torch"; those that cannot take part are named in `skipped`.
        threads: of every runtime.
        batch: examples per call.
        inputs: examples, first axis; an array for one input, a mapping from names for several. At least 32 calls'
            worth are asked for; None draws standard normal ones, which is said in the result.
        dense: the uncompressed model, timed on the same inputs in the engine and in the peers.
        seconds: time per runtime and model, warm-up not included.
        int8: time also the dense net (without `dense`: the model itself) in static int8, made here: `quantized.py`.
        tune: as of `InferenceSession`, for the engine's sessions.
        module, dense_module: the networks as `nn.Module`, for torch.
        seed: of the order of turns and of drawn inputs.
        whole: `inputs` are those of one call, as they are: their first axes do not count examples.
        clock: `time.process_time` on a machine that others use too: the CPU's time of one thread, without waits.
    Returns:
        The record; the head of this file lists its keys.
    Raises:
        UsageError: unknown peer, inputs that do not fit, numbers out of range. FormatError, UnsupportedError: as
        `InferenceSession`.
    """
    check(against, threads, batch, seconds)
    rng = np.random.default_rng(seed)
    models = {"model": read_model(path_or_bytes)}
    if dense is not None:
        models["dense"] = read_model(dense)
    sessions = {name: InferenceSession(data, threads=threads, tune=tune) for name, data in models.items()}
    feeds, drawn = feeds_of(sessions["model"], batch, inputs, rng, whole)
    kind = "random" if drawn else "given"
    skipped: dict[str, str] = {}
    calibration = None
    if int8 and (data := _int8(models, sessions, feeds, skipped)) is not None:
        name = f"{_BASE[dense is not None]}_int8"
        models[name], sessions[name] = data, InferenceSession(data, threads=threads, tune=tune)
        calibration = f"minimum and maximum over {min(len(feeds), quantized.N_EXAMPLES)} {kind} inputs"
    with peers.torch_threads():
        runners = runners_of(
            models, sessions, against, threads, feeds, {"model": module, "dense": dense_module}, skipped
        )
        checks = agreement.compare({(r.runtime, r.model): r.call for r in runners}, models, feeds)
        rounds = measure(runners, feeds, seconds, rng, clock)
    subject = os.fspath(path_or_bytes) if isinstance(path_or_bytes, (str, os.PathLike)) else "model"
    first = sessions["model"]
    coverage = {name: session.coverage for name, session in sessions.items()}
    return {
        "title": f"{subject}: batch {batch}, threads {threads}, {_native.cpu_name()}, {first.isa}",
        **_times(runners, rounds),
        "checks": checks,
        "skipped": skipped,
        "compared": _compared(models, coverage, calibration),
        "calibration": calibration,
        "coverage": coverage,
        **{"threads": threads, "batch": batch, "n_inputs": len(feeds), "inputs": kind},
        **{"cpu": _native.cpu_name(), "isa": first.isa, "tune": first.tune, "machine": platform.platform()},
        "clock": getattr(clock, "__name__", "given"),
        "nbytes": {name: len(data) for name, data in models.items()},
        "kernels": [row["kernel"] for row in first.explain(batch=batch, repeats=0)],
    }


def _times(runners: Sequence[Runner], rounds: int) -> dict[str, Any]:
    return {
        "runs": [_run_record(r) for r in runners],
        "latency_ms": latencies(runners),
        "ratios": _ratios(runners, rounds),
    }


def latencies(runners: Sequence[Runner]) -> dict[str, dict[str, dict[str, float]]]:
    """Model -> runtime -> median, p10 and p90 of its calls, in ms."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for runner in runners:
        found.setdefault(runner.model, {})[runner.runtime] = _run_record(runner)["latency_ms"]
    return found


_BASE = {True: "dense", False: "model"}  # of the int8 net: the dense net, where there is one


def _int8(
    models: Mapping[str, bytes],
    sessions: Mapping[str, InferenceSession],
    feeds: Sequence[Mapping[str, Array]],
    skipped: dict[str, str],
) -> bytes | None:
    """The int8 net, or None, said in `skipped`."""
    base = _BASE["dense" in models]
    try:
        onnx = _unpacked(models[base])
        if quantized.computes_in_integers(onnx):
            raise peers.Unavailable("the file computes in integers already")
        names = _names(sessions[base], feeds[0], base)
        return quantized.static_int8(onnx, [_named(f, names) for f in feeds[: quantized.N_EXAMPLES]])
    except peers.Unavailable as reason:
        skipped[f"{base}_int8"] = str(reason)
        return None


def _compared(
    models: Mapping[str, bytes], coverage: Mapping[str, Mapping[str, Any]], calibration: str | None
) -> list[str]:
    """What stands beside what, in sentences."""
    lines = []
    if "dense" not in models:
        lines.append(
            "no dense net was given: the other runtimes compute every weight of this file, zeros too, so their times on"
            " it are a dense net's of this shape"
        )
    if calibration is not None:
        base = "the dense net" if "dense_int8" in models else "this file's own net"
        lines.append(
            f"int8: {base}, static QDQ by ONNX Runtime (u8 activations, s8 weights per channel), ranges: {calibration}"
        )
    lines += [f"{name}: {share(c)}" for name, c in coverage.items() if c["handed_over"]]
    return lines


def rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[Any]], str]:
    """Columns, rows and footer of a printed table of a `bench` result."""
    columns = ["runtime", "model", "median ms", "p10", "p90", "calls", "engine is faster by", "max difference"]
    ratios = {tuple(r["of"]): r for r in result["ratios"]}
    errors = {(c["runtime"], c["model"]): c for c in result["checks"]}
    body: list[list[Any]] = []
    for run in result["runs"]:
        key = (run["runtime"], run["model"])
        ms, ratio, check = run["latency_ms"], ratios.get(key), errors.get(key)
        body.append(
            [
                run["runtime"],
                run["model"],
                f"{ms['median']:.4f}",
                f"{ms['p10']:.4f}",
                f"{ms['p90']:.4f}",
                run["n_calls"],
                f"{ratio['median']:.2f}x ({ratio['p10']:.2f}-{ratio['p90']:.2f})" if ratio else "-",
                "-" if check is None else f"{check['max_abs_error']:.1e}{_WORDS[check['agree']]}",
            ]
        )
    notes = [f"{result['n_inputs']} {result['inputs']} inputs in rotation, turns interleaved"]
    notes += [f"{name} skipped: {why}" for name, why in result["skipped"].items()]
    notes += [_judged(check) for check in result["checks"] if check["tolerance"] is None]
    return columns, body, "\n".join([*notes, *result["compared"], *result.get("notes", ())])


def _judged(check: Mapping[str, Any]) -> str:
    """How far an int8 model's results are from those they were judged by."""
    words = {"apart": "from the oracle", "error": "from float32"}
    distances = [
        f"{name} {check[f'{who}_{kind}']:.2%} {text}"
        for kind, text in words.items()
        for who, name in (("engine", "engine"), ("peer", check["runtime"]))
        if f"{who}_{kind}" in check
    ]
    return f"{check['model']}, {check['runtime']}: judged by {check['oracle']}" + "".join(f"; {d}" for d in distances)


_WORDS = {True: "", False: " DIFFERS", None: " (not judged)"}


def failed(result: Mapping[str, Any]) -> list[str]:
    """The runtimes whose results do not agree with the engine's, in words; empty when all is well."""
    return [
        f"{c['runtime']} on {c['model']}: largest difference {c['max_abs_error']:.3g}"
        + (f", tolerance {c['tolerance']:.3g}" if c["tolerance"] is not None else f"; {_judged(c)}")
        for c in result["checks"]
        if c["agree"] is False
    ]


def check(against: Sequence[str], threads: int, batch: int, seconds: float) -> None:
    """UsageError for unknown peers and numbers out of range."""
    unknown = sorted(set(against) - set(peers.PEERS))
    if unknown:
        raise UsageError(f"against: {', '.join(unknown)} unknown; known: {', '.join(peers.PEERS)}")
    if threads < 1 or batch < 1 or not seconds > 0:
        raise UsageError(f"bench: threads={threads}, batch={batch}, seconds={seconds}; all must be positive")


def feeds_of(
    session: InferenceSession,
    batch: int,
    inputs: Array | Mapping[str, Array] | None,
    rng: np.random.Generator,
    whole: bool = False,
) -> tuple[list[dict[str, Array]], bool]:
    """At least `N_INPUTS` feeds of the model's inputs (fewer if fewer examples came), and whether they were drawn."""
    nodes = session.get_inputs()
    names = [n.name for n in nodes]
    for node in [] if whole else nodes:
        if node.shape and isinstance(node.shape[0], int) and node.shape[0] != batch:
            raise UsageError(
                f"bench: input {node.name!r} is fixed to a first axis of {node.shape[0]}; pass batch={node.shape[0]}"
            )
    if inputs is None:
        return [{n.name: draw(n, batch, rng) for n in nodes} for _ in range(N_INPUTS)], True
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise UsageError(f"inputs: one array for a model with inputs {', '.join(names)}; pass a mapping from names")
        inputs = {names[0]: inputs}
    if set(inputs) != set(names):
        raise UsageError(f"inputs: got {', '.join(map(repr, inputs))}; the model has {', '.join(map(repr, names))}")
    if whole:
        return [{name: np.array(a, order="C") for name, a in inputs.items()}], False
    n_examples = min((len(a) for a in inputs.values() if np.ndim(a)), default=batch)
    if n_examples < batch:
        raise UsageError(f"inputs: {n_examples} examples are fewer than the batch of {batch}")
    count = max(1, min(max(N_INPUTS, 64), n_examples // batch))
    return [
        {name: np.array(a[i * batch : (i + 1) * batch] if np.ndim(a) else a, order="C") for name, a in inputs.items()}
        for i in range(count)
    ], False


_NUMPY = {"float": "float32", "double": "float64"}
_DRAWN = {"float", "double", "float16", "bool"} | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


def draw(node: _native.NodeArg, batch: int, rng: np.random.Generator) -> Array:
    """Standard normal numbers, or zeros and ones, for one input. UsageError: free axes, or values of another kind."""
    shape = [batch if i == 0 and not isinstance(d, int) else d for i, d in enumerate(node.shape)]
    if not all(isinstance(d, int) for d in shape):
        raise UsageError(f"bench: input {node.name!r} has free axes {node.shape}; pass inputs=")
    sizes = [int(d) for d in shape if isinstance(d, int)]
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DRAWN:
        raise UsageError(f"bench: input {node.name!r} is a {node.type}, of which no values are drawn; pass inputs=")
    dtype = np.dtype(_NUMPY.get(kind, kind))
    if dtype.kind == "f":
        return rng.standard_normal(sizes).astype(dtype)
    return rng.integers(0, 2, sizes).astype(dtype)


def runners_of(
    models: Mapping[str, bytes],
    sessions: Mapping[str, InferenceSession],
    against: Sequence[str],
    threads: int,
    feeds: Sequence[Mapping[str, Array]],
    modules: Mapping[str, Any],
    skipped: dict[str, str],
) -> list[Runner]:
    """Every model in the engine and in the peers that take it; why another does not is said in `skipped`."""
    import secateur

    runners: list[Runner] = []
    for which, data in models.items():
        session = sessions[which]
        names = _names(session, feeds[0], which)
        session.run(None, _named(feeds[0], names))  # says clearly which input does not fit; a peer might not
        runners.append(
            Runner("engine", which, secateur.__version__, lambda f, s=session, n=names: s.run(None, _named(f, n)))  # type: ignore[misc]
        )
        onnx = _unpacked(data)
        shapes = {own: list(feeds[0][name].shape) for name, own in names.items()}
        for peer in against:
            try:
                if peer == "torch":
                    if which not in modules:
                        continue  # torch has no int8 form of these files
                    call, version = peers.torch(modules[which], threads, list(names))
                    call(feeds[0])
                    runners.append(Runner(peer, which, version, call))
                    continue
                call, version = getattr(peers, peer)(onnx, threads, shapes)
                call(_named(feeds[0], names))  # a peer that cannot run it fails here, not half-way
                runners.append(Runner(peer, which, version, lambda f, c=call, n=names: c(_named(f, n))))  # type: ignore[misc]
            except peers.Unavailable as reason:
                skipped[peer] = str(reason)
            except Exception as e:  # somebody else's failure is no reason to lose this measurement
                skipped[peer] = f"fails on {which}: {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"[
                    :200
                ]
    return runners


def _unpacked(data: bytes) -> bytes:
    if not _native.is_sct(data):
        return data
    from secateur.formats import unpack

    return unpack(data)


def _names(session: InferenceSession, feed: Mapping[str, Array], which: str) -> dict[str, str]:
    """The model's input name -> this model's own: the dense net may name its inputs otherwise; order decides then."""
    own = [n.name for n in session.get_inputs()]
    if set(own) == set(feed):
        return {name: name for name in own}
    if len(own) != len(feed):
        raise UsageError(f"{which}: has inputs {', '.join(own)}, the model has {', '.join(feed)}")
    return dict(zip(feed, own, strict=True))


def _named(feed: Mapping[str, Array], names: Mapping[str, str]) -> Mapping[str, Array]:
    """The feed under this model's own names; the usual case, the same names, costs nothing."""
    if all(a == b for a, b in names.items()):
        return feed
    return {own: feed[name] for name, own in names.items()}


def measure(
    runners: Sequence[Runner],
    feeds: Sequence[Mapping[str, Array]],
    seconds: float,
    rng: np.random.Generator,
    clock: Callable[[], float],
) -> int:
    """Fills `turns` of every runner; returns the number of rounds."""
    for runner in runners:
        # Warm up, and find how many calls make a turn.
        begin = clock()
        n = 0
        while n < 2 * COLD_CALLS or clock() - begin < min(0.2, seconds / 4):
            runner.call(feeds[n % len(feeds)])
            n += 1
        per_call = (clock() - begin) / n
        runner.calls_per_turn = int(np.clip(BURST_SECONDS / per_call, 4, 2000))
    rounds = max(5, round(seconds / BURST_SECONDS))
    at = 0
    deadline = clock() + seconds * len(runners) * 1.5 + 1.0
    done = 0
    for _ in range(rounds):
        for i in rng.permutation(len(runners)):
            runner = runners[i]
            for k in range(COLD_CALLS):
                runner.call(feeds[(at + k) % len(feeds)])
            times = []
            for _k in range(runner.calls_per_turn):
                feed = feeds[at % len(feeds)]
                at += 1
                start = clock()
                runner.call(feed)
                times.append((clock() - start) * 1e6)
            runner.turns.append(times)
        done += 1
        if done >= 5 and clock() > deadline:
            break
    return done


def _spread(values: Sequence[float] | Array, scale: float = 1.0) -> dict[str, float]:
    p10, median, p90 = np.percentile(np.asarray(values, dtype=np.float64), [10, 50, 90]) * scale
    return {"median": float(median), "p10": float(p10), "p90": float(p90)}


def _run_record(runner: Runner) -> dict[str, Any]:
    times = np.concatenate([np.asarray(t) for t in runner.turns])
    return {
        "runtime": runner.runtime,
        "model": runner.model,
        "version": runner.version,
        "latency_ms": _spread(times, 1e-3),
        "n_calls": len(times),
        "rounds_ms": [round(float(np.median(t)) * 1e-3, 6) for t in runner.turns],
    }


def _ratios(runners: Sequence[Runner], rounds: int) -> list[dict[str, Any]]:
    """How many times faster the engine runs the model than each other runner; one value per round."""
    base = next(r for r in runners if r.runtime == "engine" and r.model == "model")
    ratios = []
    for runner in runners:
        if runner is base:
            continue
        values = [float(np.median(runner.turns[i]) / np.median(base.turns[i])) for i in range(rounds)]
        ratios.append({"of": [runner.runtime, runner.model], "to": ["engine", "model"], **_spread(values)})
    return ratios
