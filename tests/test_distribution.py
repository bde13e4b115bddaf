"""Several devices and machines: two logical CPUs in one process, two processes on localhost."""

import importlib.metadata
import importlib.util
import json
import os
import socket
import subprocess
import sys

import pytest
from conftest import float32_rates
from test_callbacks import IS_KERAS_3

from expdecay_keras import DecayRule

RULE = {"base_lr": 0.1, "target_lr": 1e-3, "n_epochs": 5, "n_warmup_epochs": 1, "warmup_start_lr": 0.02}
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
EXPECTED = float32_rates(DecayRule(**RULE), range(5))


def start(strategy, *names, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN.replace("STRATEGY", strategy), json.dumps(RULE), *names],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def assert_rates(process, *names):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert json.loads(output.splitlines()[-1]) == {name: EXPECTED for name in names}


HAS_LEGACY_KERAS = not IS_KERAS_3 or importlib.util.find_spec("tf_keras")
NO_LEGACY_KERAS = pytest.mark.skipif(not HAS_LEGACY_KERAS, reason="needs the package tf-keras")


@pytest.mark.parametrize("name", ["callback", "schedule"])
@pytest.mark.parametrize("legacy", ["0", pytest.param("1", marks=NO_LEGACY_KERAS)])
def test_mirrored_strategy(legacy, name):
    if legacy == "0" and not IS_KERAS_3:
        pytest.skip("here tf.keras is legacy Keras")
    if legacy == "0" and name == "schedule" and keras_version() < (3, 3):
        pytest.skip("before 3.3 Keras 3 trains no optimizer with any schedule under MirroredStrategy")
    assert_rates(start(MIRRORED, name, TF_USE_LEGACY_KERAS=legacy), name)


def keras_version():
    return tuple(int(number) for number in importlib.metadata.version("keras").split(".")[:2])


@NO_LEGACY_KERAS
def test_two_processes_of_a_multi_worker_mirrored_strategy():
    # keras#20585: Keras 3 does not support it, legacy Keras does.
    with socket.socket() as first, socket.socket() as second:
        for free in (first, second):
            free.bind(("localhost", 0))
        workers = [f"localhost:{free.getsockname()[1]}" for free in (first, second)]
    names = ["callback", "schedule"]
    processes = []
    for index in range(2):
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = {"TF_USE_LEGACY_KERAS": "1", "TF_CONFIG": json.dumps(config)}
        processes.append(start(MULTI_WORKER, *names, **environment))
    try:
        for process in processes:
            assert_rates(process, *names)
    finally:
        for process in processes:
            process.kill()
