"""Several devices or processes give the rates and weights of a single device."""

import json
import os
import sys
import time
from multiprocessing import connection

import numpy as np
import pytest
from models import RATES
from processes import SECONDS, free_addresses
from releases import (
    IS_KERAS_3,
    KERAS_VERSION,
    needs_jax,
    needs_keras_2,
    needs_keras_3,
    needs_tensorflow,
    needs_torch,
)
from training import SCHEDULES, Training


def result_of(*processes):
    """Waits for processes that train together; returns what all have printed last.

    They may wait for each other forever, so this fails as soon as one of them fails.
    """
    running = {process.process.sentinel: process for process in processes}
    deadline = time.monotonic() + SECONDS
    while running:
        ended = connection.wait(running, max(0, deadline - time.monotonic()))
        assert ended, [process.err.read_text() for process in processes]
        for sentinel in ended:
            done = running.pop(sentinel).wait()
            assert done.status == 0, done.stderr
    printed = {process.out.read_text().splitlines()[-1] for process in processes}
    assert len(printed) == 1
    return json.loads(printed.pop())


@pytest.fixture(scope="module")
def single():
    """The weights of a single device, in the tests' own process."""
    return {name: Training(name).fit()[1] for name in SCHEDULES}


def assert_trained(result, single):
    """Asserts the rule's rates, bit for bit, and the weights of a single device."""
    assert list(result) == list(SCHEDULES)
    for name, (rates, weights) in result.items():
        assert rates == RATES
        for weight, expected in zip(weights, single[name], strict=True):
            np.testing.assert_allclose(weight, expected, rtol=1e-5)


# JAX

FOUR_DEVICES = """
import json
from keras import distribution
from training import SCHEDULES, Training

data_parallel = distribution.DataParallel()
assert data_parallel.device_mesh.shape == (4,)
devices = distribution.list_devices()
layouts = distribution.LayoutMap(
    distribution.DeviceMesh((2, 2), ("batch", "model"), devices)
)
layouts[".*kernel"] = (None, "model")
model_parallel = distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")
with model_parallel.scope():
    kernel = Training("callback").model.layers[0].kernel.value
assert {shard.data.shape for shard in kernel.addressable_shards} == {(3, 1)}
result = []
for several in (data_parallel, model_parallel):
    with several.scope():
        result.append({name: Training(name).fit() for name in SCHEDULES})
print(json.dumps(result))
"""


@needs_jax
def test_four_devices_by_data_parallel_and_by_model_parallel(start, single):
    flag = "--xla_force_host_platform_device_count=4"
    for result in result_of(start(FOUR_DEVICES, XLA_FLAGS=flag)):
        assert_trained(result, single)


# Whatever makes or assigns a variable needs all processes: so does saving a model.
TWO_PROCESSES = """
import json
import keras
from training import SCHEDULES, Training

keras.distribution.initialize()
keras.distribution.set_distribution(keras.distribution.DataParallel())
unbroken, resumed = {}, {}
for name in SCHEDULES:
    training = Training(name)
    save = keras.callbacks.ModelCheckpoint(name + "-{epoch}.keras")
    unbroken[name] = training.fit(save)
    training.model = keras.models.load_model(name + "-3.keras")
    resumed[name] = training.fit(initial_epoch=3)
print(json.dumps([unbroken, resumed]))
"""


@needs_jax
def test_two_processes_train_save_and_resume(start, single, tmp_path_factory):
    environment = {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": free_addresses(1)[0],
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    }
    processes = []
    for index in range(2):
        environment["KERAS_DISTRIBUTION_PROCESS_ID"] = str(index)
        folder = tmp_path_factory.mktemp("models")
        processes.append(start(TWO_PROCESSES, cwd=folder, **environment))
    unbroken, resumed = result_of(*processes)
    assert_trained(unbroken, single)
    for name, (rates, weights) in unbroken.items():
        assert resumed[name] == [rates[3:], weights]


