"""What a quantizer is beyond its tensors (bits, axis, centring, ...): saved with them, checked on loading.

Bounds of 8 bits are tensors of the same shape as bounds of 4 bits, so shapes alone would let one load into
the other. A quantizer's state dict therefore has one entry more, a float64 tensor: a tensor, because
everything that people do with a state dict (safetensors, averages over its values, moves to a device) expects
tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sqlib.errors import InputError

NONE = -float(2**20)
"""Stands for None among numbers: equal to itself, as NaN is not, and to its averages."""


class QuantizerState(nn.Module):
    """Base of the quantizers: attributes travel in the state dict, tensors keep their dtype.

    Attributes
    ----------
    checked : tuple of str
        Names of attributes that the recipe decides; loading state in which one differs is an error.
    carried : tuple of str
        Names of attributes that calibration decides; loading takes them over, as it takes bounds and points.
        Every attribute is an integer, a truth value or None.
    packed : tuple of str
        Names of tensors that are the quantized values themselves, not something that goes with them.
    labels : tuple of str
        Names of attributes that only say where the quantizer comes from; kept by `options` alone.

    Notes
    -----
    State without the entry loads unchecked. State that is refused leaves the quantizer as it was; torch
    collects the messages of all quantizers into one RuntimeError.

    ``.half()`` and friends move no bound and no point: a rounded one would be another quantizer.
    """

    checked: ClassVar[tuple[str, ...]] = ()
    carried: ClassVar[tuple[str, ...]] = ()
    packed: ClassVar[tuple[str, ...]] = ()
    labels: ClassVar[tuple[str, ...]] = ("method",)

    # What was derived from the tensors, and what it was derived from; looked at, never trusted.
    _known: Any = None

    def options(self) -> dict[str, Any]:
        """The attributes by name: with the tensors, all that ``rebuild`` needs to make an equal quantizer."""
        return {name: getattr(self, name) for name in (*self.checked, *self.carried, *self.labels)}

    def setting(self, name: str) -> int | None:
        """The value of what `checked` or `carried` names: an attribute, unless a class says otherwise."""
        return getattr(self, name)  # type: ignore[no-any-return]

    def get_extra_state(self) -> Tensor:
        """The attributes, in the order of their names in `checked` and `carried`; None is `NONE`."""
        values = [self.setting(name) for name in (*self.checked, *self.carried)]
        return torch.tensor([NONE if v is None else v for v in values], dtype=torch.float64)

    def set_extra_state(self, state: Any) -> None:
        """Take over what is carried.

        Raises
        ------
        InputError
            Where what is checked differs; nothing is changed then.
        """
        found = self._settings(state)
        for name in self.carried:
            value = found[name]
            setattr(self, name, bool(value) if isinstance(getattr(self, name), bool) else value)

    def _settings(self, state: Any) -> dict[str, int | None]:
        """The attributes in `state`, if they go with this quantizer; else `InputError`."""
        names = (*self.checked, *self.carried)
        if not isinstance(state, Tensor) or state.shape != (len(names),):
            given = f"of shape {tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
            raise InputError(
                f"settings {given}, expected {len(names)} numbers ({', '.join(names)}): the state is that of "
                "another kind of quantizer, or of another version of sqlib"
            )
        # rounded, because an average of equal numbers may be off by its last bits
        numbers = torch.round(torch.nan_to_num(state.detach().cpu().double())).tolist()
        found = {n: None if v == NONE else int(v) for n, v in zip(names, numbers, strict=True)}
        different = [name for name in self.checked if found[name] != self.setting(name)]
        if different:
            saved = ", ".join(f"{name}={found[name]}" for name in different)
            here = ", ".join(f"{name}={self.setting(name)}" for name in different)
            raise InputError(
                f"the state was saved with {saved}, here it is {here}; quantize with the recipe that the "
                "state was saved from"
            )
        return found

    def _admit(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Raise `InputError` for state that must not be loaded."""
        state = state_dict.get(prefix + "_extra_state")
        if state is not None:
            self._settings(state)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        try:
            self._admit(state_dict, prefix)
        except InputError as error:
            where = prefix.rstrip(".").replace("/", ".") or type(self).__name__
            error_msgs.append(f"{where}: {error}")
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        entry = prefix + "_extra_state"
        if entry in missing_keys:
            missing_keys.remove(entry)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def keep_dtype(t: Tensor) -> Tensor:
            device = fn(torch.zeros(0, dtype=torch.uint8, device=t.device)).device
            if device.type == "mps":  # which has no float64
                return t.to(device, torch.float32)
            moved = fn(t)
            return moved if moved.dtype == t.dtype else t.to(device)

        return super()._apply(keep_dtype, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_known"}
