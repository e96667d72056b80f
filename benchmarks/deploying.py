"""A network in torch, in ONNX Runtime, and in integers: seconds a picture and PSNR on Set5.

EDSR-baseline x4, all of it in 8 bits but the first convolution, beside ONNX Runtime's own static quantizer
with each of its calibration methods. With ``--write`` the figures become those of the chapter "Deploying"
(`sqlib.export.measured`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from _measure import QUICK, Row, compare, machine, measure, report
from torch import Tensor, nn

import sqlib
from sqlib import datasets, export, models, recipes
from sqlib.errors import DataError
from sqlib.evaluate import evaluate

NAME, SCALE, THREADS = "edsr-baseline", 4, 2
SIZES = ((120, 160), (180, 320))
AIM = 3.5


class HalfPrecision(nn.Module):
    """A network under bfloat16 autocast."""

    scale = SCALE

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.network(x).float()


def float_file(network: nn.Module, path: Path) -> None:
    """The network in full precision as torch exports it."""
    free = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        network,
        (torch.rand(2, 3, 32, 40),),
        path,
        dynamo=True,
        dynamic_shapes=({0: free, 2: free, 3: free},),
        verbose=False,
        external_data=False,
    )


def static_file(source: Path, path: Path, method: str, crops: list[Tensor]) -> None:
    """ONNX Runtime's own quantizer: 8 bits, weights per channel."""
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Tensor] = iter(crops)

        def get_next(self) -> dict[str, Any] | None:
            crop = next(self.left, None)
            return None if crop is None else {"x": crop.numpy()}

    ready = path.with_suffix(".ready.onnx")
    quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    q.quantize_static(
        str(ready),
        str(path),
        Reader(),
        per_channel=True,
        activation_type=q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8,
        calibrate_method=getattr(q.CalibrationMethod, method),
    )


def contenders(folder: Path) -> dict[str, nn.Module]:
    """Everything that is compared, by name."""
    network = models.pretrained(NAME, scale=SCALE).eval()

    def runtime(stem: str) -> nn.Module:
        return export.OnnxNetwork(folder / f"{stem}.onnx", scale=SCALE, threads=THREADS)

    crops = list(datasets.calibration("builtin", n=4 if QUICK else 8, patch=48, scale=SCALE, seed=0))
    float_file(network, folder / "float.onnx")
    ours = sqlib.quantize_model(network, recipes.MinMax(bits=8), crops, skip=["head"])
    export.export_onnx(ours, folder / "ours.onnx", outputs=crops)
    found: dict[str, nn.Module] = {
        "torch float32": network,
        "torch bfloat16": HalfPrecision(network),
        "ONNX Runtime float32": runtime("float"),
        "ours, int8": runtime("ours"),
    }
    for method in ("MinMax", "Entropy", "Percentile")[: 1 if QUICK else 3]:
        static_file(folder / "float.onnx", folder / f"{method}.onnx", method, crops)
        found[f"ONNX Runtime int8, {method.lower()}"] = runtime(method)
    return found


def timed(network: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """One pass without gradients."""

    def call() -> Tensor:
        with torch.inference_mode():
            return network(x)  # type: ignore[no-any-return]

    return call


def main() -> None:
    """Measure, report and print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="make these the figures of the chapter")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        networks = contenders(Path(folder))
        record: dict[str, Any] = {"machine": machine(), "load": os.getloadavg()[0], "milliseconds": {}}
        for height, width in SIZES[: 1 if QUICK else 2]:
            x = torch.rand(1, 3, height, width)
            case = f"{NAME} x{SCALE}, {width} x {height}"
            seconds = measure({n: timed(m, x) for n, m in networks.items()}, repeats=3, warmup=1)
            record["milliseconds"][f"{width}x{height}"] = {
                name: [round(1e3 * pick(values), 1) for pick in (statistics.median, min)]
                for name, values in seconds.items()
            }
            for name in list(networks)[1:]:
                aim = AIM if name == "ours, int8" else None
                compare("deploying", case, seconds, "torch float32", name, aim)
        try:
            pairs = datasets.load("set5")
        except DataError as error:
            report(Row("deploying", "PSNR on Set5", note=f"needs data: {error}"))
            return
        pairs = pairs.subset(1) if QUICK else pairs
        record["psnr"] = {
            name: [round(image["psnr"], 4) for image in evaluate(m, pairs, scale=SCALE).images]
            for name, m in networks.items()
        }
        record["bytes"] = {p.stem: p.stat().st_size for p in Path(folder).glob("*.onnx") if "." not in p.stem}
    text = json.dumps(record, indent=1) + "\n"
    print(text)
    if args.write:
        Path(export.__file__).with_name("measured.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
