"""Full-precision training that can be interrupted at any step, from originals, from a teacher, or both."""

from sqlib.training.config import CONFIGS, TrainConfig, config
from sqlib.training.crops import CropPool, load_images
from sqlib.training.execution import Execution, has_bf16
from sqlib.training.loop import train
from sqlib.training.prepare import Prepared, prepare
from sqlib.training.targets import teacher_targets

__all__ = [
    "CONFIGS",
    "CropPool",
    "Execution",
    "Prepared",
    "TrainConfig",
    "config",
    "has_bf16",
    "load_images",
    "prepare",
    "teacher_targets",
    "train",
]
