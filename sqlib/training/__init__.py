"""Full-precision training in resumable bursts."""

from sqlib.training.config import CONFIGS, TrainConfig, config
from sqlib.training.crops import CropPool, load_images
from sqlib.training.execution import Execution
from sqlib.training.loop import train
from sqlib.training.measure import measure
from sqlib.training.pack import read_pack, write_pack

__all__ = [
    "CONFIGS",
    "CropPool",
    "Execution",
    "TrainConfig",
    "config",
    "load_images",
    "measure",
    "read_pack",
    "train",
    "write_pack",
]
