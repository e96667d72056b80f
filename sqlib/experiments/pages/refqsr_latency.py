"""Seconds and memory of the rows of RefQSR's Table 6, on the processor that makes the record.

SRResNet x4 with random weights, which change nothing of the work, over DDTB; one picture of 4096 x 2160 in
patches of 96 that share 6. Widths of 8 and 4 bits are simulated in 32-bit floating point, as in training.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from sqlib import QuantizedModel

PATCH, OVERLAP = 96, 6
SIZE = (1024, 540)
"""Width and height in low resolution."""
REPEATS = 3
REFINED = "DDTB+RefQSR 8-4"
ALONE = f"{REFINED}, a pass per patch"
_SHORT = {"schedule": "custom", "steps": 0, "halve_every": 1, "bound_learning_rate": 0.01}


def make(size: tuple[int, int] = SIZE, repeats: int = REPEATS) -> dict[str, Any]:
    """By row: ``seconds`` (`repeats` of them, rows in turns, after one unmeasured turn), and of some more.

    ``peak_mb``: what a process of its own holds at most during its first pass, less what it held before
    (Linux; otherwise None). The refined row also has ``refer_seconds``, those within its
    two refinement blocks, how many ``patches`` there are, and how many of them are ``queries``. The same with
    a pass for each patch has the largest ``difference`` of a value in 0..255.
    """
    from sqlib.evaluate import super_resolve
    from sqlib.patches import Tiling

    lr, rows = picture(size), networks()
    refined = rows[REFINED]
    runs: dict[str, Callable[[], Any]] = {
        name: partial(super_resolve, model, lr, tiling=Tiling(PATCH, OVERLAP), rounded=True)
        for name, model in rows.items()
    }
    runs[ALONE] = partial(one_by_one, refined, lr)
    found: dict[str, Any] = {name: {"seconds": []} for name in runs}
    for name in rows:
        found[name]["peak_mb"] = _in_a_process(name, size)
    found[REFINED]["refer_seconds"] = []
    spent = _timed(refined)
    for turn in range(repeats + 1):
        for name, run in runs.items():
            spent.clear()
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            if not turn:
                continue
            found[name]["seconds"].append(round(seconds, 3))
            if name == REFINED:
                found[name]["refer_seconds"].append(round(sum(spent), 3))
    with refined.passes() as passes:
        together = super_resolve(refined, lr, tiling=Tiling(PATCH, OVERLAP))
    found[REFINED]["queries"] = sum(c.samples for c in passes if c.roles[0] == "query")
    found[REFINED]["patches"] = sum(c.samples for c in passes)
    found[ALONE]["difference"] = float(np.abs(one_by_one(refined, lr) - together).max())
    return found


def one_by_one(model: QuantizedModel, lr: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The two paths with a single patch in each pass; as `sqlib.evaluate.super_resolve`."""
    import torch

    from sqlib.patches import Grid, merge, split
    from sqlib.reference.clustering import ClustBlock
    from sqlib.reference.two_path import upscale_patches

    x = torch.from_numpy(np.ascontiguousarray(lr.transpose(2, 0, 1), dtype=np.float32))[None] / 255
    grid = Grid(x.shape[2], x.shape[3], PATCH, OVERLAP)
    with torch.inference_mode():
        found = upscale_patches(model, split(x, grid), ClustBlock(), at_once=1)
    return np.ascontiguousarray((merge(found, grid, 4)[0] * 255).permute(1, 2, 0).numpy())


def _in_a_process(name: str, size: tuple[int, int]) -> float | None:
    """`_peak` in a process that has done nothing before: what another pass left behind is used again."""
    import torch

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak, name, size, torch.get_num_threads()).result()


def _peak(name: str, size: tuple[int, int], threads: int) -> float | None:
    """The most memory of a pass of a row, in MB."""
    import torch

    from sqlib.evaluate import super_resolve
    from sqlib.patches import Tiling

    torch.set_num_threads(threads)
    lr, network = picture(size), networks()[name]
    before = _reset_peak()
    super_resolve(network, lr, tiling=Tiling(PATCH, OVERLAP), rounded=True)
    return None if before is None else round(_memory("VmHWM") - before, 1)


def median(row: Mapping[str, Any], key: str = "seconds") -> float:
    """Of the values of a row, such as its seconds."""
    return statistics.median(row[key])


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A shipped photograph, mirrored on and on to width and height."""
    from sqlib import datasets

    photos = datasets.load("builtin")
    image = photos.hr(photos.names.index("china"))
    below, right = (max(0, want - have) for want, have in zip(size[::-1], image.shape[:2]))
    wide = np.pad(image, ((0, below), (0, right), (0, 0)), mode="symmetric")
    return np.ascontiguousarray(wide[: size[1], : size[0]])


def networks() -> dict[str, QuantizedModel]:
    """DDTB at 8 and at 4 bits, and RefQSR over the first with queries of 4, with two refinement blocks."""
    import torch

    from sqlib import models, quantize_model
    from sqlib.patches import Grid, split
    from sqlib.recipes import DDTB, RefQSR

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.create("srresnet", scale=4).eval()
    whole = torch.from_numpy(picture((512, 270))).permute(2, 0, 1)[None].float() / 255
    crops = [torch.cat([patch[..., :48, :48] for patch in split(whole, Grid(270, 512, 48))])[:16]]
    made = {f"DDTB {bits}": quantize_model(network, DDTB(bits, **_SHORT), crops) for bits in (8, 4)}
    recipe = RefQSR(base=DDTB(8, **_SHORT), low=4, **_SHORT)
    return {**made, REFINED: quantize_model(network, recipe, crops, start=made["DDTB 8"])}


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Seconds and memory are another number each time; queries repeat."""
    was, now = old[REFINED]["queries"], new[REFINED]["queries"]
    return "" if was == now else f"{now} query patches, recorded {was}"


def _timed(network: QuantizedModel) -> list[float]:
    """Seconds of every run of a refinement block from now on."""
    spent: list[float] = []
    started: list[float] = []
    for name, module in network.named_modules():
        if name.endswith(".refer"):
            module.register_forward_pre_hook(lambda *_: started.append(time.perf_counter()))
            module.register_forward_hook(lambda *_: spent.append(time.perf_counter() - started.pop()))
    return spent


def _reset_peak() -> float | None:
    """Forget the most memory that this process held; what it holds now in MB."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _memory("VmRSS")
    except OSError:
        return None


def _memory(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"no {name} in /proc/self/status")
