"""The one training loop, and what it is made of.

A `Task` says what is trained; `fit` trains it: schedule, optimizer, clipping, average, checkpoints, guards,
interruption, time limit and progress are here and nowhere else.
"""

from sqlib.fit.loop.average import Average
from sqlib.fit.loop.bar import Bar, progress
from sqlib.fit.loop.loop import Fitted, Loop, fit
from sqlib.fit.loop.task import Group, NotFinite, Task

__all__ = ["Average", "Bar", "Fitted", "Group", "Loop", "NotFinite", "Task", "fit", "progress"]
