"""What the tests share: rules and their true rates, models, and processes that run scripts."""

import csv
import decimal
import fractions
import importlib.metadata
import multiprocessing
import os
import re
import signal
import sys
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from expdecay_keras import DecayRule
from expdecay_keras.command import main

IS_KERAS_3 = hasattr(tf.keras, "ops")
BACKEND = tf.keras.backend.backend()
needs_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="what it uses is TensorFlow's own")
KERAS_VERSION = tuple(int(n) for n in importlib.metadata.version("keras").split(".")[:2])
needs_legacy_optimizers = pytest.mark.skipif(
    IS_KERAS_3 or not hasattr(tf.keras.optimizers, "legacy"),
    reason="this Keras has no legacy optimizers",
)
needs_multi_optimizer = pytest.mark.skipif(
    not hasattr(tf.keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer"
)

# The table of the text the rule comes from: arguments and the rates of five epochs, 6 decimals.
SEED_TABLE = [
    pytest.param((1e-1, 1e-6, 5, 0), [0.100000, 0.005623, 0.000316, 0.000018, 0.000001], id="W=0"),
    pytest.param((1e-2, 1e-4, 5, 1), [0.010000, 0.010000, 0.002154, 0.000464, 0.000100], id="W=1"),
    pytest.param((1e-2, 1e-5, 5, 2), [0.010000, 0.010000, 0.010000, 0.000316, 0.000010], id="W=2"),
]


def pytest_generate_tests(metafunc):
    if "seed_row" in metafunc.fixturenames:
        metafunc.parametrize("seed_row, seed_rates", SEED_TABLE)


# Rules and their true rates


def true_rates(rule, epochs):
    """The equation in NumPy's long double, the independent oracle."""
    epochs = np.asarray(epochs, np.longdouble)
    base_lr, target_lr = np.longdouble(rule.base_lr), np.longdouble(rule.target_lr)
    n_before = rule.n_warmup_epochs + rule.n_hold_epochs
    n_decay_epochs = rule.n_epochs - n_before - 1
    decayed = np.clip(epochs - n_before, 0, n_decay_epochs)
    rates = base_lr * np.exp(np.log(target_lr / base_lr) * decayed / n_decay_epochs)
    rates = np.where(decayed == n_decay_epochs, target_lr, rates)
    if rule.warmup_start_lr is not None:
        start_lr, fraction = np.longdouble(rule.warmup_start_lr), epochs.clip(0) / rule.n_warmup_epochs
        rates = np.where(fraction < 1, start_lr * (1 - fraction) + base_lr * fraction, rates)
    return rates


def random_rules(n_rules, seed):
    rng = np.random.default_rng(seed)
    for _ in range(n_rules):
        base_lr, target_lr, start_lr = (float(rate) for rate in np.exp(rng.uniform(-80, 80, 3)))
        n_warmup_epochs = int(rng.integers(0, 100))
        n_hold_epochs = int(rng.integers(0, 100)) if rng.random() < 0.5 else 0
        n_epochs = n_warmup_epochs + n_hold_epochs + int(rng.integers(2, 1000))
        ramp = start_lr if n_warmup_epochs and rng.random() < 0.5 else None
        epochs = rng.integers(0, n_epochs + 3, 50)
        yield DecayRule(base_lr, target_lr, n_epochs, n_warmup_epochs, ramp, n_hold_epochs), epochs


def float32_rates(rule, epochs):
    return [float(rate) for rate in rule.learning_rate(epochs, dtype="float32").numpy()]


TINY, MAX = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # float32's normal range
rates = st.floats(min_value=TINY, max_value=MAX)


@st.composite
def rule_arguments(draw):
    """Legal arguments of `DecayRule`, warm-up, ramp and hold included."""
    n_warmup_epochs, n_hold_epochs = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    return {
        "base_lr": draw(rates),
        "target_lr": draw(rates),
        "n_epochs": n_warmup_epochs + n_hold_epochs + draw(st.integers(2, 200)),
        "n_warmup_epochs": n_warmup_epochs,
        "warmup_start_lr": draw(st.none() | st.just(0.0) | rates) if n_warmup_epochs else None,
        "n_hold_epochs": n_hold_epochs,
    }


no_numbers = (
    st.text(max_size=5)
    | st.binary(max_size=3)
    | st.booleans()
    | st.complex_numbers()
    | st.lists(st.floats(), max_size=2)
    | st.just(decimal.Decimal("0.1"))
    | st.just(np.array(0.1))
    | st.just({})
)
negative = st.floats(max_value=-5e-324) | st.integers(max_value=-1)
not_normal = (
    st.floats(min_value=5e-324, max_value=TINY, exclude_max=True)
    | st.floats(min_value=MAX, exclude_min=True)
    | st.just(float("nan"))
    | st.integers(min_value=10**39, max_value=10**400)
    | st.builds(fractions.Fraction, st.just(1), st.integers(10**39, 10**50))
)
no_counts = no_numbers | st.floats() | st.builds(np.float32, st.integers(0, 9))


@st.composite
def illegal_arguments(draw):
    """Arguments of `DecayRule` of which one is illegal, its name, and the error that has to come."""
    arguments = draw(rule_arguments())
    name = draw(st.sampled_from(list(arguments)))
    if name == "warmup_start_lr":
        most = arguments["n_epochs"] - arguments["n_hold_epochs"] - 2
        arguments["n_warmup_epochs"] = draw(st.integers(0, most))
        values = rates if arguments["n_warmup_epochs"] == 0 else negative | not_normal
        kinds = no_numbers
    elif name in ("base_lr", "target_lr"):
        values, kinds = negative | not_normal | st.sampled_from([0, 0.0, -0.0]), no_numbers | st.none()
    elif name == "n_epochs":
        held = arguments["n_warmup_epochs"] + arguments["n_hold_epochs"]
        values = st.integers(max_value=held + 1) | st.integers(2**53 + 1)
        kinds = no_counts | st.none()
    else:
        values = st.integers(max_value=-1) | st.integers(min_value=2**53 + 1)
        kinds = no_counts | st.none()
    error = draw(st.sampled_from([TypeError, ValueError]))
    arguments[name] = draw(kinds if error is TypeError else values)
    return arguments, name, error


# Models


def build_model(optimizer="sgd"):
    """A small regression network, built, with the same weights each time."""
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile(optimizer, "mse")
    return model


def assert_equal_arrays(arrays, expected):
    arrays, expected = list(arrays), list(expected)
    assert len(arrays) == len(expected) > 0
    for array, other in zip(arrays, expected):
        np.testing.assert_array_equal(array, other)


def scalars(log_dir, tag="learning_rate"):
    """The steps and values of a curve in TensorBoard's files."""
    events = EventAccumulator(str(log_dir), size_guidance={"tensors": 0}).Reload().Tensors(tag)
    # TensorBoard reads files of the same second in any order.
    return sorted((event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events)


def evaluate(schedule, steps):
    """The rates of a schedule, whatever the backend, as a NumPy array."""
    rates = schedule(steps)
    return rates.numpy() if BACKEND == "tensorflow" else tf.keras.ops.convert_to_numpy(rates)


@pytest.fixture
def model():
    return build_model()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 3)).astype("float32"), rng.normal(size=(16, 2)).astype("float32")


