"""Full-precision training that can be interrupted at any step, from originals, from a teacher, or both.

Configurations, images, targets and cards are here; the steps are those of `sqlib.fit.loop`.
"""

from sqlib.fit.loop.checkpoint import FILE as CHECKPOINT
from sqlib.fit.loop.execution import Execution, has_bf16
from sqlib.training.config import CONFIGS, TrainConfig, config
from sqlib.training.crops import CropPool, Crops, load_images
from sqlib.training.pairs import pairs
from sqlib.training.prepare import Prepared, prepare
from sqlib.training.run import train
from sqlib.training.targets import teacher_targets

__all__ = [
    "CHECKPOINT",
    "CONFIGS",
    "CropPool",
    "Crops",
    "Execution",
    "Prepared",
    "TrainConfig",
    "config",
    "has_bf16",
    "load_images",
    "pairs",
    "prepare",
    "teacher_targets",
    "train",
]
