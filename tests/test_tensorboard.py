"""LearningRateTensorBoard writes one curve, in order, into one file."""

import copy
import pickle
import sys

import numpy as np
import pytest
import tensorflow as tf
from models import (
    RATES,
    Interrupt,
    build_model,
    decay,
    evaluate,
    planned,
    scalars,
    scheduled,
    step_count,
    train,
)
from releases import (
    needs_keras_3,
    needs_multi_optimizer,
    needs_steps_per_execution,
    needs_tensorflow,
)

from expdecay_keras import LearningRateLogger, LearningRateTensorBoard

callbacks, optimizers = tf.keras.callbacks, tf.keras.optimizers
logger = LearningRateLogger


def steps_in(path):
    return [step for step, _ in scalars(path)]


def curve_of(schedule, steps):
    return [(step, evaluate(schedule, step).item()) for step in steps]


@pytest.mark.parametrize("staircase", [True, False], ids=["staircase", "continuous"])
@pytest.mark.parametrize("update_freq", [1, 5])
def test_the_rate_of_every_nth_step(update_freq, staircase, tmp_path):
    # tf-keras#403, keras#14291 ask for the rate of every batch.
    schedule = planned(staircase=staircase)
    model = build_model(optimizers.SGD(schedule))
    writer = LearningRateTensorBoard(str(tmp_path), update_freq)
    # A second `fit` continues the count of steps.
    for first, last in [(0, 2), (2, 5)]:
        train(model, logger(), writer, epochs=last, initial_epoch=first)
    assert scalars(tmp_path) == curve_of(schedule, range(0, 20, update_freq))


@pytest.mark.parametrize(
    "count, update_freq, expected",
    [
        pytest.param(1301, 5, [1305, 1310], id="between two multiples"),
        pytest.param(1300, 5, [1300, 1305, 1310], id="at a multiple"),
        pytest.param(1, 1000, [], id="not reached"),
        pytest.param(995, 1000, [1000], id="far apart"),
    ],
)
def test_multiples_of_the_count(count, update_freq, expected, tmp_path):
    model = build_model()
    step_count(model.optimizer).assign(count)
    writer = LearningRateTensorBoard(tmp_path, update_freq)
    train(model, logger(), writer, epochs=3)
    assert (steps_in(tmp_path) if expected else list(tmp_path.iterdir())) == expected


@needs_steps_per_execution
def test_several_steps_at_once(tmp_path):
    model = scheduled()
    model.compile(model.optimizer, "mse", steps_per_execution=2)
    writer = LearningRateTensorBoard(tmp_path, update_freq=3)
    train(model, logger(), writer, epochs=3)
    assert steps_in(tmp_path) == [0, 4, 6, 10]


@needs_multi_optimizer
@pytest.mark.parametrize(
    "update_freq, a_steps, b_steps", [(1, [0, 1], [1, 2]), (2, [0], [2])]
)
def test_several_optimizers(update_freq, a_steps, b_steps, tmp_path):
    """Each at steps of its own."""
    a, b = optimizers.SGD(0.5, name="a"), optimizers.SGD(0.25, name="b")
    chosen = optimizers.OptimizerMap(a, {".*bias": b})
    model = build_model(optimizers.MultiOptimizer(chosen))
    step_count(b).assign(1)
    writer = LearningRateTensorBoard(tmp_path, update_freq)
    x, y = np.ones((16, 3)), np.ones((16, 2))
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[writer])
    assert scalars(tmp_path, "learning_rate_a") == [(step, 0.5) for step in a_steps]
    assert scalars(tmp_path, "learning_rate_b") == [(step, 0.25) for step in b_steps]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("staircase", [True, False], ids=["staircase", "continuous"])
