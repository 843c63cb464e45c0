"""Files of other kinds that are given where an ONNX or packed model belongs, told by their first bytes."""

from __future__ import annotations

from secateur.errors import UsageError

HEAD = 4096  # bytes of a file that are looked at
_EXPORT = "export it first: torch.onnx.export(model, inputs, 'model.onnx')"
_OLD_TORCH = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the number with which torch.save began before it wrote zip files
_STARTS = (
    (b"version https://git-lfs.github.com/spec/", "is the pointer to a large file, not the file", "run `git lfs pull`"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes", "convert it to ONNX first, with tf2onnx for instance"),
    (b"\x93NUMPY", "is a NumPy array", "give a model; arrays go to --input"),
    (b"\x1f\x8b", "is compressed with gzip", "unpack it first: gunzip"),
    (b"\xfd7zXZ\x00", "is compressed with xz", "unpack it first: unxz"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unpack it first: unzstd"),
    (b"GGUF", "is a GGUF file, as llama.cpp reads", "give an .onnx or .sct file"),
)


def refuse(subject: str, head: bytes) -> None:
    """UsageError when a file that begins with `head` is recognised as something that is no model of ours."""
    kind = _kind(head[:HEAD])
    if kind is not None:
        raise UsageError(f"{subject}: {kind[0]}; {kind[1]}")


def _kind(head: bytes) -> tuple[str, str] | None:
    """What the file is, and what to do; None where it may be a model."""
    for start, what, advice in _STARTS:
        if head.startswith(start):
            return what, advice
    if head.startswith(b"PK\x03\x04"):
        return _archive(head)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return ("is a PyTorch file" if _OLD_TORCH in head else "is a Python pickle, perhaps of PyTorch"), _EXPORT
    if head[4:8] == b"TFL3":
        return "is a TensorFlow Lite model", "convert it to ONNX first, with tf2onnx for instance"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 100_000_000:
        return "holds tensors only (safetensors), no network", "load them into their model and " + _EXPORT
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "is an HTML page, not a model", "the download went wrong: fetch the file itself"
    if text.startswith(b"<?xml"):
        return "is an XML file, not a model", "give the .onnx file that it was made from"
    return None


def _archive(head: bytes) -> tuple[str, str]:
    if any(name in head for name in (b"/data.pkl", b"archive_format", b".data/serialization_id")):
        return "is a PyTorch file", _EXPORT
    if b".npy" in head[30:300]:
        return "holds NumPy arrays (.npz)", "give a model; arrays go to --input"
    return "is a zip archive", "unpack it and give the .onnx file in it"
