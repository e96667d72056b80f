"""What a training has to say to the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from sqlib.fit.loop.average import Average

State = dict[str, Any]


class Group(NamedTuple):
    """Tensors that Adam moves, all with one learning rate, which is a function of the 0-based step."""

    parameters: Sequence[Tensor]
    rate: Callable[[int], float]
    betas: tuple[float, float] = (0.9, 0.999)


class NotFinite(Exception):
    """A task found something other than loss and gradients that is not finite; the message says what."""


class Task:
    """One training: what is trained, on what, towards what. `sqlib.fit.loop.fit` does the rest.

    Attributes
    ----------
    name : str
        What stopped, in messages, such as "distillation".
    steps : int
        Length of the schedule.
    average : Average or None
        Exponential average that the loop keeps up to date and saves, or None.
    remedy : str
        What to do when loss or gradients are not finite.
    aftermath : str
        What is left then, where the caller does more than the loop, which goes back to the last good state.
    """

    name: str
    steps: int
    average: Average | None = None
    remedy: str = "lower the learning rate, or look for NaN and infinity in the data"
    aftermath: str = ""

    def groups(self) -> Sequence[Group]:
        """What the optimizer moves; asked once, when the loop begins."""
        raise NotImplementedError(f"{type(self).__name__}.groups")

    def loss(self, step: int) -> Tensor:
        """The loss of a batch that the task draws itself, as a scalar.

        Whatever it depends on besides `step` (a random generator) is part of `state`.
        """
        raise NotImplementedError(f"{type(self).__name__}.loss")

    def backpropagated(self) -> None:
        """The gradients of `loss` are there, before they are checked, clipped and used."""

    def stepped(self) -> None:
        """The optimizer has moved the parameters; may raise `NotFinite`."""

    def judge(self, step: int, losses: Sequence[float]) -> None:
        """`step` steps are done and a checkpoint follows; `losses` are those since the last one."""

    def state(self) -> State:
        """Tensors, numbers, texts, lists and dictionaries from which `restore` continues bit for bit.

        Without step, losses, optimizer and average, which the loop saves itself.
        """
        raise NotImplementedError(f"{type(self).__name__}.state")

    def restore(self, state: State) -> None:
        """Go back to `state`, in place: tensors given to the optimizer stay the same objects."""
        raise NotImplementedError(f"{type(self).__name__}.restore")
