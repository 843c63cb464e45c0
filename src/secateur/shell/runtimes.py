"""Other runtimes as Python modules, imported here and nowhere else: left alone, both report their use."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def onnxruntime(part: str = "") -> Any:
    """ONNX Runtime's module, or a part of it such as `quantization`, with its telemetry off.

    Importing it is enough to be reported: a thread writes an identifier into the cache folder and asks for the host of
    the reports about ten seconds later (version 1.31). `disable_telemetry_events` does not take that back; the
    environment variable does, if it is there before the import. Where somebody else imported it first, it is too late.

    Raises:
        ImportError: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    module = importlib.import_module("onnxruntime")
    if hasattr(module, "disable_telemetry_events"):
        module.disable_telemetry_events()  # the events of Windows, which do not ask the environment
    return importlib.import_module(f"onnxruntime.{part}") if part else module


def openvino() -> Any:
    """OpenVINO's module, with its telemetry off.

    Its converter, which the package imports, reports the import itself through the package `openvino_telemetry`, and
    does without where that is missing; so it is missing while OpenVINO is imported.

    Raises:
        ImportError: it is not installed.
    """
    kept = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules["openvino_telemetry"]
        if kept is not None:
            sys.modules["openvino_telemetry"] = kept
