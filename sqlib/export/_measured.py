"""What ``python benchmarks/deploying.py --write`` measured, once, on one machine."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def measured() -> dict[str, Any]:
    """Latency and PSNR of EDSR-baseline x4 in torch, in ONNX Runtime and in integers.

    Returns
    -------
    dict
        ``machine`` and its ``load`` (average over a minute, at the start), ``milliseconds[size][contender]``
        (median and minimum of a picture of that low-resolution size), ``psnr[contender]`` in dB,
        one per image of Set5, and ``bytes[file]``.
    """
    text = (resources.files("sqlib.export") / "measured.json").read_text("utf-8")
    return json.loads(text)  # type: ignore[no-any-return]