# PyTorch

# The loop of Keras's guide "Multi-GPU distributed training with PyTorch".
TORCH = """
import itertools, json
import torch
from training import ROWS, SCHEDULES, Training


def train(training):
    data = torch.utils.data.TensorDataset(*map(torch.from_numpy, ROWS))
    sampler = torch.utils.data.distributed.DistributedSampler(data, shuffle=False)
    loader = torch.utils.data.DataLoader(data, batch_size=2, sampler=sampler)
    batches = itertools.cycle(loader)
    model, optimizer = training.model, training.model.optimizer
    parallel = torch.nn.parallel.DistributedDataParallel(model)

    def run_step():
        x, y = next(batches)
        model.zero_grad()
        torch.nn.functional.mse_loss(parallel(x), y).backward()
        weights = model.trainable_weights
        with torch.no_grad():
            optimizer.apply([weight.value.grad for weight in weights], weights)

    return training.loop(run_step)


torch.distributed.init_process_group("gloo")
both = [None, None]
result = {name: train(Training(name)) for name in SCHEDULES}
torch.distributed.all_gather_object(both, result)
assert both[0] == both[1]
if torch.distributed.get_rank() == 0:
    print(json.dumps(result))
torch.distributed.destroy_process_group()
"""
TORCHRUN = "from torch.distributed.run import main\nmain(sys.argv[1:])"


@needs_torch
def test_torchrun(start, single, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TORCH)
    arguments = ["--standalone", "--nproc-per-node", "2", script]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert_trained(result_of(start(TORCHRUN, *arguments, **environment)), single)


# TensorFlow

FIT = """
import json
import tensorflow as tf
from training import SCHEDULES, Training
STRATEGY
assert strategy.num_replicas_in_sync == 2
result = {name: Training(name, strategy).fit() for name in SCHEDULES}
print(json.dumps(result))
"""
MIRRORED = """
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""
MULTI_WORKER = "strategy = tf.distribute.MultiWorkerMirroredStrategy()"


@needs_tensorflow
def test_mirrored_strategy(start, single):
    if IS_KERAS_3 and KERAS_VERSION < (3, 8):
        pytest.skip("before 3.8 the weights under this strategy are not the same")
    script = FIT.replace("STRATEGY", MIRRORED)
    assert_trained(result_of(start(script)), single)


def assert_two_workers_train(script, start, single):
    cluster = {"worker": free_addresses(2)}
    workers = []
    for index in range(2):
        config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        workers.append(start(script, TF_CONFIG=json.dumps(config)))
    assert_trained(result_of(*workers), single)


@needs_keras_2
def test_multi_worker_mirrored_strategy(start, single):
    script = FIT.replace("STRATEGY", MULTI_WORKER)
    assert_two_workers_train(script, start, single)


# With Keras 3, training in several processes needs a loop of one's own (keras#20585).
LOOP = """
import json
import tensorflow as tf
from training import SCHEDULES, Training, dataset

strategy = tf.distribute.MultiWorkerMirroredStrategy()
assert strategy.num_replicas_in_sync == 2


def train(training):
    batches = iter(strategy.experimental_distribute_dataset(dataset()))
    model, optimizer = training.model, training.model.optimizer

    def update(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((model(x) - y) ** 2) / 8  # 4 rows of 2 numbers
        weights = model.trainable_weights
        optimizer.apply(tape.gradient(loss, weights), weights)

    @tf.function
    def run_step(batch):
        strategy.run(update, args=batch)

    return training.loop(lambda: run_step(next(batches)))


print(json.dumps({name: train(Training(name, strategy)) for name in SCHEDULES}))
"""


@needs_keras_3
@needs_tensorflow
def test_multi_worker_mirrored_strategy_in_a_loop(start, single):
    if KERAS_VERSION < (3, 8):
        pytest.skip("before 3.8 each process trains on its own")
    assert_two_workers_train(LOOP, start, single)
