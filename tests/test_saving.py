"""A run that is saved and resumed in a fresh process continues bit for bit."""

import json
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from models import assert_equal_arrays, build_model
from releases import IS_KERAS_3

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

RULE = {
    "base_lr": 0.1,
    "target_lr": 1e-4,
    "n_epochs": 6,
    "n_warmup_epochs": 2,
    "warmup_start_lr": 0.01,
}
BOTH = pytest.mark.parametrize(
    "staircase", [True, False], ids=["staircase", "continuous"]
)
RESUME = """
import json
from pathlib import Path
import numpy as np
import tensorflow as tf
import expdecay_keras

x, y = (np.load("data.npz")[name] for name in "xy")
{load}
options = {{"batch_size": 4, "shuffle": False, "verbose": 0, "callbacks": callbacks}}
history = model.fit(x, y, initial_epoch=4, epochs=6, **options).history
Path("rates.json").write_text(json.dumps(history["learning_rate"]))
np.savez("weights.npz", *model.get_weights())
"""
REBUILD = """
tf.keras.utils.set_random_seed(0)
model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
saved = json.loads(Path("schedule.json").read_text())
schedule = tf.keras.optimizers.schedules.deserialize(saved)
model.compile(tf.keras.optimizers.Adam(schedule), "mse")
"""

OPTIMIZERS = {
    "Adam": tf.keras.optimizers.Adam,
    "SGD": lambda schedule: tf.keras.optimizers.SGD(schedule, momentum=0.9),
}
REBUILT = {
    "Adam": "optimizers.Adam(schedule)",
    "SGD": "optimizers.SGD(schedule, momentum=0.9)",
}


def with_schedule(staircase, optimizer=tf.keras.optimizers.Adam):
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=4, staircase=staircase)
    return build_model(optimizer(schedule))


@pytest.fixture
def assert_same(data, fit, tmp_path, python):
    """Resumes at epoch 4 in a fresh process; compares with an unbroken run."""

    def check(load, unbroken, callback):
        history = fit(unbroken, [callback], epochs=6, batch_size=4)
        np.savez(tmp_path / "data.npz", x=data[0], y=data[1])
        python(RESUME.format(load=textwrap.dedent(load)), cwd=tmp_path)
        assert (
            json.loads((tmp_path / "rates.json").read_text())
            == history["learning_rate"][4:]
        )
        with np.load(tmp_path / "weights.npz") as weights:
            assert_equal_arrays(weights.values(), unbroken.get_weights())

    return check


@pytest.fixture
def assert_resumes(assert_same, tmp_path):
    def check(load, staircase, optimizer=tf.keras.optimizers.Adam):
        schedule = WarmupExponentialSchedule(
            **RULE, steps_per_epoch=4, staircase=staircase
        )
        serialized = tf.keras.optimizers.schedules.serialize(schedule)
        (tmp_path / "schedule.json").write_text(json.dumps(serialized))
        logged = "callbacks += [expdecay_keras.LearningRateLogger()]"
        load = f"{textwrap.dedent(load)}\n{logged}"
        unbroken = with_schedule(staircase, optimizer)
        assert_same(load, unbroken, LearningRateLogger())

    return check


def test_callback_resumes(assert_same, fit, tmp_path):
    """Callback from JSON, model from .keras."""
    decay = WarmupExponentialDecay(**RULE)
    unbroken, stopped = (
        build_model(tf.keras.optimizers.SGD(momentum=0.9)) for _ in range(2)
    )
    with pytest.warns(UserWarning, match="stops before"):
        fit(stopped, [decay], epochs=4, batch_size=4)
    stopped.save(tmp_path / "model.keras")
    serialized = tf.keras.utils.serialize_keras_object(decay)
    (tmp_path / "callback.json").write_text(json.dumps(serialized))
    load = """
        model = tf.keras.models.load_model("model.keras")
        saved = json.loads(Path("callback.json").read_text())
        callbacks = [tf.keras.utils.deserialize_keras_object(saved)]
    """
    assert_same(load, unbroken, WarmupExponentialDecay(**RULE))


@BOTH
def test_keras_file_resumes(staircase, fit, tmp_path, assert_resumes):
    # keras-hub#973, keras#20806: a model with a custom schedule does not load.
    # tensorflow#49208: a resumed schedule starts again.
    stopped = with_schedule(staircase)
    fit(stopped, [], epochs=4, batch_size=4)
    stopped.save(tmp_path / "model.keras")
    load = 'model, callbacks = tf.keras.models.load_model("model.keras"), []'
    assert_resumes(load, staircase)


