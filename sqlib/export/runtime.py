"""An ONNX file as a network, for `sqlib.evaluate` and for comparisons."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from sqlib.errors import DataError, InputError


class OnnxNetwork(nn.Module):
    """Runs a file in ONNX Runtime on the CPU: images (N, C, H, W) in, float32, and the output as a tensor.

    Parameters
    ----------
    path : str or path-like
        File with one input and one output, such as `export_onnx` writes.
    scale : int
        Upscaling factor.
    threads : int or None
        None: torch's.

    Raises
    ------
    DataError
        No such file.
    InputError
        ONNX Runtime is missing, or cannot read the file.
    """

    def __init__(self, path: str | PathLike[str], *, scale: int, threads: int | None = None) -> None:
        super().__init__()
        try:
            import onnxruntime as ort
        except ImportError:
            raise InputError("running ONNX files needs ONNX Runtime: pip install onnxruntime") from None
        if not Path(path).is_file():
            raise DataError(f"there is no file {str(path)!r}")
        self.scale = scale
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes, of no common base
            raise InputError(f"ONNX Runtime cannot read {str(path)!r}: {error}") from error

    def forward(self, x: Tensor) -> Tensor:
        given = {self.session.get_inputs()[0].name: x.detach().numpy()}
        return torch.from_numpy(self.session.run(None, given)[0])
