"""Configs, copies and reprs of the callbacks and the schedule."""

import copy
import json
import pickle
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from models import build_model, evaluate, train
from oracle import float32_rates
from releases import BACKEND

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    LearningRateTensorBoard,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

RULE_CONFIG = {
    "base_lr": 0.1,
    "target_lr": 0.001,
    "n_epochs": 8,
    "n_warmup_epochs": 2,
    "warmup_start_lr": 0.05,
    "n_hold_epochs": 3,
}
RULE_DEFAULTS = {"n_warmup_epochs": 0, "warmup_start_lr": None, "n_hold_epochs": 0}


class Case(NamedTuple):
    """A class, all its arguments other than their defaults, and those defaults."""

    type: type
    module: str
    config: dict
    defaults: dict


CASES = [
    Case(
        WarmupExponentialDecay,
        "callbacks",
        {**RULE_CONFIG, "verbose": 1},
        {**RULE_DEFAULTS, "verbose": 0},
    ),
    Case(
        WarmupExponentialSchedule,
        "schedule",
        {**RULE_CONFIG, "steps_per_epoch": 4, "staircase": False, "name": "planned"},
        {**RULE_DEFAULTS, "staircase": True, "name": "WarmupExponentialSchedule"},
    ),
    Case(LearningRateLogger, "callbacks", {}, {}),
    Case(
        LearningRateTensorBoard,
        "callbacks",
        {"log_dir": "logs", "update_freq": 2},
        {"update_freq": 1},
    ),
]
of_each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.type.__name__)
by_each_copy = pytest.mark.parametrize(
    "duplicate",
    [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy],
    ids=["pickle", "deepcopy", "copy"],
)


@of_each
def test_config_contains_the_constructors_arguments(case):
    # tensorflow/addons PR 1623: a config lacked an argument.
    config = case.type(**case.config).get_config()
    assert list(config.items()) == list(case.config.items())
    assert case.type.from_config(config).get_config() == config


@of_each
def test_defaults_are_in_the_config(case):
    required = {n: v for n, v in case.config.items() if n not in case.defaults}
    config = case.type(**required).get_config()
    assert config == {**case.config, **case.defaults}
    assert list(config) == list(case.config)


NUMPY_ROWS = [
    (
        WarmupExponentialDecay,
        (np.float32(0.5), 1, np.int32(9), np.uint8(2), 0, 1, np.True_),
        {},
        [float, float, int, int, float, int, int],
    ),
    (
        WarmupExponentialSchedule,
        (np.float32(0.5), 1, np.int32(9)),
        {"steps_per_epoch": np.int64(5), "staircase": np.False_},
        [float, float, int, int, type(None), int, int, bool, str],
    ),
    (LearningRateTensorBoard, ("logs", np.int64(3)), {}, [str, int]),
]


@pytest.mark.parametrize(
    "type_, arguments, options, types",
    NUMPY_ROWS,
    ids=[row[0].__name__ for row in NUMPY_ROWS],
)
def test_numbers_become_python_numbers(type_, arguments, options, types):
    config = type_(*arguments, **options).get_config()
    assert [type(value) for value in config.values()] == types


@of_each
def test_repr_can_be_pasted(case):
    one = case.type(**case.config)
    pasted = eval(repr(one))
    assert type(pasted) is case.type
    assert pasted.get_config() == case.config
    assert repr(pasted) == repr(one)


@of_each
def test_the_form_in_which_it_is_saved(case):
    """What every later version must be able to read."""
    # tf-keras#430: Keras's callbacks cannot be saved.
    name = case.type.__name__
    literal = {
        "module": f"expdecay_keras.{case.module}",
        "class_name": name,
        "config": case.config,
        "registered_name": f"expdecay_keras>{name}",
    }
    if tf.__version__.startswith("2.12."):  # it writes and reads the older form
        literal = {"class_name": f"expdecay_keras>{name}", "config": case.config}
    one = case.type(**case.config)
    serialized = json.loads(json.dumps(tf.keras.utils.serialize_keras_object(one)))
    assert {key: serialized[key] for key in literal} == literal
    restored = tf.keras.utils.deserialize_keras_object(literal)
    assert type(restored) is case.type
    assert restored.get_config() == case.config


@of_each
def test_subclasses_keep_their_name_and_attributes(case):
    class Noted(case.type):
        note = None

    noted = Noted(**case.config)
    noted.note = ["mine"]
    copied = copy.deepcopy(noted)
    assert type(copied) is Noted
    assert copied.note == ["mine"]
    assert repr(copied).startswith("Noted(")
    assert copied.get_config() == case.config


@pytest.mark.parametrize(
    "type_, name",
    [
        (WarmupExponentialDecay, "rule"),
        (WarmupExponentialSchedule, "rule"),
        (WarmupExponentialSchedule, "steps_per_epoch"),
        (WarmupExponentialSchedule, "staircase"),
    ],
)
def test_attributes_are_read_only(type_, name):
    # open_clip#413: a run kept its old plan after what looked like a valid change.
    case = next(case for case in CASES if case.type is type_)
    one = type_(**case.config)
    assert one.rule == DecayRule(**RULE_CONFIG)
    with pytest.raises(AttributeError):
        setattr(one, name, getattr(one, name))
    assert one.get_config() == case.config


# Copies


@by_each_copy
@pytest.mark.parametrize("type_", [WarmupExponentialDecay, LearningRateLogger])
def test_a_copy_of_a_callback_leaves_the_model_behind(type_, duplicate):
    case = next(case for case in CASES if case.type is type_)
    model, one = build_model(), type_(**case.config)
    train(model, LearningRateLogger(), one, initial_epoch=7, epochs=8)
    copied = duplicate(one)
    assert one.model is model
    assert copied.model is None
    assert len(pickle.dumps(one)) < 2000
    assert copied.get_config() == one.get_config()


def test_a_copied_callback_trains_another_model():
    decay = WarmupExponentialDecay(**RULE_CONFIG)
    train(build_model(), decay, epochs=8)
    rates = train(build_model(), copy.deepcopy(decay), epochs=8)
    assert rates == float32_rates(decay.rule, range(8))


@by_each_copy
@pytest.mark.parametrize("staircase", [True, False], ids=["staircase", "continuous"])
def test_copies_of_a_schedule_are_equal_and_small(duplicate, staircase, floatx):
    floatx("float16")
    arguments = {**RULE_CONFIG, "n_epochs": 10_000, "steps_per_epoch": 4}
    schedule = WarmupExponentialSchedule(**arguments, staircase=staircase)
    floatx("float32")  # a copy keeps the dtype of its original
    copied = duplicate(schedule)
    steps = np.arange(0, 40_000, 7)
    rates = evaluate(copied, steps)
    assert rates.dtype == np.float16
    np.testing.assert_array_equal(rates, evaluate(schedule, steps))
    assert len(pickle.dumps(schedule)) < 1000


@by_each_copy
def test_a_copied_schedule_is_compiled_by_its_backend(duplicate):
    schedule = duplicate(WarmupExponentialSchedule(**RULE_CONFIG, steps_per_epoch=4))
    expected = np.float32(schedule.rule.rates(6))
    if BACKEND == "jax":
        import jax

        rate = jax.jit(schedule)(jax.numpy.asarray(25))
    elif BACKEND == "torch":
        import torch

        rate = schedule(torch.tensor(25))
        assert isinstance(rate, torch.Tensor)
    else:
        function = tf.function(schedule).get_concrete_function(tf.constant(25))
        assert "GatherV2" in {op.type for op in function.graph.get_operations()}
        rate = function(tf.constant(25))
    assert np.float32(rate) == expected
