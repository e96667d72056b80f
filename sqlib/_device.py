"""Torch devices as users name them: one check, one message."""

from __future__ import annotations

import warnings

import torch

from sqlib.errors import InputError


def usable_device(name: str | torch.device) -> torch.device:
    """The device called ``name``, on which a number was computed and read back.

    Raises
    ------
    InputError
        Torch does not know it, it is not here, or it holds no numbers (``meta``).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of device names that torch gave up
            device = torch.device(name)
            if device.type != "meta":
                torch.ones(1, device=device).sum().item()
    # torch has a kind of exception for every way in which a device can be unknown, absent or not built in.
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        reason = lines[0].split(". ")[0][:120]
        raise InputError(
            f"device {str(name)!r} cannot be used: {reason}; expected cpu, or another that is here, such as "
            "cuda or cuda:0"
        ) from error
    if device.type == "meta":
        raise InputError("device 'meta' cannot be used: it knows shapes but computes no numbers; use cpu")
    return device
