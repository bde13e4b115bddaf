import dataclasses
import pickle

import numpy as np
import pytest
import tensorflow as tf
from conftest import needs_tensorflow, random_rules, rule_arguments, true_rates
from hypothesis import given, settings
from hypothesis import strategies as st

from expdecay_keras import DecayRule


def assert_nearest_float32(rules):
    for rule, epochs in rules:
        rates = rule.learning_rate(epochs, dtype="float32").numpy()
        np.testing.assert_array_equal(rates, true_rates(rule, epochs).astype(np.float32), str(rule))
        first = rule.n_warmup_epochs + rule.n_hold_epochs
        ends = rule.learning_rate([first, rule.n_epochs - 1], dtype="float64").numpy()
        assert ends.tolist() == [rule.base_lr, rule.target_lr]


def test_seed_table(seed_row, seed_rates):
    rates = DecayRule(*seed_row).learning_rate(range(5), dtype="float64").numpy()
    assert rates.round(6).tolist() == seed_rates


def test_every_rate_is_the_nearest_float32():
    assert_nearest_float32(random_rules(400, seed=1))


@pytest.mark.long
def test_every_rate_of_a_hundred_thousand_rules_is_the_nearest_float32():
    assert_nearest_float32(random_rules(100_000, seed=2))


def test_ramp():
    # tensorflow/addons#2086, tensorflow PR 28623: warm-up, held or as a linear ramp.
    rule = DecayRule(0.4, 0.1, n_epochs=7, n_warmup_epochs=4, warmup_start_lr=0.0)
    rates = rule.learning_rate(range(7), dtype="float64").numpy()
    np.testing.assert_allclose(rates, [0.0, 0.1, 0.2, 0.3, 0.4, 0.2, 0.1], rtol=1e-15)
    held = dataclasses.replace(rule, warmup_start_lr=None)
    assert held.learning_rate(range(5), dtype="float64").numpy().tolist() == [0.4] * 5


def test_ramp_hold_and_decay():
    # maxtext#2882, transformers#34905, MiniCPM#116: WSD.
    rule = DecayRule(0.4, 0.1, 9, n_warmup_epochs=2, warmup_start_lr=0.0, n_hold_epochs=4)
    rates = rule.learning_rate(range(10), dtype="float64").numpy()
    np.testing.assert_allclose(rates, [0.0, 0.2, *[0.4] * 5, 0.2, 0.1, 0.1], rtol=1e-15)
    assert rule.decay_rate == pytest.approx(-np.log(2))
    held = DecayRule(0.4, 0.1, 9, n_hold_epochs=6)
    np.testing.assert_array_equal(
        held.learning_rate(range(9)), DecayRule(0.4, 0.1, 9, n_warmup_epochs=6).learning_rate(range(9))
    )


@pytest.mark.parametrize("n_warmup, n_hold", [(3, 0), (3, 5), (10, 1)])
def test_optax_warmup_exponential_decay_schedule_gives_the_same_curve(n_warmup, n_hold):
    """By its definition: a linear ramp joined to a decay that begins after `transition_begin`."""
    rule = DecayRule(0.1, 1e-4, 31, n_warmup, 0.01, n_hold)
    steps = np.arange(31)
    ramp = 0.01 + (0.1 - 0.01) * np.minimum(steps / n_warmup, 1)
    decreased = (steps - n_warmup) - n_hold  # transition_begin = n_hold
    decayed = np.where(
        decreased <= 0, 0.1, 0.1 * (1e-4 / 0.1) ** (decreased / (31 - 1 - n_warmup - n_hold))
    )
    expected = np.where(steps < n_warmup, ramp, np.maximum(decayed, 1e-4))  # end_value = 1e-4
    np.testing.assert_allclose(rule.learning_rate(steps).numpy(), expected, rtol=2e-7)


def test_a_rate_given_as_a_factor_every_so_many_epochs():
    # timm#1544, deepmd PR 3445: EfficientNet's 0.97 every 2.4 epochs.
    base_lr, n_epochs, n_warmup, n_hold = 0.256, 350, 5, 10
    target_lr = base_lr * 0.97 ** ((n_epochs - 1 - n_warmup - n_hold) / 2.4)
    rule = DecayRule(base_lr, target_lr, n_epochs, n_warmup, n_hold_epochs=n_hold)
    epochs = np.array([0, 2.4, 24, 240]) + n_warmup + n_hold
    expected = base_lr * 0.97 ** np.array([0, 1, 10, 100])
    np.testing.assert_allclose(rule.learning_rate(epochs, "float64"), expected, rtol=1e-13)


def test_decay_starts_after_the_first_real_epoch():
    # timm PR 2753: lr(W) is B, lr(W + 1) the first below it.
    rule = DecayRule(0.1, 0.01, n_epochs=10, n_warmup_epochs=3)
    rates = rule.learning_rate(range(10)).numpy()
    assert (rates[:4] == np.float32(0.1)).all()
    assert rates[4] < np.float32(0.1)


def test_target_is_reached_in_the_last_epoch_and_held():
    # gpt-neox PR 1008, PR 1040: the final value is reached. pylearn2#479: no overflow long after it.
    rule = DecayRule(0.1, 3e-7, n_epochs=90, n_warmup_epochs=3)
    rates = rule.learning_rate([88, 89, 90, 10**6, 2**31, 2**53]).numpy()
    assert rates[0] > np.float32(3e-7)
    assert (rates[1:] == np.float32(3e-7)).all()


def test_before_epoch_0_the_rate_is_that_of_epoch_0():
    assert (
        DecayRule(0.1, 0.01, 5, 2, 0.05).learning_rate([-1, -0.5, 0]).numpy().tolist()
        == [np.float32(0.05)] * 3
    )


