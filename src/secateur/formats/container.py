"""The `.sct` container from Python: `pack`, `pack_levels`, `unpack`, `measure`, `sections`.

The coder itself is C++ (`engine/formats/`, bound in `secateur.native._native`); the file is specified in
`docs/format.md`. Needs NumPy only.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# ONNX TensorProto.DataType of each NumPy dtype that a file can hold.
_DTYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11, "uint32": 12, "uint64": 13, "bfloat16": 16,
}  # fmt: skip

LIMIT = 2**31  # bytes of tensors a file may decode to, unless the caller says otherwise


@dataclass(frozen=True)
class Measured:
    """The exact size of one tensor in a `.sct` file, found by writing it to memory.

    Attributes:
        nbytes: length of the tensor's stream in bytes in a file that holds nothing like it before; after an equal or
            similar tensor it is shorter, never longer. Name, shape and dtype are part of the graph, not counted here.
        layout: where the kept values sit (a file of `formats/layouts`).
        codec: how one value is written (a file of `formats/codecs`).
        bound_nbytes: [log2 C(n, nnz) + nnz * H0(values) + bits of the codebook] / 8; nbytes <= 1.03 of this + 32.
        nnz: kept (non-zero) values.
        n_values: distinct values among them; 65536 means that many or more.
    """

    nbytes: int
    layout: str
    codec: str
    bound_nbytes: float
    nnz: int
    n_values: int

    @property
    def max_nbytes(self) -> int:
        """The most the size law allows: ceil(1.03 * bound) + 32."""
        return math.ceil(1.03 * self.bound_nbytes) + 32


@dataclass(frozen=True)
class Section:
    """One part of a `.sct` file; the `nbytes` of all parts add up to the file.

    Attributes:
        name: the initializer's name; for other parts the kind again; empty for a tensor inside an attribute.
        kind: header | graph | tensor | checksum; `level 1` and on: what tells that level from the one before.
        layout, codec: as in `Measured`; empty for other kinds.
        nbytes: bytes in the file.
        bound_nbytes: the ideal of `Measured`; 0 for other kinds.
        shape: the tensor's shape.
        nnz: kept (non-zero) values.
        n_values: distinct values among them.
        dtype: NumPy's name of the element type.
    """

    name: str
    kind: str
    layout: str
    codec: str
    nbytes: int
    bound_nbytes: float
    shape: tuple[int, ...]
    nnz: int
    n_values: int
    dtype: str


def pack(onnx: bytes, exact: bool = False) -> bytes:
    """The smallest `.sct` coding of an ONNX model.

    Only the model is looked at: zeros, few-valued tensors, uniform grids and N:M groups are found in its values.
    Weights that only multiply (of Conv, ConvTranspose, Gemm, MatMul) lose the sign of their zeros: -0.0, which
    `w * mask` leaves, costs what a zero costs.

    Args:
        onnx: a serialized ModelProto; not changed.
        exact: keep the file itself, so that `unpack` gives the very same bytes (names of inner values, doc strings,
            metadata, value_info and default attributes included). A model with what the graph coder has no words for
            (subgraphs, functions, strings, types of few bits) is stored so without being asked.
    Returns:
        The file. The same input gives the same bytes on every machine.
    Raises:
        FormatError: the model is damaged (with the byte offset).
        UnsupportedError: tensors whose data lies in other files (external data).
    """
    return bytes(_native().sct_pack(bytes(onnx), exact))


def pack_levels(onnx: Sequence[bytes]) -> bytes:
    """One `.sct` file of several levels of a net, from loose to tight: what differs is told level from level.

    A tensor of which a level keeps some values and zeroes the others costs about a bit or less for each value of the
    level before; what differs otherwise (the norms of a level) is stored again.

    Args:
        onnx: 2 to 16 models of one graph; they differ in values only.
    Raises:
        UsageError: another number of models, or of another graph. FormatError, UnsupportedError: as `pack`, which a
        model that only its very bytes can hold is, too.
    """
    return bytes(_native().sct_pack_levels([bytes(model) for model in onnx]))


def levels(sct: bytes) -> int:
    """How many levels a `.sct` file says that it has; 1 for any other model. The first bytes are enough."""
    return int(_native().sct_levels(bytes(sct)))


def unpack(sct: bytes, limit: int = LIMIT, level: int = 0) -> bytes:
    """The ONNX model inside a `.sct` file: the same values to the bit.

    Inputs, outputs, initializer names, dtypes, opsets are kept; inner values and nodes get canonical names, unless the
    file was packed with `exact`. `pack(unpack(p)) == p`.

    Args:
        sct: the file.
        limit: refuse files whose tensors take more bytes than this.
        level: of a file that has several, 0 (the loosest) on; tighter ones than that are not read.
    Raises:
        FormatError: the file is damaged, truncated, of a newer major version or above the limit (with the byte offset).
        UsageError: no such level.
    """
    return bytes(_native().sct_unpack(bytes(sct), limit, level))


def sections(sct: bytes, limit: int = LIMIT) -> list[Section]:
    """Where the bytes of a `.sct` file are; the sizes add up to the whole file. Raises like `unpack`."""
    return [
        Section(
            name=s["name"], kind=s["kind"], layout=s["layout"], codec=s["codec"], nbytes=s["nbytes"],
            bound_nbytes=s["bound_bits"] / 8, shape=tuple(s["shape"]), nnz=s["nnz"], n_values=s["n_values"],
            dtype=s["dtype"],
        )
        for s in _native().sct_sections(bytes(sct), limit)
    ]  # fmt: skip


def measure(values: NDArray[Any]) -> Measured:
    """The exact size of one tensor in a file, without writing the file.

    Args:
        values: any shape; float16/32/64, (u)int8..64, bool. Axis 0 is taken as outputs, axis 1 as inputs, the rest as
            the kernel: give weights in the model's own shape. Not changed.
    Raises:
        UnsupportedError: another dtype.
    """
    array = np.ascontiguousarray(values).reshape(values.shape)  # ascontiguousarray makes scalars 1-D
    code = _DTYPES.get(array.dtype.name)
    if code is None:
        known = ", ".join(_DTYPES)
        raise UnsupportedError(f"measure: arrays of {array.dtype} cannot be stored; supported: {known}")
    if array.dtype.byteorder == ">":
        raise UsageError("measure: the array is big-endian; convert it with .astype('<...')")
    _, r = _native().sct_encode_tensor(code, list(array.shape), array.tobytes())
    return Measured(r["nbytes"], r["layout"], r["codec"], r["bound_bits"] / 8, r["nnz"], r["n_values"])


def _native() -> Any:
    return importlib.import_module("secateur.native._native")
