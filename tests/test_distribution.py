"""Several devices and machines: two logical CPUs in one process, two processes on localhost."""

import json
import socket

import pytest
from conftest import IS_KERAS_3, KERAS_VERSION, float32_rates

from expdecay_keras import DecayRule

RULE = {
    "base_lr": 0.1,
    "target_lr": 1e-3,
    "n_epochs": 5,
    "n_warmup_epochs": 1,
    "warmup_start_lr": 0.02,
}
# Prints a line of JSON: the rates in the history by callback and by the logger over the schedule.
TRAIN = """
import json, sys
import numpy as np
import tensorflow as tf
import expdecay_keras
STRATEGY
rule = json.loads(sys.argv[1])
rates = {}
for name in sys.argv[2:]:
    if name == "callback":
        rate, callback = 0.5, expdecay_keras.WarmupExponentialDecay(**rule)
    else:
        rate = expdecay_keras.WarmupExponentialSchedule(**rule, steps_per_epoch=4)
        callback = expdecay_keras.LearningRateLogger()
    tf.keras.utils.set_random_seed(0)
    with strategy.scope():
        model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
        model.compile(tf.keras.optimizers.SGD(rate), "mse")
    x, y = np.ones((16, 3), "float32"), np.ones((16, 2), "float32")
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    history = model.fit(data, epochs=5, callbacks=[callback], verbose=0).history
    rates[name] = history["learning_rate"]
print(json.dumps(rates))
"""
MIRRORED = """
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
"""
MULTI_WORKER = """
strategy = tf.distribute.MultiWorkerMirroredStrategy()
assert strategy.num_replicas_in_sync == 2
"""


def train(start, strategy, *names, **environment):
    return start(
        TRAIN.replace("STRATEGY", strategy), json.dumps(RULE), *names, **environment
    )


def assert_rates(done, *names):
    assert done.status == 0, done.stderr
    expected = float32_rates(DecayRule(**RULE), range(5))
    assert json.loads(done.stdout.splitlines()[-1]) == {
        name: expected for name in names
    }


@pytest.mark.parametrize("name", ["callback", "schedule"])
def test_mirrored_strategy(name, start):
    if name == "schedule" and IS_KERAS_3 and KERAS_VERSION < (3, 3):
        pytest.skip(
            "before 3.3 Keras 3 trains no optimizer with any schedule under MirroredStrategy"
        )
    assert_rates(train(start, MIRRORED, name).wait(), name)


@pytest.mark.skipif(IS_KERAS_3, reason="keras#20585: not supported by Keras 3")
def test_two_processes_of_a_multi_worker_mirrored_strategy(start):
    with socket.socket() as first, socket.socket() as second:
        for free in (first, second):
            free.bind(("localhost", 0))
        workers = [f"localhost:{free.getsockname()[1]}" for free in (first, second)]
    names = ("callback", "schedule")
    processes = []
    for index in range(2):
        config = {
            "cluster": {"worker": workers},
            "task": {"type": "worker", "index": index},
        }
        processes.append(
            train(start, MULTI_WORKER, *names, TF_CONFIG=json.dumps(config))
        )
    try:
        for process in processes:
            assert_rates(process.wait(), *names)
    finally:
        for process in processes:
            process.kill()
