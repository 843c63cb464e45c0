"""Default threads are what the process may use, not what the machine has."""

import os
import subprocess
import sys

import pytest

from secateur.engine import usable_cpus

PINNED = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
from onnx import TensorProto, helper
from secateur.engine import InferenceSession, usable_cpus
info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
print(usable_cpus(), InferenceSession(model).threads, InferenceSession(model, threads=3).threads)
"""

TRAINING = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import torch
from secateur.training import seeds, threads
torch.set_num_threads(7)
steps = []
print(threads.choose(lambda: steps.append(1), "auto"), threads.choose(lambda: None, 5), len(steps))
with seeds.isolated():
    print(torch.get_num_threads())
print(torch.get_num_threads())
"""

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks on this system")


def printed(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@needs_affinity
def test_never_more_than_the_affinity_mask() -> None:
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))


@needs_affinity
def test_a_session_of_a_process_that_is_pinned_to_one_cpu_has_one_thread() -> None:
    assert printed(PINNED) == ["1", "1", "3"]


@needs_affinity
def test_training_of_a_process_that_is_pinned_to_one_cpu_takes_one_thread_and_times_nothing() -> None:
    assert printed(TRAINING) == ["1", "5", "0", "1", "7"]
