"""Saved and loaded in a fresh process, a run resumes to the bit, and what older versions wrote loads."""

import json
import textwrap
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from conftest import IS_KERAS_3, assert_equal_arrays, build_model, float32_rates

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    _keras,
)

RULE = {"base_lr": 0.1, "target_lr": 1e-4, "n_epochs": 6, "n_warmup_epochs": 2, "warmup_start_lr": 0.01}
BOTH = pytest.mark.parametrize("staircase", [True, False], ids=["staircase", "continuous"])
RESUME = """
import json
from pathlib import Path
import numpy as np
import tensorflow as tf
import expdecay_keras

x, y = (np.load("data.npz")[name] for name in "xy")
{load}
history = model.fit(
    x, y, initial_epoch=4, epochs=6, batch_size=4, shuffle=False, verbose=0, callbacks=callbacks
).history
Path("rates.json").write_text(json.dumps(history["learning_rate"]))
np.savez("weights.npz", *model.get_weights())
"""
REBUILD = """
tf.keras.utils.set_random_seed(0)
model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
schedule = tf.keras.optimizers.schedules.deserialize(json.loads(Path("schedule.json").read_text()))
model.compile(tf.keras.optimizers.Adam(schedule), "mse")
"""


def scheduled(staircase):
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=4, staircase=staircase)
    return build_model(tf.keras.optimizers.Adam(schedule))


@pytest.fixture
def assert_same(data, fit, tmp_path, python):
    """Resumes at epoch 4 in a fresh process and compares with a run that was never interrupted."""

    def check(load, unbroken, callback):
        history = fit(unbroken, [callback], epochs=6, batch_size=4)
        np.savez(tmp_path / "data.npz", x=data[0], y=data[1])
        python(RESUME.format(load=textwrap.dedent(load)), cwd=tmp_path)
        assert json.loads((tmp_path / "rates.json").read_text()) == history["learning_rate"][4:]
        with np.load(tmp_path / "weights.npz") as weights:
            assert_equal_arrays(weights.values(), unbroken.get_weights())

    return check


@pytest.fixture
def assert_resumes(assert_same, tmp_path):
    def check(load, staircase):
        schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=4, staircase=staircase)
        serialized = tf.keras.optimizers.schedules.serialize(schedule)
        (tmp_path / "schedule.json").write_text(json.dumps(serialized))
        load = f"{textwrap.dedent(load)}\ncallbacks += [expdecay_keras.LearningRateLogger()]"
        assert_same(load, scheduled(staircase), LearningRateLogger())

    return check


def test_callback_resumes(assert_same, fit, tmp_path):
    """Callback from JSON, model from .keras."""
    decay = WarmupExponentialDecay(**RULE)
    unbroken, stopped = (build_model(tf.keras.optimizers.SGD(momentum=0.9)) for _ in range(2))
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
    # keras-hub#973, keras#20806, AIONER#5: saves, and loads after `import expdecay_keras` alone.
    # tensorflow#49208, keras#12891, tensorflow#48947: a resumed schedule is where it was.
    stopped = scheduled(staircase)
    fit(stopped, [], epochs=4, batch_size=4)
    stopped.save(tmp_path / "model.keras")
    load = 'model, callbacks = tf.keras.models.load_model("model.keras"), []'
    assert_resumes(load, staircase)


@BOTH
def test_model_checkpoint_resumes(staircase, fit, tmp_path, assert_resumes):
    checkpoint = tf.keras.callbacks.ModelCheckpoint(str(tmp_path / "model-{epoch}.keras"))
    fit(scheduled(staircase), [checkpoint], epochs=4, batch_size=4)
    load = 'model, callbacks = tf.keras.models.load_model("model-4.keras"), []'
    assert_resumes(load, staircase)


