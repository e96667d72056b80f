"""Figures of "Trained networks: how the weights of this book were made"."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure


def training_curves(curves: pd.DataFrame) -> Figure:
    """Held-out PSNR (dB) against the training step, a line per network.

    `curves` has the columns network, on (the held-out images), step and psnr.
    """
    scales = sorted({network.rsplit("x", 1)[1] for network in curves["network"]})
    figure, axes = plt.subplots(
        len(scales), 1, figsize=(7, 2.6 * len(scales)), sharex=True, layout="constrained"
    )
    for axis, scale in zip(np.atleast_1d(axes), scales, strict=True):
        here = curves[curves["network"].str.endswith(f"x{scale}")].groupby("network")
        for (network, part), marker in zip(here, "osD^v<>"[: here.ngroups], strict=True):
            label = f"{network} ({part['on'].iloc[0]})"
            every = max(1, len(part) // 6)
            axis.plot(part["step"], part["psnr"], label=label, marker=marker, markevery=every)
        axis.set(ylabel=f"PSNR at x{scale} (dB)")
        axis.legend(loc="best")
    axis.set_xlabel("training step")
    return figure


def learning_rate(steps: Sequence[int], rates: Sequence[float]) -> Figure:
    """The learning rate at each of the `steps` of a training."""
    figure, axis = plt.subplots(figsize=(7, 2.6))
    axis.plot(steps, rates)
    axis.set(xlabel="training step", ylabel="learning rate")
    return figure
