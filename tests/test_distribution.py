"""Several devices or processes give the rates and weights of a single device."""

import json
import socket
import time
from multiprocessing import connection
from pathlib import Path

import numpy as np
import pytest
from oracle import float32_rates
from processes import SECONDS
from releases import BACKEND, IS_KERAS_3, KERAS_VERSION, needs_keras_3, needs_tensorflow
from training import NAMES, RULE, STEPS_PER_EPOCH, Training

only_jax = pytest.mark.skipif(BACKEND != "jax", reason="only for JAX")
needs_keras_2 = pytest.mark.skipif(IS_KERAS_3, reason="this is Keras 3")
only_torch = pytest.mark.skipif(BACKEND != "torch", reason="only for PyTorch")


def free_addresses(n):
    sockets = [socket.socket() for _ in range(n)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]
    for free in sockets:
        free.close()
    return addresses


def results(*processes):
    """Waits for processes that train together; returns what each has printed last.

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
    return [json.loads(p.out.read_text().splitlines()[-1]) for p in processes]


@pytest.fixture(scope="module")
def single():
    """Trains on a single device, in the tests' own process."""
    return {name: Training(name).fit() for name in NAMES}


def assert_rates(result, names=NAMES):
    """Asserts that the rates are those of the rule, bit for bit."""
    steps = np.arange(RULE.n_epochs * STEPS_PER_EPOCH)
    step_rates = {
        "callback": None,
        "staircase": float32_rates(RULE, steps // STEPS_PER_EPOCH),
        "continuous": float32_rates(RULE, steps / STEPS_PER_EPOCH),
    }
    assert list(result) == names
    for name, report in result.items():
        assert report["rates"] == float32_rates(RULE, range(RULE.n_epochs))
        assert report["steps"] == step_rates[name]


def assert_weights(result, single):
    """Asserts the weights of a single device."""
    for name, report in result.items():
        expected = single[name]["weights"]
        assert len(report["weights"]) == len(expected) == 2
        for weight, other in zip(report["weights"], expected, strict=True):
            np.testing.assert_allclose(weight, other, rtol=1e-5)


def assert_both_trained(both, single):
    first, second = both
    assert first == second
    assert_rates(first)
    assert_weights(first, single)


# JAX

JAX = """
import json
import keras
from training import NAMES, Training
DISTRIBUTION
print(json.dumps({name: Training(name).fit() for name in NAMES}))
"""
DATA_PARALLEL = """
distribution = keras.distribution.DataParallel()
assert distribution.device_mesh.shape == (4,)
keras.distribution.set_distribution(distribution)
"""
MODEL_PARALLEL = """
devices = keras.distribution.list_devices()
mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"), devices)
layouts = keras.distribution.LayoutMap(mesh)
layouts[".*kernel"] = (None, "model")
keras.distribution.set_distribution(
    keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")
)
kernel = Training("callback").model.layers[0].kernel.value
assert {shard.data.shape for shard in kernel.addressable_shards} == {(3, 1)}
"""


@only_jax
@pytest.mark.parametrize(
    "distribution",
    [
        pytest.param(DATA_PARALLEL, id="DataParallel"),
        pytest.param(MODEL_PARALLEL, id="ModelParallel"),
    ],
)
def test_four_devices(distribution, start, single):
    script = JAX.replace("DISTRIBUTION", distribution)
    flag = "--xla_force_host_platform_device_count=4"
    (result,) = results(start(script, XLA_FLAGS=flag))
    assert_rates(result)
    assert_weights(result, single)


# Whatever makes or assigns a variable needs all processes: so does saving a model.
JAX_PROCESSES = """
import json, sys
import keras
from training import NAMES, Training

folder = sys.argv[1]
keras.distribution.initialize()
keras.distribution.set_distribution(keras.distribution.DataParallel())
unbroken, resumed = {}, {}
for name in NAMES:
    path = f"{folder}/{name}-{{epoch}}.keras"
    training = Training(name)
    unbroken[name] = training.fit([keras.callbacks.ModelCheckpoint(path)])
    training.model = keras.models.load_model(path.format(epoch=3))
    resumed[name] = training.fit(initial_epoch=3)
print(json.dumps({"unbroken": unbroken, "resumed": resumed}))
"""


@only_jax
def test_two_processes(start, single, tmp_path_factory):
    environment = {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": free_addresses(1)[0],
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    }
    first, second = results(
        *[
            start(
                JAX_PROCESSES,
                tmp_path_factory.mktemp("models"),
                KERAS_DISTRIBUTION_PROCESS_ID=str(index),
                **environment,
            )
            for index in range(2)
        ]
    )
    assert_both_trained([first["unbroken"], second["unbroken"]], single)
    for result in (first, second):
        for name, report in result["unbroken"].items():
            last_epochs = {**report, "rates": report["rates"][3:]}
            assert result["resumed"][name] == last_epochs


# PyTorch

# The loop of Keras's guide "Multi-GPU distributed training with PyTorch".
TORCH = """
import faulthandler, itertools, json, multiprocessing, sys
import torch
from expdecay_keras import WarmupExponentialSchedule
from training import NAMES, RULE, Training, rows


def train(training):
    data = torch.utils.data.TensorDataset(*map(torch.from_numpy, rows()))
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


def run(rank=-1, init_method="env://"):
    faulthandler.dump_traceback_later(120, exit=True)  # ends this process if it hangs
    # TensorFlow would compute a large table in threads, which forks do not inherit.
    WarmupExponentialSchedule(0.1, 1e-3, 500_000, steps_per_epoch=1)
    torch.distributed.init_process_group("gloo", init_method, rank=rank, world_size=2)
    result, both = {name: train(Training(name)) for name in NAMES}, [None, None]
    torch.distributed.all_gather_object(both, result)
    if torch.distributed.get_rank() == 0:
        print(json.dumps(both))
    torch.distributed.destroy_process_group()
"""
TORCHRUN = """
import sys
from torch.distributed.run import main
main(sys.argv[1:])
"""
# The guide forks its processes; here the parent has already used TensorFlow.
FORK = """
multiprocessing.current_process().daemon = False  # a daemon must not start processes
for name in NAMES:
    Training(name)
RULE.learning_rate(0)  # in TensorFlow
torch.multiprocessing.start_processes(
    run, args=["file://" + sys.argv[1]], nprocs=2, start_method="fork"
)
"""


@only_torch
def test_torchrun(start, single, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TORCH + "run()\n")
    arguments = ["--standalone", "--nproc-per-node", "2", script]
    here = str(Path(__file__).parent)
    (both,) = results(start(TORCHRUN, *arguments, PYTHONPATH=here))
    assert_both_trained(both, single)


@only_torch
def test_forked_processes(start, single, tmp_path):
    (both,) = results(start(TORCH + FORK, tmp_path / "store"))
    assert_both_trained(both, single)


# TensorFlow

TENSORFLOW = """
import json, os, sys
import tensorflow as tf
from training import Training
STRATEGY
results = {name: Training(name, strategy).fit() for name in sys.argv[1:]}
print(json.dumps(results))
"""
MIRRORED = """
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
"""
MULTI_WORKER = """
strategy = tf.distribute.MultiWorkerMirroredStrategy()
assert strategy.num_replicas_in_sync == 2
"""
PARAMETER_SERVER = """
cluster = tf.train.ClusterSpec(json.loads(os.environ["CLUSTER"]))
# The default, the number of cores, may be so small that the servers wait forever.
config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=4)
servers = [
    tf.distribute.Server(cluster, job, 0, config=config) for job in cluster.jobs
]
strategy = tf.distribute.ParameterServerStrategy(
    tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")
)
"""


@needs_tensorflow
def test_mirrored_strategy(start, single):
    # Under this strategy Keras 3 trains with schedules from 3.3 on.
    names = ["callback"] if IS_KERAS_3 and KERAS_VERSION < (3, 3) else NAMES
    script = TENSORFLOW.replace("STRATEGY", MIRRORED)
    (result,) = results(start(script, *names))
    assert_rates(result, names)
    if not IS_KERAS_3 or KERAS_VERSION >= (3, 8):  # before 3.8 its weights differ
        assert_weights(result, single)


def start_workers(start, script, *arguments):
    """Starts the two processes of a MultiWorkerMirroredStrategy."""
    cluster = {"worker": free_addresses(2)}
    for index in range(2):
        config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        yield start(script, *arguments, TF_CONFIG=json.dumps(config))


@needs_keras_2
def test_multi_worker_mirrored_strategy(start, single):
    script = TENSORFLOW.replace("STRATEGY", MULTI_WORKER)
    assert_both_trained(results(*start_workers(start, script, *NAMES)), single)


@needs_keras_2
def test_parameter_server_strategy(start, single):
    script = TENSORFLOW.replace("STRATEGY", PARAMETER_SERVER)
    worker, ps = free_addresses(2)
    cluster = json.dumps({"worker": [worker], "ps": [ps]})
    (result,) = results(start(script, *NAMES, CLUSTER=cluster))
    assert_rates(result)
    assert_weights(result, single)


# With Keras 3, training in several processes needs a loop of one's own.
MULTI_WORKER_LOOP = """
import json
import tensorflow as tf
from training import NAMES, Training, dataset

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


result = {name: train(Training(name, strategy)) for name in NAMES}
try:
    Training("callback", strategy).fit()
except ValueError as error:
    result["fit"] = str(error)
print(json.dumps(result))
"""


@needs_keras_3
@needs_tensorflow
def test_multi_worker_mirrored_strategy_in_a_loop(start, single):
    if KERAS_VERSION < (3, 8):
        pytest.skip("before 3.8 each process trains on its own")
    both = results(*start_workers(start, MULTI_WORKER_LOOP))
    for result in both:  # keras#20585: this fails once `fit` works
        assert "PerReplica" in result.pop("fit")
    assert_both_trained(both, single)
