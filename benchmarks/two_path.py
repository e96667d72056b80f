"""RefQSR on one picture: its patches together, against each patch by itself and against all patches alike.

Run: ``python benchmarks/two_path.py [--threads 2] [--repeats 3]``. SRResNet x4 with random weights, which
change nothing of the work, over DDTB at 8 bits with queries of 4. It upscales 512 x 270 pixels of a photo
to 2048 x 1080, in patches of 96 that share 6. Clustering, both paths and stitching are in every time. Aim: 3
times the pictures a second of one pass for each patch, outputs equal up to the rounding of sums. Also shown
are the seconds of DDTB at 8 and 4 bits, and what a pass holds in memory (`sqlib.cost`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from _measure import QUICK, compare, measure, show

from sqlib.cost import cost
from sqlib.evaluate import super_resolve
from sqlib.experiments.pages.refqsr_latency import ALONE, REFINED, networks, one_by_one, picture
from sqlib.patches import Tiling

AIM = 3.0
TILING = Tiling(96, 6)
TOGETHER = f"{REFINED}, patches together"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lr = picture((204, 108) if QUICK else (512, 270))
    rows = networks()
    refined = rows.pop(REFINED)
    contenders: dict[str, Callable[[], np.ndarray]] = {
        ALONE: partial(one_by_one, refined, lr),
        TOGETHER: partial(super_resolve, refined, lr, tiling=TILING),
        **{name: partial(super_resolve, model, lr, tiling=TILING) for name, model in rows.items()},
    }
    with refined.passes() as passes:
        expected = contenders[TOGETHER]()
    assert np.abs(contenders[ALONE]() - expected).max() < 1.0, "other outputs one by one"
    size = expected.shape[1], expected.shape[0]
    found = cost(refined, size, patch=96, overlap=6, context=passes)
    queries = sum(c.samples for c in passes if c.roles[0] == "query")
    plain = cost(rows["DDTB 8"], size, patch=96, overlap=6)
    print(f"srresnet x4, {found.patches} patches, {queries} of them queries, in {len(passes)} passes")
    for name, price in ((REFINED, found), ("DDTB 8", plain)):
        memory = f"{price.peak_bytes / 2**20:.0f} MiB for the largest patch"
        print(f"{name}: {price.bitops / 1e9:.2f} G BitOPs, FQR {price.fqr:.2f}, {memory}")
    seconds = measure(contenders, repeats=args.repeats, warmup=0)
    case = f"srresnet x4, {size[0]} x {size[1]}, {args.threads} threads"
    show(case, seconds, ALONE)
    compare("two_path", case, seconds, ALONE, TOGETHER, AIM)
    compare("two_path", case, seconds, "DDTB 8", TOGETHER)


if __name__ == "__main__":
    main()
