"""Ramps or holds a learning rate in Keras, then decays it to an exact target.

A rule has a base rate, a target rate and a number of epochs, and optionally a warm-up,
a ramp and a hold. Everything else in this package is built on `DecayRule`.
"""

from expdecay_keras.callbacks import (
    LearningRateLogger,
    LearningRateTensorBoard,
    WarmupExponentialDecay,
)
from expdecay_keras.plotting import plot_learning_rate
from expdecay_keras.rule import DecayRule
from expdecay_keras.schedule import WarmupExponentialSchedule, make_lr_scheduler

__version__ = "1.0.0"
__all__ = [
    "DecayRule",
    "LearningRateLogger",
    "LearningRateTensorBoard",
    "WarmupExponentialDecay",
    "WarmupExponentialSchedule",
    "make_lr_scheduler",
    "plot_learning_rate",
]
