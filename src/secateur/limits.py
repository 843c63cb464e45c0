"""What a text file may hold before anything is made of it, and how much of it a message repeats."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

QUOTED = 80  # characters of what came that a message repeats
SIZE, DEPTH = 200_000, 40  # values with all aliases written out, and how deep they may sit: more than any recipe
_LENGTH = 4_000_000  # characters


def quoted(value: Any) -> str:
    """`repr`, at most QUOTED characters of it; never walks a large, deep or self-containing value."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 3, QUOTED, QUOTED, QUOTED
    try:
        text = short.repr(value)
    except Exception:  # an integer of thousands of digits, somebody's __repr__
        text = f"a {type(value).__name__}"
    return text if len(text) <= QUOTED else text[: QUOTED - 3] + "..."


def quantity(given: Any) -> tuple[float, str]:
    """A number and the unit behind it: `6KB` -> 6, KB. ValueError: not of that form."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z%]*)\s*", str(given))
    if match and not isinstance(given, bool):
        with suppress(ValueError):  # 1.2.3
            return float(match[1]), match[2]
    raise ValueError(f"{quoted(given)} is not a number with a unit")


_COUNTS = {"": 1, "K": 1000, "M": 10**6, "G": 10**9}


def count(given: Any) -> float:
    """`1.5K` -> 1500. ValueError: no such number."""
    number, unit = quantity(given)
    if unit.upper() not in _COUNTS:
        raise ValueError(f"{quoted(given)}; a count is needed, optionally with K, M or G")
    return number * _COUNTS[unit.upper()]


_BYTES = {"B": 1, "KB": 1000, "MB": 10**6, "GB": 10**9, "KIB": 1024, "MIB": 2**20, "GIB": 2**30}


def nbytes(given: Any) -> float:
    """`6KB` -> 6000, `6KiB` -> 6144, whole; a plain number is bytes. ValueError: no such size."""
    number, unit = quantity(given)
    if unit.upper() not in _BYTES and isinstance(given, str):
        raise ValueError(
            f"{quoted(given)} needs a unit, one of B, KB, MB, GB (1000) or KiB, MiB, GiB (1024); "
            "a plain number is bytes"
        )
    number *= _BYTES.get(unit.upper(), 1)
    return float(math.floor(round(number, 6))) if math.isfinite(number) else number


def near(key: str, known: Iterable[str]) -> str:
    """The end of a refusal: the known word that is meant, or what is known."""
    known = sorted(known)
    found = get_close_matches(key[:QUOTED], known, n=1, cutoff=0.5)
    if found:
        return f"; did you mean {quoted(found[0])}?"
    return f"; known: {', '.join(known[:20])}" if known else "; it has none"


def shortened(text: str) -> str:
    """Somebody else's sentence with no word longer than QUOTED; of what has no spaces, the beginning."""
    return re.sub(rf"\S{{{QUOTED + 1},}}", lambda word: word[0][: QUOTED - 3] + "...", text)


def read_yaml(text: str) -> Any:
    """The value of YAML text, the safe subset: no tags that run code.

    The events are looked at before values are made, so that a few lines of aliases do not become gigabytes.

    Raises:
        ValueError: not valid YAML, or too large, too deep, or containing itself; the text is one line.
    """
    import yaml

    try:
        _check_events(yaml, text)
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        problem = getattr(e, "problem", None) or str(e).partition("\n")[0]
        raise ValueError(f"{problem[: 2 * QUOTED]}{where}") from None
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as e:
        # The constructors of YAML's types check little: the date 2026-99-99, an integer of 5,000 digits.
        raise ValueError(f"a value that cannot be read: {str(e)[: 2 * QUOTED]}") from None


def _check_events(yaml: Any, text: str) -> None:
    if len(text) > _LENGTH:
        raise yaml.YAMLError(f"{len(text)} characters; at most {_LENGTH} are read")
    sizes: dict[str, int] = {}  # of what an anchor names, aliases written out
    open_: list[tuple[str | None, int]] = []  # anchor, and the count where it began
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_):
                raise yaml.YAMLError(f"the value of the anchor {quoted(event.anchor)} contains itself")
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, began = open_.pop()
            if anchor is not None:
                sizes[anchor] = count - began
        if count > SIZE or len(open_) > DEPTH:
            raise yaml.YAMLError(f"more than {SIZE} values, aliases written out, or nested deeper than {DEPTH}")


def check_values(value: Any) -> None:
    """Refuse what no recipe means: infinities and NaN, huge integers, values that contain themselves.

    Raises:
        ValueError: with the key's place.
    """
    left = SIZE
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    while stack:
        where, at, depth = stack.pop()
        left -= 1
        if left < 0 or depth > DEPTH:
            raise ValueError(f"{where[:QUOTED]}: nested too deeply, too large, or it contains itself")
        if isinstance(at, Mapping):
            stack += [(f"{where}.{str(k)[:QUOTED]}".lstrip("."), v, depth + 1) for k, v in at.items()]
        elif isinstance(at, list | tuple):
            stack += [(f"{where}[{i}]", v, depth + 1) for i, v in enumerate(at)]
        elif isinstance(at, int | float) and not abs(at) < 2**63:
            raise ValueError(f"{where}: {quoted(at)}; a finite number below 2^63 is needed")
