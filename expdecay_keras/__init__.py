"""Hold, ramp and exponentially decay a learning rate in Keras, exactly.

Four numbers make the rule: a base learning rate, a target learning rate, the number of epochs and
the number of warm-up epochs. `DecayRule` is the equation; everything else asks it.
"""

import importlib
import os.path
import sys
from typing import Any

__version__ = "0.2.0"
__all__ = [
    "DecayRule",
    "LearningRateLogger",
    "LearningRateTensorBoard",
    "WarmupExponentialDecay",
    "WarmupExponentialSchedule",
    "make_lr_scheduler",
    "plot_learning_rate",
]

# An import brings every name and registers the classes with Keras. Only the installed command, which
# has to answer --help without TensorFlow's seconds of start-up, gets each name when it asks for it.
if not sys.argv or os.path.basename(sys.argv[0]) not in ("expdecay-keras", "expdecay-keras.exe"):
    from expdecay_keras.callbacks import (
        LearningRateLogger,
        LearningRateTensorBoard,
        WarmupExponentialDecay,
    )
    from expdecay_keras.plotting import plot_learning_rate
    from expdecay_keras.rule import DecayRule
    from expdecay_keras.schedule import WarmupExponentialSchedule, make_lr_scheduler


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in ("rule", "callbacks", "schedule", "plotting"):
            found = getattr(importlib.import_module(f"{__name__}.{module}"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
