"""LearningRateTensorBoard writes one curve, in order, into one file."""

import copy
import sys

import models
import numpy as np
import pytest
import releases
import tensorflow as tf
from models import RATES, build_model, planned, scalars, scheduled, step_count, train

from expdecay_keras import LearningRateLogger, LearningRateTensorBoard

callbacks, optimizers = tf.keras.callbacks, tf.keras.optimizers
logger = LearningRateLogger


def steps_in(path):
    return [step for step, _ in scalars(path)]


def curve_of(schedule, steps):
    return [(step, models.evaluate(schedule, step).item()) for step in steps]


@pytest.mark.parametrize("update_freq", [1, 5])
def test_the_rate_of_every_nth_step_is_in_one_file(update_freq, tmp_path):
    """Of several fits, too."""
    # tf-keras#403, keras#14291 ask for the rate of every batch. keras#888: one `fit`
    # per epoch. tensorboard#4955: thousands of files.
    schedule = planned(staircase=False)
    model = build_model(optimizers.SGD(schedule))
    writer = LearningRateTensorBoard(str(tmp_path), update_freq)
    for first, last in [(0, 1), (1, 2), (2, 5)]:
        train(model, logger(), writer, initial_epoch=first, epochs=last)
    assert scalars(tmp_path) == curve_of(schedule, range(0, 20, update_freq))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "count, update_freq, expected",
    [
        pytest.param(1301, 5, [1305, 1310], id="between two multiples"),
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


@pytest.mark.skipif(releases.BACKEND == "torch", reason="PyTorch has none")
def test_several_steps_per_execution(tmp_path):
    model = scheduled()
    model.compile(model.optimizer, "mse", steps_per_execution=2)
    writer = LearningRateTensorBoard(tmp_path, update_freq=3)
    assert train(model, logger(), writer, epochs=3) == RATES[:3]
    assert steps_in(tmp_path) == [0, 4, 6, 10]


@releases.needs_multi_optimizer
def test_several_optimizers_each_at_steps_of_its_own(tmp_path):
    a, b = optimizers.SGD(0.5, name="a"), optimizers.SGD(0.25, name="b")
    step_count(b).assign(1)
    model, writer = models.multiple(a, b), LearningRateTensorBoard(tmp_path, 2)
    models.train_all(model, writer, epochs=1)
    assert scalars(tmp_path, "learning_rate_a") == [(0, 0.5), (2, 0.5)]
    assert scalars(tmp_path, "learning_rate_b") == [(2, 0.25), (4, 0.25)]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_dataset_of_unknown_length(tmp_path):
    """Keras begins a batch that never comes; its step is not written."""
    unknown, schedule = models.unknown_length(), planned(staircase=False)
    writer = LearningRateTensorBoard(tmp_path / "planned")
    models.train_on(unknown, build_model(optimizers.SGD(schedule)), writer)
    written = scalars(tmp_path / "planned")
    assert len(written) == 20
    assert written == curve_of(schedule, [step for step, _ in written])
    writer = LearningRateTensorBoard(tmp_path / "callback")
    models.train_on(unknown, build_model(), models.decay(), writer)
    rates = [rate for _, rate in scalars(tmp_path / "callback")]
    assert rates == list(np.repeat(RATES, 4))


@pytest.mark.parametrize("at, steps", [(0, [0, 4]), (1, [0, 4, 0])])
def test_after_a_rollback(at, steps, tmp_path):
    writer = LearningRateTensorBoard(tmp_path, update_freq=4)
    train(scheduled(), logger(), writer, models.SetCount(at, 0), epochs=3)
    assert steps_in(tmp_path) == steps


def test_two_models_in_turn(tmp_path):
    """Nothing of the first model is left when the second one is trained."""
    writer = LearningRateTensorBoard(tmp_path, update_freq=5)
    other = scheduled()
    step_count(other.optimizer).assign(4)
    train(scheduled(), logger(), writer, epochs=2)
    train(other, logger(), writer, epochs=2)
    assert steps_in(tmp_path) == [0, 5, 5, 10]


def test_an_interrupt_loses_nothing_of_the_epochs_before(tmp_path):
    model, writer = scheduled(), LearningRateTensorBoard(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(model, logger(), writer, models.Interrupt(at=10))
    assert steps_in(tmp_path)[:8] == list(range(8))
    step_count(model.optimizer).assign(8)
    train(model, logger(), writer, initial_epoch=2)
    assert steps_in(tmp_path)[-12:] == list(range(8, 20))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_copy_writes_a_file_of_its_own(tmp_path):
    writer = LearningRateTensorBoard(tmp_path / "first")
    train(scheduled(), logger(), writer, epochs=1)
    copies = copy.copy(writer), copy.deepcopy(writer)
    for copied in copies:
        copied.log_dir = str(tmp_path / "second")
    train(scheduled(), logger(), *copies, epochs=1)
    assert steps_in(tmp_path / "first") == list(range(4))
    assert len(list((tmp_path / "second").iterdir())) == 2


@pytest.mark.parametrize("update_freq", ["epoch", 3])
def test_beside_keras_own_which_shows_a_schedules_next_rate(update_freq, tmp_path):
    # tensorflow#44505: `record_if` of Keras's callback dropped the values of others.
    keras = callbacks.TensorBoard(str(tmp_path / "keras"), update_freq=update_freq)
    writer = LearningRateTensorBoard(tmp_path / "ours")
    assert train(scheduled(), logger(), keras, writer) == RATES
    assert steps_in(tmp_path / "ours") == list(range(20))
    if update_freq == "epoch":  # it asks the schedule after the epoch
        curve = scalars(tmp_path / "keras" / "train", "epoch_learning_rate")
        assert curve == list(enumerate([*RATES[1:], RATES[4]]))


@releases.needs_keras_3
def test_the_model_is_read_only_where_a_value_is_due(tmp_path):
    """On JAX, reading it takes as long as several training steps."""
    reads = []

    class Counted(LearningRateTensorBoard):
        @property
        def model(self):
            reads.append(1)
            return super().model

    counts = []
    for batch_size in (1, 16):  # 64 batches or 4
        model, writer = build_model(), Counted(tmp_path, update_freq=1000)
        step_count(model.optimizer).assign(64)
        reads.clear()
        train(model, logger(), writer, batch_size=batch_size, epochs=1)
        counts.append(len(reads))
    assert counts[0] == counts[1] > 0


@releases.needs_tensorflow
def test_several_steps_per_batch(tmp_path):
    """The values are right, and at the steps at which they are written."""
    schedule = planned(8, staircase=False)
    for update_freq in (1, 4):
        model = models.trained_by_hand(optimizers.SGD(schedule), n_steps=2)
        path = tmp_path / str(update_freq)
        train(model, logger(), LearningRateTensorBoard(path, update_freq))
        steps = range(0, 40, 2 * update_freq)  # every `update_freq` batches
        assert scalars(path) == curve_of(schedule, steps)


def test_without_tensorboard(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    message = "^LearningRateTensorBoard needs TensorBoard: pip install tensorboard$"
    with pytest.raises(ImportError, match=message):
        train(build_model(), logger(), LearningRateTensorBoard(tmp_path))
    train(build_model(), logger())