def test_a_dataset_of_unknown_length(staircase, tmp_path):
    """Keras begins a batch that never comes; its step is not written."""
    x, y = np.ones((64, 3), "float32"), np.ones((64, 2), "float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    dataset = dataset.filter(lambda x, y: True).batch(16)
    options = {"epochs": 5, "verbose": 0, "shuffle": False}
    schedule = planned(staircase=staircase)
    model = build_model(optimizers.SGD(schedule))
    writer = LearningRateTensorBoard(tmp_path / "planned")
    model.fit(dataset, callbacks=[writer], **options)
    written = scalars(tmp_path / "planned")
    assert len(written) == 20
    assert written == curve_of(schedule, [step for step, _ in written])
    writer = LearningRateTensorBoard(tmp_path / "callback")
    build_model().fit(dataset, callbacks=[decay(), writer], **options)
    rates = [rate for _, rate in scalars(tmp_path / "callback")]
    assert rates == list(np.repeat(RATES, 4))


class Rollback(callbacks.Callback):
    """Sets the count of steps back to 0 at the end of an epoch."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.at:
            step_count(self.model.optimizer).assign(0)


@pytest.mark.parametrize("at, steps", [(0, [0, 4]), (1, [0, 4, 0])])
def test_after_a_rollback(at, steps, tmp_path):
    writer = LearningRateTensorBoard(tmp_path, update_freq=4)
    train(scheduled(), logger(), writer, Rollback(at), epochs=3)
    assert steps_in(tmp_path) == steps


def test_two_models_in_turn(tmp_path):
    """Nothing of the first model is left when the second one is trained."""
    writer = LearningRateTensorBoard(tmp_path, update_freq=5)
    other = scheduled()
    step_count(other.optimizer).assign(4)
    train(scheduled(), logger(), writer, epochs=2)
    train(other, logger(), writer, epochs=2)
    assert steps_in(tmp_path) == [0, 5, 5, 10]


# One file


@pytest.mark.parametrize("n_fits", [1, 12])
def test_one_file_whatever_the_number_of_fits(n_fits, tmp_path):
    # keras#888: one `fit` per epoch. tensorboard#4955: thousands of files.
    schedule = planned(1, n_epochs=13)
    model = build_model(optimizers.SGD(schedule))
    writer = LearningRateTensorBoard(tmp_path)
    n_epochs = 12 // n_fits
    for first in range(0, 12, n_epochs):
        options = {"initial_epoch": first, "epochs": first + n_epochs}
        train(model, logger(), writer, batch_size=64, **options)
    assert len(list(tmp_path.iterdir())) == 1
    assert scalars(tmp_path) == curve_of(schedule, range(12))


def test_an_interrupt_loses_nothing_of_the_epochs_before(tmp_path):
    model, writer = scheduled(), LearningRateTensorBoard(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(model, logger(), writer, Interrupt(at=10))
    assert steps_in(tmp_path)[:8] == list(range(8))
    step_count(model.optimizer).assign(8)
    train(model, logger(), writer, initial_epoch=2)
    assert steps_in(tmp_path)[-12:] == list(range(8, 20))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda writer: pickle.loads(pickle.dumps(writer))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_writes_a_file_of_its_own(duplicate, tmp_path):
    writer = LearningRateTensorBoard(tmp_path / "first")
    train(scheduled(), logger(), writer)
    copied = duplicate(writer)
    copied.log_dir = str(tmp_path / "second")
    train(scheduled(), logger(), copied, epochs=1)
    assert steps_in(tmp_path / "first") == list(range(20))
    assert steps_in(tmp_path / "second") == list(range(4))


@pytest.mark.parametrize("order", [1, -1], ids=["keras-first", "keras-last"])
@pytest.mark.parametrize("update_freq", ["epoch", 3, 100])
def test_beside_keras_own(update_freq, order, tmp_path):
    # tensorflow#44505: `record_if` of Keras's callback dropped the values of others.
    keras = callbacks.TensorBoard(str(tmp_path / "keras"), update_freq=update_freq)
    writer = LearningRateTensorBoard(tmp_path / "ours")
    train(scheduled(), logger(), *[keras, writer][::order])
    assert steps_in(tmp_path / "ours") == list(range(20))


@needs_keras_3
def test_the_model_is_read_only_where_a_value_is_due(tmp_path):
    """On JAX, reading it takes as long as several training steps."""
    reads = []

    class Counted(LearningRateTensorBoard):
        @property
        def model(self):
            reads.append(1)
            return super().model

    counts = []
    for batch_size in (1, 16):
        model = build_model()
        step_count(model.optimizer).assign(64)
        reads.clear()
        writer = Counted(tmp_path, update_freq=1000)
        train(model, logger(), writer, batch_size=batch_size, epochs=1)
        counts.append(len(reads))
    assert counts[0] == counts[1] > 0  # of 64 batches and of 4


@needs_tensorflow
def test_several_steps_per_batch(tmp_path):
    """The values are right, and at the steps at which they are written."""

    class Twice(tf.keras.Sequential):
        def train_step(self, *args):
            super().train_step(*args)
            return super().train_step(*args)

    schedule = planned(8, staircase=False)
    model = Twice([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile(optimizers.SGD(schedule), "mse")
    train(model, logger(), LearningRateTensorBoard(tmp_path / "all"))
    assert scalars(tmp_path / "all") == curve_of(schedule, range(0, 40, 2))
    model.compile(optimizers.SGD(schedule), "mse")
    train(model, logger(), LearningRateTensorBoard(tmp_path / "some", update_freq=4))
    written = scalars(tmp_path / "some")
    assert written == curve_of(schedule, [step for step, _ in written])
    assert len(written) >= 5


def test_without_tensorboard(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    message = "^LearningRateTensorBoard needs TensorBoard: pip install tensorboard$"
    with pytest.raises(ImportError, match=message):
        train(build_model(), logger(), LearningRateTensorBoard(tmp_path))
    train(build_model(), logger())
