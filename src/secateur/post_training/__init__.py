"""From an ONNX file and examples alone, without torch and without training: int8 by calibration, one-shot pruning."""

from __future__ import annotations

from secateur.post_training.int8 import Quantized as Quantized
from secateur.post_training.int8 import quantize as quantize
from secateur.post_training.pruning import Pruned as Pruned
from secateur.post_training.pruning import prune as prune