@pytest.fixture
def fit(data):
    """Trains without output, the rows in order, and returns the history's dictionary."""

    def run(model, callbacks, epochs, **options):
        x, y = data
        history = model.fit(
            x, y, epochs=epochs, callbacks=callbacks, verbose=0, shuffle=False, **options
        )
        return history.history

    return run


@pytest.fixture
def floatx():
    """Sets Keras's default dtype, for the test only."""
    yield tf.keras.backend.set_floatx
    tf.keras.backend.set_floatx("float32")


# Processes: forked from a server that has imported TensorFlow and run nothing, each takes 20 ms to
# start, not seconds, and knows nothing of this package.


class Done(NamedTuple):
    status: int
    stdout: str
    stderr: str


class Process:
    """A fresh process that runs a script; its stdout can be read while it runs."""

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        ["tensorflow", "keras" if IS_KERAS_3 else tf.keras.Model.__module__.split(".")[0], "pytest"]
        + ["matplotlib.figure", "sklearn.datasets", "tensorboard.summary"]
    )
    START = """
import os, sys
os.dup2(os.open(out, os.O_WRONLY), 1)
os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT), 2)
os.environ.update(environment)
os.chdir(cwd)
sys.argv[:] = argv
"""

    def __init__(self, folder, script, *argv, program="", cwd=".", **environment):
        self.out, self.err = folder / "stdout", folder / "stderr"
        os.mkfifo(self.out)
        names = {"out": str(self.out), "err": str(self.err), "argv": [program, *map(str, argv)]}
        names |= {"cwd": str(cwd), "environment": environment, "__name__": "__main__"}
        self.process = self.server.Process(target=exec, args=(self.START + script, names))
        self.process.start()
        self.stdout = open(self.out)

    def read_until(self, start):
        """Reads stdout up to a line that starts so."""
        for line in self.stdout:
            if line.startswith(start):
                break

    def kill(self, signum=signal.SIGKILL, after=0.0):
        """Sends a signal if the process has not ended some seconds later."""
        self.process.join(after)
        if self.process.is_alive():
            os.kill(self.process.pid, signum)

    def wait(self):
        stdout = self.stdout.read()
        self.process.join()
        self.stdout.close()
        return Done(self.process.exitcode, stdout, self.err.read_text())


