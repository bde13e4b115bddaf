"""Learning-rate warm-up and exponential decay for Keras.

WarmupExponentialDecay: a callback for `fit` that sets the rate of each epoch.
WarmupExponentialSchedule: a schedule for the optimizer that sets the rate of each step.
LearningRateLogger: a callback that logs the rate of any optimizer as `learning_rate`.
LearningRateTensorBoard: a callback that writes the rate of every n-th step.
make_lr_scheduler: returns a function for Keras's `LearningRateScheduler`.
plot_learning_rate: plots rules, callbacks, schedules, histories and CSV files.
DecayRule: the rule by itself, the rate as a function of the epoch.
"""

from expdecay_keras.callbacks import (
    LearningRateLogger,
    LearningRateTensorBoard,
    WarmupExponentialDecay,
)
from expdecay_keras.plotting import plot_learning_rate
from expdecay_keras.rule import DecayRule
from expdecay_keras.schedule import WarmupExponentialSchedule, make_lr_scheduler

__version__ = "1.1.0"
__all__ = [
    "DecayRule",
    "LearningRateLogger",
    "LearningRateTensorBoard",
    "WarmupExponentialDecay",
    "WarmupExponentialSchedule",
    "make_lr_scheduler",
    "plot_learning_rate",
]