def test_growth_and_constant():
    rising = DecayRule(1e-6, 1.0, n_epochs=7).learning_rate(range(7), dtype="float64").numpy()
    np.testing.assert_allclose(rising, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1], rtol=1e-14)
    constant = DecayRule(0.3, 0.3, n_epochs=7).learning_rate(range(9)).numpy()
    assert (constant == np.float32(0.3)).all()


def test_decay_rate():
    assert DecayRule(1.0, np.exp(-6.0), n_epochs=5, n_warmup_epochs=1).decay_rate == pytest.approx(-2)


@needs_tensorflow
def test_keras_exponential_decay_gives_the_same_curve():
    rule = DecayRule(0.1, 1e-4, n_epochs=31)
    oracle = tf.keras.optimizers.schedules.ExponentialDecay(
        tf.constant(0.1, tf.float64), decay_steps=30, decay_rate=1e-3
    )
    epochs = np.arange(31)
    expected = [float(oracle(epoch)) for epoch in epochs]
    np.testing.assert_allclose(rule.learning_rate(epochs).numpy(), expected, rtol=2e-7)


@given(rule_arguments(), st.lists(st.floats(-5, 300), min_size=2, max_size=20))
@settings(max_examples=100, deadline=None)
def test_bounded_and_monotone_and_between_its_neighbours(arguments, epochs):
    rule = DecayRule(**arguments)
    first, last = rule.n_warmup_epochs, rule.n_epochs - 1  # a hold is monotone too
    rates = rule.learning_rate(np.sort(np.clip(epochs, first, last)), dtype="float32").numpy()
    ends = np.float32([rule.base_lr, rule.target_lr])
    assert rates.min() >= ends.min() and rates.max() <= ends.max()
    steps = np.diff(rates)
    assert (steps <= 0).all() or (steps >= 0).all()
    below, above = rule.learning_rate([np.floor(epochs), np.ceil(epochs)], dtype="float32").numpy()
    between = rule.learning_rate(epochs, dtype="float32").numpy()
    assert (np.minimum(below, above) <= between).all()
    assert (between <= np.maximum(below, above)).all()


EPOCHS = [
    pytest.param(3, id="int"),
    pytest.param(3.0, id="float"),
    pytest.param(np.int64(3), id="numpy-scalar"),
    pytest.param([[3, 3], [3, 3]], id="nested-list"),
    pytest.param(np.full((2, 3), 3, np.uint8), id="uint8-array"),
    pytest.param(tf.constant(3, tf.int64), id="int64-tensor"),
    pytest.param(tf.constant([3], tf.float32), id="float32-tensor"),
    pytest.param(tf.Variable(3), id="variable"),
    pytest.param(range(3, 4), id="range"),
    pytest.param([], id="empty"),
]


@pytest.mark.parametrize("epoch", EPOCHS)
def test_epoch_of_any_kind_and_shape(epoch):
    rate = DecayRule(1e-2, 1e-5, n_epochs=5, n_warmup_epochs=2).learning_rate(epoch)
    expected = np.full(np.shape(epoch), 10**-3.5, np.float32)
    assert rate.dtype == tf.float32
    np.testing.assert_array_equal(rate.numpy(), expected)


def test_a_float_epoch_keeps_its_precision():
    rule = DecayRule(1.0, 2.0, n_epochs=2)
    assert rule.learning_rate(0.1, dtype="float64").numpy() == pytest.approx(2**0.1, rel=1e-15)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_graph_and_xla_give_the_eager_bits(jit_compile):
    for rule, epochs in random_rules(10, seed=3):
        function = tf.function(rule.learning_rate, jit_compile=jit_compile)
        compiled = function(tf.constant(epochs)).numpy()
        np.testing.assert_array_equal(compiled, rule.learning_rate(epochs).numpy())


def test_dtype_defaults_to_floatx(floatx):
    rule = DecayRule(0.1, 0.01, n_epochs=3)
    assert rule.learning_rate(1).dtype == tf.float32
    floatx("float64")
    assert rule.learning_rate(1).dtype == tf.float64
    assert rule.learning_rate(1, dtype=tf.float16).dtype == tf.float16
    with pytest.raises(TypeError, match="^Argument `dtype` must be floating. Received: dtype='int32'$"):
        rule.learning_rate(1, dtype="int32")


def test_numbers_become_plain():
    # tensorflow#45261: an integer rate is not truncated.
    rule = DecayRule(1, np.float32(0.5), np.int64(5), np.uint8(1), 0, np.int32(1))
    assert [type(value) for value in dataclasses.astuple(rule)] == [float, float, int, int, float, int]
    assert rule == DecayRule(1.0, 0.5, 5, 1, 0.0, 1)
    assert rule.learning_rate(1).numpy() == 1.0


def test_repr_can_be_pasted_back_and_pickled():
    rule = DecayRule(0.1, 0.01, 9, 3, 0.05, 2)
    assert eval(repr(rule)) == rule
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert hash(rule) == hash(DecayRule(0.1, 0.01, 9, 3, 0.05, 2))


def test_rule_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DecayRule(0.1, 0.01, 9).base_lr = 1.0


def test_float32_limits_are_legal():
    limits = np.finfo(np.float32)
    rule = DecayRule(limits.max, limits.tiny, n_epochs=100)
    rates = rule.learning_rate(range(100), dtype="float32").numpy()
    assert rates[0] == limits.max and rates[-1] == limits.tiny
    assert (np.diff(rates) < 0).all()
