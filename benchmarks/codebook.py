"""Choosing points for one EDSR layer: exact selection against k-means with snapping and against a sort.

Run: ``python benchmarks/codebook.py [--repeats N] [--channels C]``. 64 channels x 73,728 normalized values
(float32), 377 candidates. One thread; every ratio is measured within one run. scikit-learn takes turns with
the exact selection on the first C channels; its median seconds are multiplied by 64/C, which the output says.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from _measure import QUICK, Row, compare, measure, report
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from sqlib.codebook import fit_codebook, universal_set

CHANNELS, VALUES = 64, 73_728
EXACT, SORT, KMEANS = "exact selection", "np.sort of the same values", "KMeans(n_init=3) and snap"
AIMS = {4: (500, 5), 8: (4000, 3)}  # times as fast as k-means with snapping, as numpy.sort


def activations(seed: int = 0) -> np.ndarray:
    """Centred channels scaled to [-1, 1]: mixtures of a normal and a Laplace distribution, seeded."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0, 1, (CHANNELS, 1))
    x = np.where(
        rng.random((CHANNELS, VALUES)) < share,
        rng.normal(size=(CHANNELS, VALUES)),
        rng.laplace(scale=rng.uniform(0.3, 1.5, (CHANNELS, 1)), size=(CHANNELS, VALUES)),
    )
    x -= x.mean(axis=1, keepdims=True)
    return (x / (np.abs(x).max(axis=1, keepdims=True) + 1e-8)).astype(np.float32)


def kmeans_and_snap(row: np.ndarray, u: np.ndarray, levels: int, seed: int) -> float:
    """Squared error of scikit-learn's k-means (3 restarts), centres moved to their nearest candidates."""
    fit = KMeans(n_clusters=levels, n_init=3, random_state=seed).fit(row[:, None])
    centres = np.sort(fit.cluster_centers_[:, 0])
    points = u[np.searchsorted((u[:-1] + u[1:]) / 2, centres)]
    x = row.astype(np.float64)
    return float(np.square(x - points[np.searchsorted((points[:-1] + points[1:]) / 2, x)]).sum())


def line(name: str, seconds: list[float], baseline: float, note: str = "") -> None:
    low, mid = min(seconds), statistics.median(seconds)
    print(f"{name:<40}{low * 1e3:>12.2f}{mid * 1e3:>12.2f}{low / baseline:>12.2f}  {note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--channels", type=int, default=1 if QUICK else 2, help="channels for scikit-learn (scaled to 64)"
    )
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 4] if QUICK else [3, 4, 6, 8])
    options = parser.parse_args()
    x, u = activations(), universal_set(4)
    halves = x[: CHANNELS // 2], x[CHANNELS // 2 :]
    with threadpool_limits(limits=1), ThreadPoolExecutor(2) as pool:
        for bits in options.bits:
            levels = 1 << bits
            seconds = measure(
                {
                    EXACT: lambda: fit_codebook(x, u, levels),  # noqa: B023 - called at once
                    SORT: lambda: np.sort(x, axis=1),
                    "exact selection, two threads": lambda: list(
                        pool.map(lambda part: fit_codebook(part, u, levels), halves)  # noqa: B023
                    ),
                },
                repeats=options.repeats,
                warmup=1,
            )
            book = fit_codebook(x, u, levels)
            errors = [kmeans_and_snap(x[c], u, levels, c) / book.error[c] for c in range(options.channels)]
            # The same seeds, so the same work: only the time differs.
            rivals = {
                f"channel {c}": partial(kmeans_and_snap, x[c], u, levels, c) for c in range(options.channels)
            }
            slow = measure({**rivals, EXACT: partial(fit_codebook, x, u, levels)}, repeats=3, warmup=0)
            beside = statistics.median(slow.pop(EXACT))
            kmeans = sum(statistics.median(times) for times in slow.values()) * CHANNELS / options.channels
            tracemalloc.start()
            fit_codebook(x, u, levels)
            extra = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            exact = min(seconds[EXACT])
            print(f"\n{bits} bit, {CHANNELS} x {VALUES} values, {u.size} candidates, one thread")
            print(f"{'':<40}{'min ms':>12}{'median ms':>12}{'x exact':>12}")
            for name, values in seconds.items():
                line(name, values, exact)
            note = f"measured on {options.channels} of {CHANNELS} channels, median of 3 each, and scaled"
            line(KMEANS, [kmeans], exact, note)
            print(f"error of k-means and snap over exact: {min(errors):.4f} to {max(errors):.4f}")
            print(f"memory beyond the data (NumPy's and Python's allocations): {extra:.2f} MB")
            aims = AIMS.get(bits, (None, None))
            report(Row("codebook", f"{bits} bit, 1 thread", KMEANS, EXACT, kmeans / beside, aims[0]))
            compare("codebook", f"{bits} bit, 1 thread", seconds, SORT, EXACT, aims[1])


if __name__ == "__main__":
    main()
