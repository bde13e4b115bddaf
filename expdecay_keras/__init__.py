"""Hold, ramp and exponentially decay a learning rate in Keras, exactly.

A rule has a base and a target rate, a number of epochs, and optional warm-up, ramp and
hold. Everything else evaluates `DecayRule`.
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
