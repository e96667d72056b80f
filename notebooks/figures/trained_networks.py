"""Figures of "Trained networks: how the weights of this book were made"."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure


def training_curves(curves: pd.DataFrame) -> Figure:
    """Held-out PSNR (dB) against the training step, a line per network.

    `curves` has the columns network, on (the held-out images), step and psnr.
    """
    figure, axis = plt.subplots(figsize=(7, 3.8))
    for (network, part), marker in zip(curves.groupby("network"), "osD^v<>Pp", strict=False):
        label = f"{network} ({part['on'].iloc[0]})"
        every = max(1, len(part) // 6)
        axis.plot(part["step"], part["psnr"], label=label, marker=marker, markevery=every)
    axis.set(xlabel="training step", ylabel="PSNR (dB)")
    axis.legend()
    return figure


def learning_rate(steps: Sequence[int], rates: Sequence[float]) -> Figure:
    """The learning rate at each of the `steps` of a training."""
    figure, axis = plt.subplots(figsize=(7, 2.6))
    axis.plot(steps, rates)
    axis.set(xlabel="training step", ylabel="learning rate")
    return figure
