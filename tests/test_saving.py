"""A run that is saved and resumed in a fresh process continues bit for bit."""

import json

import pytest
import tensorflow as tf
from models import RATES, Interrupt, build_model, decay, scheduled, train
from releases import IS_KERAS_3

from expdecay_keras import LearningRateLogger

RESUME = """
import json
import tensorflow as tf
from models import scheduled, train
from expdecay_keras import LearningRateLogger, WarmupExponentialSchedule


def build():
    # Weights, and the first releases of Keras 3, need an optimizer that is built.
    model = scheduled(optimizer=tf.keras.optimizers.Adam)
    model.optimizer.build(model.trainable_variables)
    return model


def resume(way, model, *callbacks):
    rates = train(model, *callbacks, initial_epoch=3)
    resumed[way] = [rates, [weight.tolist() for weight in model.get_weights()]]


resumed, logger = {}, LearningRateLogger()
# keras-hub#973, keras#20806: a model with a custom schedule does not load.
# tensorflow#49208: a resumed schedule starts again.
resume("keras file", tf.keras.models.load_model("model.keras"), logger)
# keras PR 22014, tensorflow#47115: the optimizer's state was skipped on loading.
model = build()
model.load_weights("model.weights.h5")
resume("weights", model, logger)
resume("backup", build(), tf.keras.callbacks.BackupAndRestore("backup"), logger)
with open("callback.json") as file:
    decay = tf.keras.utils.deserialize_keras_object(json.load(file))
resume("callback", tf.keras.models.load_model("trained.keras"), decay)
if "h5 file" in sys.argv:
    names = {"WarmupExponentialSchedule": WarmupExponentialSchedule}
    resume("h5 file", tf.keras.models.load_model("model.h5", names), logger)
if "checkpoint" in sys.argv:
    model = build()
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    checkpoint.read("checkpoint").assert_existing_objects_matched()
    resume("checkpoint", model, logger)
print(json.dumps(resumed))
"""
WAYS = ["keras file", "weights", "backup", "callback"]
if not IS_KERAS_3:  # Keras 3 cannot resume from an .h5 file whose optimizer was used
    WAYS.append("h5 file")
if isinstance(tf.keras.optimizers.SGD(), tf.__internal__.tracking.Trackable):
    WAYS.append("checkpoint")


def test_each_way_to_resume_continues_bit_for_bit(tmp_path, python, monkeypatch):
    """By .keras and .h5 files, weights, a checkpoint, a backup, the callback's JSON."""
    monkeypatch.chdir(tmp_path)
    unbroken, stopped, interrupted = [
        scheduled(optimizer=tf.keras.optimizers.Adam) for _ in range(3)
    ]
    by_callback, stopped_by_callback = [
        build_model(tf.keras.optimizers.SGD(momentum=0.9)) for _ in range(2)
    ]
    train(unbroken, LearningRateLogger())
    train(stopped, LearningRateLogger(), epochs=3)
    stopped.save("model.keras")
    stopped.save_weights("model.weights.h5")
    if "h5 file" in WAYS:
        stopped.save("model.h5")
    if "checkpoint" in WAYS:
        checkpoint = tf.train.Checkpoint(model=stopped, optimizer=stopped.optimizer)
        checkpoint.write("checkpoint")
    backup = tf.keras.callbacks.BackupAndRestore("backup")
    with pytest.raises(KeyboardInterrupt):  # in the fourth epoch
        train(interrupted, backup, Interrupt(at=13))
    train(by_callback, decay())
    with pytest.warns(UserWarning, match="stops before"):
        train(stopped_by_callback, decay(), epochs=3)
    stopped_by_callback.save("trained.keras")
    with open("callback.json", "w") as file:
        json.dump(tf.keras.utils.serialize_keras_object(decay()), file)

    resumed = json.loads(python(RESUME, *WAYS, cwd=tmp_path).stdout)
    assert list(resumed) == WAYS
    for way, (rates, weights) in resumed.items():
        model = by_callback if way == "callback" else unbroken
        assert rates == RATES[3:]
        assert weights == [weight.tolist() for weight in model.get_weights()]