@BOTH
def test_backup_and_restore_resumes(staircase, fit, tmp_path, assert_resumes):
    class Interrupt(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 4:
                raise KeyboardInterrupt

    backup = tf.keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(KeyboardInterrupt):
        fit(scheduled(staircase), [backup, Interrupt()], epochs=6, batch_size=4)
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


@BOTH
def test_h5_loads(staircase, tmp_path, fit):
    model = scheduled(staircase)
    model.compile(model.optimizer, tf.keras.losses.MeanSquaredError())
    fit(model, [], epochs=4, batch_size=4)
    model.save(tmp_path / "model.h5")
    names = {"WarmupExponentialSchedule": WarmupExponentialSchedule}
    loaded = tf.keras.models.load_model(tmp_path / "model.h5", custom_objects=names)
    assert (
        loaded.optimizer.get_config()["learning_rate"] == model.optimizer.get_config()["learning_rate"]
    )
    assert int(loaded.optimizer.iterations.numpy()) == 16
    assert_equal_arrays(loaded.get_weights(), model.get_weights())


@BOTH
@pytest.mark.skipif(
    IS_KERAS_3,
    reason="Keras 3 cannot resume from any .h5 file whose optimizer was used (Unknown variable)",
)
def test_h5_resumes(staircase, fit, tmp_path, assert_resumes):
    stopped = scheduled(staircase)
    fit(stopped, [], epochs=4, batch_size=4)
    stopped.save(tmp_path / "model.h5")
    load = """
        names = {"WarmupExponentialSchedule": expdecay_keras.WarmupExponentialSchedule}
        model, callbacks = tf.keras.models.load_model("model.h5", custom_objects=names), []
    """
    assert_resumes(load, staircase)


@BOTH
@pytest.mark.skipif(
    not isinstance(tf.keras.optimizers.SGD(), tf.__internal__.tracking.Trackable),
    reason="the optimizers of this Keras are not trackable by TensorFlow",
)
def test_tensorflow_checkpoint_resumes(staircase, fit, tmp_path, assert_resumes):
    stopped = scheduled(staircase)
    fit(stopped, [], epochs=4, batch_size=4)
    tf.train.Checkpoint(model=stopped, optimizer=stopped.optimizer).write(str(tmp_path / "checkpoint"))
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
    model = scheduled(staircase)
    clone = tf.keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile(type(model.optimizer).from_config(model.optimizer.get_config()), "mse")
    histories = [fit(m, [LearningRateLogger()], epochs=6, batch_size=4) for m in (model, clone)]
    assert histories[0] == histories[1]
    assert_equal_arrays(clone.get_weights(), model.get_weights())


def test_a_fresh_optimizer_is_told_where_the_run_is(fit):
    # tensorflow#49208, keras#12891, tensorflow#48947: `initial_epoch` does not move a schedule.
    model, rule = scheduled(staircase=True), DecayRule(**RULE)
    model.optimizer.iterations.assign(4 * 4)
    rates = fit(model, [LearningRateLogger()], epochs=6, initial_epoch=4, batch_size=4)["learning_rate"]
    assert rates == float32_rates(rule, [4, 5])


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
sys.modules["expdecay_keras"] = None  # importing it is an error
import numpy as np, tensorflow as tf
module = tf.saved_model.load("saved")
np.save("rates.npy", module.learning_rate(np.linspace(-1, 8, 100)))
"""
    python(script, cwd=tmp_path)
    rates = np.load(tmp_path / "rates.npy")
    np.testing.assert_array_equal(rates, rule.learning_rate(np.linspace(-1, 8, 100)))


# What version 0.1.0 wrote

CALLBACK_0_1_0 = """{"module": "expdecay_keras.callbacks", "class_name": "WarmupExponentialDecay",
    "config": {"base_lr": 0.1, "target_lr": 0.001, "n_epochs": 6, "n_warmup_epochs": 2,
    "warmup_start_lr": 0.05, "verbose": 1},
    "registered_name": "expdecay_keras>WarmupExponentialDecay"}"""
SCHEDULE_0_1_0 = """{"module": "expdecay_keras.schedule", "class_name": "WarmupExponentialSchedule",
    "config": {"base_lr": 0.1, "target_lr": 0.0001, "n_epochs": 6, "n_warmup_epochs": 2,
    "warmup_start_lr": 0.01, "steps_per_epoch": 4, "staircase": false, "name": "planned"},
    "registered_name": "expdecay_keras>WarmupExponentialSchedule"}"""


def test_without_the_package_a_model_loads_uncompiled(tmp_path, python):
    scheduled(staircase=True).save(tmp_path / "model.keras")
    script = """
import numpy as np
import tensorflow as tf

sys.modules["expdecay_keras"] = None
model = tf.keras.models.load_model("model.keras", compile=False)
assert model.predict(np.ones((2, 3), "float32"), verbose=0).shape == (2, 2)
"""
    python(script, cwd=tmp_path)


def written_by_0_1_0(literal):
    if tf.__version__.startswith("2.12."):  # it reads and writes the form of Keras 2
        literal = literal.replace('"WarmupExp', '"expdecay_keras>WarmupExp')
    return json.loads(literal)


def test_callback_of_version_0_1_0():
    saved = written_by_0_1_0(CALLBACK_0_1_0)
    restored = tf.keras.utils.deserialize_keras_object(saved)
    assert type(restored) is WarmupExponentialDecay
    assert restored.get_config() == saved["config"]


def test_schedule_of_version_0_1_0():
    saved = written_by_0_1_0(SCHEDULE_0_1_0)
    restored = tf.keras.optimizers.schedules.deserialize(saved)
    assert type(restored) is WarmupExponentialSchedule
    assert restored.get_config() == saved["config"]


def test_model_of_version_0_1_0(tmp_path, fit):
    model = scheduled(staircase=False)
    fit(model, [], epochs=4, batch_size=4)
    _keras.save(model, tmp_path / "now.keras")
    with (
        zipfile.ZipFile(tmp_path / "now.keras") as now,
        zipfile.ZipFile(tmp_path / "old.keras", "w") as old,
    ):
        for name in now.namelist():
            content = now.read(name)
            if name == "config.json":
                config = json.loads(content)
                optimizer = config["compile_config"]["optimizer"]["config"]
                optimizer["learning_rate"] = written_by_0_1_0(SCHEDULE_0_1_0)
                content = json.dumps(config).encode()
            old.writestr(name, content)
    loaded = tf.keras.models.load_model(tmp_path / "old.keras")
    assert loaded.optimizer.get_config()["learning_rate"] == tf.keras.optimizers.schedules.serialize(
        WarmupExponentialSchedule(**RULE, steps_per_epoch=4, staircase=False, name="planned")
    )
    resumed = [
        fit(m, [LearningRateLogger()], epochs=6, initial_epoch=4, batch_size=4) for m in (loaded, model)
    ]
    assert resumed[0] == resumed[1]
    assert_equal_arrays(loaded.get_weights(), model.get_weights())