@pytest.fixture
def start(tmp_path_factory):
    """Starts a script in a fresh process."""

    def start(script, *argv, **options):
        return Process(tmp_path_factory.mktemp("process"), script, *argv, **options)

    return start


@pytest.fixture
def python(start):
    """Runs a script in a fresh process, which has to succeed."""

    def python(script, *argv, **options):
        done = start(script, *argv, **options).wait()
        assert done.status == 0, done.stderr
        return done

    return python


# The command

CONSOLE_SCRIPT = str(Path(sys.executable).with_name("expdecay-keras"))
COMMAND = """
from expdecay_keras.command import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def start_train(start):
    """Starts `expdecay-keras train` in a fresh process, which executes a patch first."""

    def start_train(run_dir, *options, patch="", **environment):
        options = ("train", "--run-dir", run_dir, *options)
        return start(patch + COMMAND, *options, program="expdecay-keras", **environment)

    return start_train


@pytest.fixture
def train(start_train):
    """Runs `expdecay-keras train` to its end, which has to come as expected; returns what it said."""

    def train(run_dir, *options, status=0, **details):
        done = start_train(run_dir, *options, **details).wait()
        assert done.status == status, done.stderr
        # Keras 2 logs that an optimizer has no state to load, and which model is not compiled.
        said = re.sub("^WARNING:(absl|tensorflow):.*\n", "", done.stderr)
        assert status or not said
        return said if status else done.stdout

    return train


@pytest.fixture
def refused(capsys):
    """Runs a command that has to be refused; returns the one line it says."""

    def refused(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(list(map(str, arguments)))
        captured = capsys.readouterr()
        assert stopped.value.code == 2 and captured.out == ""
        assert captured.err.count("\n") == 1 and len(captured.err.splitlines()) == 1
        return captured.err

    return refused


def options_of(base_lr, target_lr, n_epochs, n_warmup_epochs):
    """The command line's options for a rule."""
    names = ("base-lr", "target-lr", "n-epochs", "n-warmup-epochs")
    values = (base_lr, target_lr, n_epochs, n_warmup_epochs)
    return [text for name, value in zip(names, values) for text in (f"--{name}", str(value))]


RUN = {"base_lr": 0.1, "target_lr": 1e-4, "n_epochs": 6, "n_warmup_epochs": 2}
OPTIONS = [*options_of(*RUN.values()), "--batch-size", "144"]


def history(run_dir):
    with (run_dir / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def state(run_dir):
    """The weights of a run's model and the variables of its optimizer."""
    model = tf.keras.models.load_model(run_dir / "model.keras")
    variables = model.optimizer.variables if IS_KERAS_3 else model.optimizer.variables()
    return [*model.get_weights(), *(variable.numpy() for variable in variables)]


def assert_same_run(run_dir, other):
    assert (run_dir / "history.csv").read_bytes() == (other / "history.csv").read_bytes()
    assert_equal_arrays(state(run_dir), state(other))
    for part, tag in [("train", "epoch_learning_rate"), ("validation", "epoch_loss")]:
        curve = scalars(run_dir / "tensorboard" / part, f"{tag}")
        assert curve == scalars(other / "tensorboard" / part, f"{tag}")
        assert [step for step, _ in curve] == list(range(len(history(run_dir))))


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    """The directory of a run of 6 epochs that was never interrupted, and what it said."""
    run_dir = tmp_path_factory.mktemp("unbroken") / "run"
    options = ("train", "--run-dir", run_dir, *OPTIONS)
    done = Process(
        tmp_path_factory.mktemp("process"), COMMAND, *options, program="expdecay-keras"
    ).wait()
    assert done.status == 0, done.stderr
    return run_dir, done.stdout


@pytest.fixture
def data_file(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 6, 6), dtype=np.uint8)
    path = tmp_path / "data.npz"
    np.savez(path, x_train=x[:32], y_train=x[:32, 0, 0] // 86, x_test=x[32:], y_test=x[32:, 0, 0] // 86)
    return path


def save_model(path, optimizer="sgd", n_columns=6, dropout=0.0):
    """Saves a model for the data file."""
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6, n_columns)),
            layers.Flatten(),
            layers.Rescaling(1 / 255),
            layers.Dropout(dropout),
            layers.Dense(3),
        ]
    )
    if optimizer is not None:
        model.compile(optimizer, tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(path)
    return path
