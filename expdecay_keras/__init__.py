"""Hold, ramp and exponentially decay a learning rate in Keras, exactly.

Four numbers make the rule: a base learning rate, a target learning rate, the number of epochs and
the number of warm-up epochs. `DecayRule` is the equation; everything else asks it.
"""

import os.path
import re
import sys

__version__ = "0.1.0"

# Every import of this package brings every name and registers the classes with Keras. Only the
# command line, which has to answer --help without TensorFlow's seconds of start-up, imports what it
# needs when it needs it.
_program = os.path.basename(sys.argv[0]) if sys.argv else ""
_python = " ".join(getattr(sys, "orig_argv", []))
if not (
    _program in ("expdecay-keras", "expdecay-keras.exe")
    or (_program == "-m" and re.search(rf" -\w*m ?{__name__}( |$)", _python))
):
    from expdecay_keras.callbacks import LearningRateLogger, WarmupExponentialDecay
    from expdecay_keras.plotting import plot_learning_rate
    from expdecay_keras.rule import DecayRule
    from expdecay_keras.schedule import WarmupExponentialSchedule
    from expdecay_keras.scheduler import make_lr_scheduler

__all__ = [
    "DecayRule",
    "LearningRateLogger",
    "WarmupExponentialDecay",
    "WarmupExponentialSchedule",
    "make_lr_scheduler",
    "plot_learning_rate",
]
