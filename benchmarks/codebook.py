"""Choosing points for one EDSR layer: exact selection against k-means with snapping and against a sort.

Run: ``python benchmarks/codebook.py [--repeats N] [--channels C]``. 64 channels x 73,728 normalized values
(float32), 377 candidates. One thread; every ratio is measured within one run. scikit-learn is measured on
the first C channels and multiplied by 64/C, which the output says.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from _measure import measure
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from sqlib.codebook import fit_codebook, universal_set

CHANNELS, VALUES = 64, 73_728
REQUIRED = {4: (500, 5), 8: (4000, 3)}  # times faster than k-means with snapping, than numpy.sort


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
    parser.add_argument("--channels", type=int, default=2, help="channels for scikit-learn (scaled to 64)")
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 4, 6, 8])
    options = parser.parse_args()
    x, u = activations(), universal_set(4)
    halves = x[: CHANNELS // 2], x[CHANNELS // 2 :]
    with threadpool_limits(limits=1), ThreadPoolExecutor(2) as pool:
        for bits in options.bits:
            levels = 1 << bits
            seconds = measure(
                {
                    "exact selection": lambda: fit_codebook(x, u, levels),  # noqa: B023 - called at once
                    "np.sort of the same values": lambda: np.sort(x, axis=1),
                    "exact selection, two threads": lambda: list(
                        pool.map(lambda part: fit_codebook(part, u, levels), halves)  # noqa: B023
                    ),
                },
                repeats=options.repeats,
                warmup=1,
            )
            book = fit_codebook(x, u, levels)
            some, errors = [], []
            for c in range(options.channels):
                times = []
                for _ in range(3):  # the same seed, so the same work: only the time differs
                    start = time.perf_counter()
                    error = kmeans_and_snap(x[c], u, levels, c)
                    times.append(time.perf_counter() - start)
                some.append(min(times))
                errors.append(error / book.error[c])
            kmeans = sum(some) * CHANNELS / options.channels
            tracemalloc.start()
            fit_codebook(x, u, levels)
            extra = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            exact = min(seconds["exact selection"])
            print(f"\n{bits} bit, {CHANNELS} x {VALUES} values, {u.size} candidates, one thread")
            print(f"{'':<40}{'min ms':>12}{'median ms':>12}{'x exact':>12}")
            for name, values in seconds.items():
                line(name, values, exact)
            note = f"measured on {options.channels} of {CHANNELS} channels, min of 3 each, and scaled"
            line("KMeans(n_init=3) and snap", [kmeans], exact, note)
            print(f"error of k-means and snap over exact: {min(errors):.4f} to {max(errors):.4f}")
            print(f"memory beyond the data (NumPy's and Python's allocations): {extra:.2f} MB")
            if bits in REQUIRED:
                ratios = kmeans / exact, min(seconds["np.sort of the same values"]) / exact
                for got, want, rival in zip(ratios, REQUIRED[bits], ("k-means and snap", "np.sort")):
                    print(f"{'met' if got >= want else 'MISSED'}: {got:.1f} x {rival}, required {want}")


if __name__ == "__main__":
    main()
