"""What making our objects, and training with them, does to TensorFlow's runtime."""

import pytest
from releases import BACKEND

MAKE = """
import copy, pickle
import tensorflow as tf
import expdecay_keras as ek
from models import X, Y, build_model, train

rule = (0.1, 1e-3, 5, 2, 0.01, 1)
schedule = ek.WarmupExponentialSchedule(*rule, steps_per_epoch=4, staircase=False)
made = [
    ek.DecayRule(*rule),
    ek.WarmupExponentialDecay(*rule),
    schedule,
    ek.WarmupExponentialSchedule(0.1, 1e-3, 500_000, steps_per_epoch=1),
    ek.LearningRateLogger(),
    ek.LearningRateTensorBoard("logs"),
]
for one in list(made):
    repr(one)
    made += [copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))]
    if hasattr(one, "get_config"):
        made.append(type(one).from_config(one.get_config()))
ek.make_lr_scheduler(0.1, 1e-3, 5)(4, 0.1)


def fit_both():
    by_schedule = build_model(tf.keras.optimizers.SGD(schedule))
    train(build_model(), ek.WarmupExponentialDecay(*rule), validation_data=(X, Y))
    train(by_schedule, ek.LearningRateLogger(), validation_data=(X, Y))
"""
# TensorFlow refuses both once its devices are initialized.
OFF = """
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
"""
FORK = """
import os
child = os.fork()
if child == 0:
    fit_both()
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
"""


def test_devices_and_threads_can_be_set_up_afterwards(python):
    # tensorflow#34568, #25138: a callback that computes when it is made prevents this.
    # tensorflow#30551: so it does for MultiWorkerMirroredStrategy.
    python(MAKE + OFF)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="it trains with TensorFlow")
def test_tensorflow_stays_off_while_another_backend_trains(python):
    # keras-core PR 473, flax#445: TensorFlow takes the GPU's memory from JAX.
    python(MAKE + "fit_both()\n" + OFF)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX does not support fork")
def test_a_forked_child_trains(python):
    # keras#7099, tensorflow#5448: a child process per fold hangs in `fit`.
    python(MAKE + FORK)