@BOTH
def test_backup_and_restore_resumes(staircase, fit, tmp_path, assert_resumes):
    class InterruptEpoch(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 4:
                raise KeyboardInterrupt

    backup = tf.keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(KeyboardInterrupt):
        fit(
            with_schedule(staircase), [backup, InterruptEpoch()], epochs=6, batch_size=4
        )
    # The first releases of Keras 3 restore only an optimizer that is built.
    load = (
        REBUILD
        + """
if hasattr(model.optimizer, "built"):
    model.optimizer.build(model.trainable_variables)
callbacks = [tf.keras.callbacks.BackupAndRestore("backup")]
"""
    )
    assert_resumes(load, staircase)


@pytest.mark.parametrize("name, staircase", [("Adam", False), ("SGD", True)])
def test_weights_resume_an_optimizer_that_was_built(
    name, staircase, fit, tmp_path, assert_resumes
):
    # keras PR 22014, tensorflow#47115: the optimizer's state was skipped on loading.
    optimizer = OPTIMIZERS[name]
    stopped = with_schedule(staircase, optimizer)
    fit(stopped, [], epochs=4, batch_size=4)
    stopped.save_weights(tmp_path / "planned.weights.h5")
    load = (
        REBUILD.replace("optimizers.Adam(schedule)", REBUILT[name])
        + """
model.optimizer.build(model.trainable_variables)
model.load_weights("planned.weights.h5")
callbacks = []
"""
    )
    assert_resumes(load, staircase, optimizer)


@BOTH
@pytest.mark.skipif(
    IS_KERAS_3,
    reason="Keras 3 cannot resume from any .h5 file whose optimizer was used",
)
def test_h5_resumes(staircase, fit, tmp_path, assert_resumes):
    stopped = with_schedule(staircase)
    fit(stopped, [], epochs=4, batch_size=4)
    stopped.save(tmp_path / "model.h5")
    load = """
        names = {"WarmupExponentialSchedule": expdecay_keras.WarmupExponentialSchedule}
        model = tf.keras.models.load_model("model.h5", custom_objects=names)
        callbacks = []
    """
    assert_resumes(load, staircase)


@BOTH
@pytest.mark.skipif(
    not isinstance(tf.keras.optimizers.SGD(), tf.__internal__.tracking.Trackable),
    reason="the optimizers of this Keras are not trackable by TensorFlow",
)
def test_tensorflow_checkpoint_resumes(staircase, fit, tmp_path, assert_resumes):
    stopped = with_schedule(staircase)
    fit(stopped, [], epochs=4, batch_size=4)
    tf.train.Checkpoint(model=stopped, optimizer=stopped.optimizer).write(
        str(tmp_path / "checkpoint")
    )
    load = (
        REBUILD
        + """
model.optimizer.build(model.trainable_variables)
checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
checkpoint.read("checkpoint").assert_existing_objects_matched()
callbacks = []
"""
    )
    assert_resumes(load, staircase)


@BOTH
def test_clone_and_optimizer_config(staircase, fit):
    model = with_schedule(staircase)
    clone = tf.keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile(
        type(model.optimizer).from_config(model.optimizer.get_config()), "mse"
    )
    histories = [
        fit(m, [LearningRateLogger()], epochs=6, batch_size=4) for m in (model, clone)
    ]
    assert histories[0] == histories[1]
    assert_equal_arrays(clone.get_weights(), model.get_weights())


def test_saved_model_of_the_rule_needs_no_package(tmp_path, python):
    class Module(tf.Module):
        def __init__(self, rule):
            super().__init__()
            self.rule = rule

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)])
        def learning_rate(self, epochs):
            return self.rule.learning_rate(epochs)

    rule = DecayRule(**RULE)
    tf.saved_model.save(Module(rule), str(tmp_path / "saved"))
    script = """
import numpy as np
import tensorflow as tf

sys.modules["expdecay_keras"] = None  # importing it is an error
module = tf.saved_model.load("saved")
np.save("rates.npy", module.learning_rate(np.linspace(-1, 8, 100)))
"""
    python(script, cwd=tmp_path)
    rates = np.load(tmp_path / "rates.npy")
    np.testing.assert_array_equal(rates, rule.learning_rate(np.linspace(-1, 8, 100)))
