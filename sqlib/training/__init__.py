"""Full-precision training in resumable bursts."""

from sqlib.training.config import CONFIGS, TrainConfig, config
from sqlib.training.crops import CropPool, load_images
from sqlib.training.loop import train

__all__ = ["CONFIGS", "CropPool", "TrainConfig", "config", "load_images", "train"]
