"""How a training runs on a machine, as opposed to what it computes: device, precision, compilation."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sqlib.errors import InputError

CPUINFO = Path("/proc/cpuinfo")
PRECISIONS = ("auto", "fp32", "bf16")


def has_bf16(device: str = "cpu") -> bool:
    """Whether a device multiplies in bfloat16 itself, without emulation.

    Of CPUs do so those with AVX512-BF16, AMX or Armv8.6, of NVIDIA's GPUs those from Ampere on. Then a step
    takes about half the time of float32 (``benchmarks/training.py``).
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags: set[str] = set()
    if CPUINFO.is_file():
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):  # x86, ARM
                flags = set(line.partition(":")[2].split())
                break
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True)
class Execution:
    """Device and speed options of one call; they may change from call to call of one training.

    Parameters
    ----------
    device : "cpu", "cuda" or "cuda:N"
    precision : "fp32", "bf16" (autocast of the forward pass; weights, optimizer and averages stay float32) or
        "auto": bf16 on a device that has instructions for it (:func:`has_bf16`), else fp32
    compiled : whether ``torch.compile`` is used; on CUDA in the mode that replays CUDA graphs
    """

    device: str = "cpu"
    precision: str = "auto"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision={self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        try:
            kind = torch.device(self.device).type
        except RuntimeError:
            kind = "?"
        if kind not in ("cpu", "cuda"):
            raise InputError(f"device={self.device!r}, expected cpu, cuda or cuda:N")
        if kind == "cuda" and not torch.cuda.is_available():
            raise InputError(
                f"device {self.device!r} was asked for but this torch has no CUDA device; use --device cpu"
            )
        if self.precision == "auto":
            object.__setattr__(self, "precision", "bf16" if has_bf16(self.device) else "fp32")

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @property
    def is_cuda(self) -> bool:
        return self.torch_device.type == "cuda"

    @property
    def check_every(self) -> int:
        """Steps between looks at the loss, which make a CPU wait for its GPU."""
        return 50 if self.is_cuda else 1

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16)

    def wrap(self, model: nn.Module) -> nn.Module:
        """``model``, compiled if asked for; it shares its parameters with the original."""
        if not self.compiled:
            return model
        mode = "reduce-overhead" if self.is_cuda else "default"
        return torch.compile(model, mode=mode)  # type: ignore[return-value]

    def synchronize(self) -> None:
        """Wait for the device, so that a clock read next is honest."""
        if self.is_cuda:
            torch.cuda.synchronize(self.torch_device)

    def describe(self) -> dict[str, Any]:
        """What a card says about the machine of a call."""
        return {
            "device": torch.cuda.get_device_name(self.torch_device) if self.is_cuda else _processor(),
            "precision": self.precision,
            "compiled": self.compiled,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),  # a plain string: checkpoints load without unpickling
            "python": platform.python_version(),
        }


def _processor() -> str:
    """Model name of the CPU where the system tells, else its architecture."""
    if CPUINFO.is_file():
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
