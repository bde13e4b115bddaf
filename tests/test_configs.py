"""Configs, copies and reprs of the callbacks and the schedule."""

import copy
import json
import pickle

import models
import numpy as np
import pytest
import tensorflow as tf
from models import RATES, build_model, decay, evaluate, train

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    LearningRateTensorBoard,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

RULE = {
    "base_lr": 0.1,
    "target_lr": 0.001,
    "n_epochs": 8,
    "n_warmup_epochs": 2,
    "warmup_start_lr": 0.05,
    "n_hold_epochs": 3,
}
DEFAULTS = {"n_warmup_epochs": 0, "warmup_start_lr": None, "n_hold_epochs": 0}
NAME = "WarmupExponentialSchedule"
# A class, all its arguments other than their defaults, and those defaults.
CLASSES = [
    (WarmupExponentialDecay, {**RULE, "verbose": 1}, {**DEFAULTS, "verbose": 0}),
    (
        WarmupExponentialSchedule,
        {**RULE, "steps_per_epoch": 4, "staircase": False, "name": "planned"},
        {**DEFAULTS, "staircase": True, "name": NAME},
    ),
    (LearningRateLogger, {}, {}),
    (LearningRateTensorBoard, {"log_dir": "a", "update_freq": 2}, {"update_freq": 1}),
]
of_each_class = pytest.mark.parametrize(
    "cls, arguments, defaults", CLASSES, ids=[row[0].__name__ for row in CLASSES]
)


@of_each_class
def test_config_and_repr_contain_each_argument(cls, arguments, defaults):
    """Those of a subclass, too."""

    # tensorflow/addons PR 1623: a config lacked an argument.
    class Own(cls):
        pass

    for kind in (cls, Own):
        one = kind(**arguments)
        for other in (one, kind.from_config(one.get_config()), eval(repr(one))):
            assert type(other) is kind
            assert list(other.get_config().items()) == list(arguments.items())
            assert repr(other) == repr(one)


@of_each_class
def test_defaults_are_in_the_config(cls, arguments, defaults):
    required = {n: value for n, value in arguments.items() if n not in defaults}
    expected = {**arguments, **defaults}
    assert list(cls(**required).get_config().items()) == list(expected.items())


NUMPY = np.float32(0.5), 1, np.int32(9)


@pytest.mark.parametrize(
    "one, values",
    [
        (
            WarmupExponentialDecay(*NUMPY, np.uint8(2), 0, np.int64(1), np.True_),
            [0.5, 1.0, 9, 2, 0.0, 1, 1],
        ),
        (
            WarmupExponentialSchedule(
                *NUMPY, steps_per_epoch=np.int64(5), staircase=np.False_
            ),
            [0.5, 1.0, 9, 0, None, 0, 5, False, NAME],
        ),
        (LearningRateTensorBoard("logs", np.int64(3)), ["logs", 3]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numbers_become_python_numbers(one, values):
    # tensorflow#45261: an integer rate was truncated to 0.
    assert repr(list(one.get_config().values())) == repr(values)


@of_each_class
def test_the_json_in_which_it_is_saved(cls, arguments, defaults):
    """What every later version must be able to read."""
    # tf-keras#430: Keras's callbacks cannot be saved.
    is_schedule = cls is WarmupExponentialSchedule
    literal = {
        "module": f"expdecay_keras.{'schedule' if is_schedule else 'callbacks'}",
        "class_name": cls.__name__,
        "config": arguments,
        "registered_name": f"expdecay_keras>{cls.__name__}",
    }
    if tf.__version__.startswith("2.12."):  # it writes and reads the older form
        literal = {"class_name": literal["registered_name"], "config": arguments}
    one = cls(**arguments)
    serialized = json.loads(json.dumps(tf.keras.utils.serialize_keras_object(one)))
    assert {key: serialized[key] for key in literal} == literal
    for saved in (literal, serialized):
        restored = tf.keras.utils.deserialize_keras_object(saved)
        assert type(restored) is cls
        assert restored.get_config() == arguments


def test_attributes_are_read_only():
    # open_clip#413: a run kept its old plan after what looked like a valid change.
    callback = WarmupExponentialDecay(**RULE)
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=4)
    assert callback.rule == schedule.rule == DecayRule(**RULE)
    read_only = [(callback, "rule"), (schedule, "rule")]
    read_only += [(schedule, "steps_per_epoch"), (schedule, "staircase")]
    for one, name in read_only:
        with pytest.raises(AttributeError):
            setattr(one, name, getattr(one, name))


# Copies


@pytest.mark.parametrize("make", [decay, LearningRateLogger])
def test_a_copy_of_a_callback_leaves_the_model_behind(make):
    """It trains another model, and the original keeps its own."""
    model, one = build_model(), make()
    train(model, LearningRateLogger(), one, initial_epoch=4)
    for duplicate in (copy.deepcopy, copy.copy):
        copied = duplicate(one)
        assert one.model is model
        assert copied.model is None
        assert copied.get_config() == one.get_config()
    pickled = pickle.dumps(one)
    assert len(pickled) < 2000
    rates = train(build_model(), pickle.loads(pickled), initial_epoch=4)
    assert rates == ([RATES[4]] if make is decay else [float(np.float32(0.01))])


@pytest.mark.parametrize(
    "duplicate",
    [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy],
    ids=["pickle", "deepcopy", "copy"],
)
def test_a_copy_of_a_schedule_is_equal_small_and_can_be_compiled(duplicate, floatx):
    floatx("float16")
    schedule = WarmupExponentialSchedule(
        **{**RULE, "n_epochs": 10_000}, steps_per_epoch=4, staircase=False
    )
    floatx("float32")  # a copy keeps the dtype of its original
    copied = duplicate(schedule)
    steps = np.arange(0, 40_000, 7)
    rates = evaluate(copied, steps)
    assert rates.dtype == np.float16
    np.testing.assert_array_equal(rates, evaluate(schedule, steps))
    assert len(pickle.dumps(schedule)) < 1000
    for function in models.compiled_forms(copied):
        assert float(function(models.make_tensor(70, "int32"))) == rates[10]
