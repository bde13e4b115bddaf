"""Making a rule, callback or schedule does nothing to TensorFlow's runtime."""

import json

import pytest
import tensorflow as tf
from releases import BACKEND, needs_tensorflow

from expdecay_keras import WarmupExponentialSchedule

MAKE = """
import copy, pickle
import numpy as np
import tensorflow as tf
import expdecay_keras as ek

rule = (0.1, 1e-3, 5, 2, 0.01, 1)
made = [
    ek.DecayRule(*rule),
    ek.WarmupExponentialDecay(*rule),
    ek.WarmupExponentialSchedule(*rule, steps_per_epoch=4),
    ek.WarmupExponentialSchedule(*rule, steps_per_epoch=4, staircase=False),
    ek.LearningRateLogger(),
    ek.LearningRateTensorBoard("logs"),
]
for one in list(made):
    repr(one)
    made += [copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))]
    if hasattr(one, "get_config"):
        made.append(type(one).from_config(one.get_config()))
ek.make_lr_scheduler(0.1, 1e-3, 5)(4, 0.1)
"""
# TensorFlow refuses both once its devices are initialized.
OFF = """
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
"""


def test_devices_and_threads_can_be_set_up_afterwards(python):
    # tensorflow#34568, #25138: a callback that computes when it is made prevents this.
    python(MAKE + OFF)


def test_the_probe_notices_an_operation(start):
    done = start(MAKE + "tf.constant(1)\n" + OFF).wait()
    assert done.status != 0 and "cannot be modified after" in done.stderr


@needs_tensorflow
def test_collective_operations_can_be_set_up_afterwards(python):
    # tensorflow#30551: such a strategy has to be created before the first operation.
    strategy = "tf.distribute.MultiWorkerMirroredStrategy()\n"
    task = {"type": "worker", "index": 0}
    config = {"cluster": {"worker": ["localhost:0"]}, "task": task}
    python(MAKE + strategy, TF_CONFIG=json.dumps(config))


FIT = """
def fit(rate, callback):
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile(tf.keras.optimizers.SGD(rate), "mse")
    x, y = np.ones((16, 3), "float32"), np.ones((16, 2), "float32")
    options = {"epochs": 5, "batch_size": 4, "verbose": 0, "callbacks": [callback]}
    history = model.fit(x, y, validation_data=(x, y), **options).history
    assert len(history["learning_rate"]) == 5, history

rule = (0.1, 1e-3, 5, 2, 0.01, 1)
def fit_both():
    fit(0.5, ek.WarmupExponentialDecay(*rule))
    schedule = ek.WarmupExponentialSchedule(*rule, steps_per_epoch=4, staircase=False)
    fit(schedule, ek.LearningRateLogger())
"""


@pytest.mark.skipif(BACKEND == "tensorflow", reason="it trains with TensorFlow")
def test_tensorflow_stays_off_while_another_backend_trains(python):
    # keras-core PR 473, flax#445: TensorFlow takes the GPU's memory from JAX.
    python(MAKE + FIT + "fit_both()\n" + OFF)


FORK = """
import os
child = os.fork()
if child == 0:
    CHILD
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
"""


@pytest.mark.skipif(BACKEND == "jax", reason="JAX does not support fork")
def test_a_forked_child_trains(python):
    # keras#7099, tensorflow#5448: a child process per fold hangs in `fit`.
    python(MAKE + FIT + FORK.replace("CHILD", "fit_both()"))


def test_a_forked_child_makes_a_large_schedule(python):
    """The parent made small schedules; a fork does not inherit TensorFlow's threads."""
    large = "ek.WarmupExponentialSchedule(0.1, 1e-3, 500_000, steps_per_epoch=1)"
    python(MAKE + FORK.replace("CHILD", large))


@needs_tensorflow
def test_a_schedule_can_be_made_in_a_graph():
    @tf.function
    def rate(step):
        return WarmupExponentialSchedule(0.1, 0.001, 3, steps_per_epoch=4)(step)

    assert float(rate(tf.constant(4))) == pytest.approx(0.01)
