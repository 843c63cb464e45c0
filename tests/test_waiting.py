"""Threads of torch's pool wait asleep: asked for before torch is loaded, and never against the user's word."""

import os
import subprocess
import sys

import pytest

ASK = "from secateur import waiting; print(waiting.told(), 'torch' in sys.modules)"


@pytest.mark.parametrize(
    ("code", "given", "told"),
    [
        ("import secateur; secateur.compress", {}, "passive True"),
        ("import secateur; secateur.InferenceSession", {}, "active False"),
        ("import torch, secateur; secateur.compress", {}, "active True"),
        ("import secateur; secateur.compress", {"OMP_WAIT_POLICY": "active"}, "active True"),
        ("import torch, secateur; secateur.compress", {"OMP_WAIT_POLICY": "passive"}, "passive True"),
    ],
)
def test_waiting_is_passive_where_it_can_be(code: str, given: dict[str, str], told: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; {ASK}"], env=environment | given, capture_output=True, text=True
    )
    assert done.stdout.strip() == told, done.stderr


def test_the_command_line_asks_first() -> None:
    code = "import os\nfrom secateur.cli import main\ntry:\n    main(['methods'])\nexcept SystemExit:\n    pass\n"
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", code + "print(os.environ['GOMP_SPINCOUNT'])"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.endswith("0\n"), done.stderr
