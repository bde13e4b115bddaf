"""The rule, against tables, an independent oracle and its properties."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from oracle import REFERENCE_TABLE, random_rules, true_rates

from expdecay_keras import DecayRule

# Tables


@REFERENCE_TABLE
def test_reference_table(arguments, rates):
    rule = DecayRule(*arguments)
    assert rule.rates(range(5)).round(6).tolist() == rates


BY_HAND = {
    # EleutherAI/gpt-neox PR 1040: exponential decay missed its final value.
    "decay": (DecayRule(0.8, 0.1, 4), [0.8, 0.4, 0.2, 0.1]),
    "growth": (DecayRule(0.1, 0.8, 4), [0.1, 0.2, 0.4, 0.8]),
    "constant": (DecayRule(0.3, 0.3, 3), [0.3, 0.3, 0.3]),
    "two epochs": (DecayRule(0.8, 0.1, 2), [0.8, 0.1]),
    # timm PR 2753: a decay began an epoch early.
    "warm-up": (DecayRule(0.4, 0.1, 5, 2), [0.4, 0.4, 0.4, 0.2, 0.1]),
    # tensorflow/addons#2086: a linear warm-up before a decay was missing.
    "ramp from 0": (DecayRule(0.4, 0.1, 6, 4, 0.0), [0.0, 0.1, 0.2, 0.3, 0.4, 0.1]),
    "ramp down": (DecayRule(0.2, 0.05, 5, 2, 0.6), [0.6, 0.4, 0.2, 0.1, 0.05]),
    "hold": (DecayRule(0.4, 0.1, 6, n_hold_epochs=3), [0.4, 0.4, 0.4, 0.4, 0.2, 0.1]),
    # huggingface/transformers PR 30231: WSD (warm-up, stable, decay).
    "WSD": (DecayRule(0.4, 0.1, 7, 2, 0.2, 2), [0.2, 0.3, 0.4, 0.4, 0.4, 0.2, 0.1]),
}


@pytest.mark.parametrize("rule, rates", BY_HAND.values(), ids=BY_HAND)
def test_rates_by_hand(rule, rates):
    before, after = [-1e9, -1, -0.5], [0, 0.5, 10**6, 2**53, 1e300]
    epochs = [*before, *range(rule.n_epochs), *np.add(rule.n_epochs, after)]
    # pylearn2#479: a decay overflowed long after it had reached its smallest rate.
    with np.errstate(all="raise"):
        found = rule.rates(epochs)
    expected = [*[rates[0]] * 3, *rates, *[rates[-1]] * 5]
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=0)
    assert found[-6:].tolist() == [rule.target_lr] * 6


# An independent oracle


def assert_accurate(rule, epochs):
    """Checks that float32 rates are off by half an ulp plus a hair at most."""
    rates = rule.learning_rate(epochs, dtype="float32").numpy()
    error = np.abs(rates - true_rates(rule, epochs)) / np.spacing(rates)
    assert error.max() <= 0.5000001, rule


@pytest.mark.parametrize(
    "n_rules, seed", [(400, 1), pytest.param(100_000, 2, marks=pytest.mark.long)]
)
def test_random_rules_are_accurate(n_rules, seed):
    for rule, epochs in random_rules(n_rules, seed):
        assert_accurate(rule, [epochs, epochs + 0.25])
        ends = rule.rates([rule.decay_start, rule.n_epochs - 1])
        assert ends.tolist() == [rule.base_lr, rule.target_lr]


@pytest.mark.parametrize("base_lr, start_lr", [(0.1, 0.0), (1e-6, 0.1), (0.3, 0.2)])
def test_a_ramp_of_a_million_epochs_is_accurate(base_lr, start_lr):
    rule = DecayRule(base_lr, 1e-6, 10**6 + 2, 10**6, start_lr)
    epochs = [0, 1, 2, 333_333, 999_998, 999_999, 10**6]
    expected = true_rates(rule, epochs)
    np.testing.assert_allclose(rule.rates(epochs), expected, rtol=1e-14, atol=0)


# Properties

LIMITS = np.finfo(np.float32)
legal_rates = st.floats(float(LIMITS.tiny), float(LIMITS.max))


@st.composite
def any_rule(draw):
    n_warmup_epochs, n_hold_epochs = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    start_lrs = st.none() | st.just(0.0) | legal_rates if n_warmup_epochs else st.none()
    return DecayRule(
        draw(legal_rates),
        draw(legal_rates),
        n_warmup_epochs + n_hold_epochs + draw(st.integers(2, 200)),
        n_warmup_epochs,
        draw(start_lrs),
        n_hold_epochs,
    )


@given(any_rule(), st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_monotone_and_bounded_also_within_an_epoch(rule, fractions):
    fractions = np.array([0.0, *sorted(fractions), 1.0])
    parts = [(rule.decay_start, rule.n_epochs - 1, rule.base_lr, rule.target_lr)]
    if rule.warmup_start_lr is not None:
        parts.append((0, rule.n_warmup_epochs, rule.warmup_start_lr, rule.base_lr))
    for start, end, first_lr, last_lr in parts:
        epochs = start + (end - start) * fractions
        rates = rule.rates(epochs).astype(np.float32)
        assert rates[0] == np.float32(first_lr)
        assert rates[-1] == np.float32(last_lr)
        steps = np.diff(rates) if first_lr <= last_lr else -np.diff(rates)
        assert (steps >= 0).all()


def test_the_limits_of_float32_are_legal():
    rates = DecayRule(LIMITS.max, LIMITS.tiny, 100).rates(range(100))
    assert rates[[0, -1]].tolist() == [LIMITS.max, LIMITS.tiny]
    assert (np.diff(rates.astype(np.float32)) < 0).all()


# Epochs and dtypes

NUMBERS = [3, 3.0, np.int64(3), np.float16(3), [[3, 3], [3, 3]], range(3, 4)]
ARRAYS = [np.full((2, 3), 3, np.uint8), np.full(1, 3, np.float32), np.zeros((0, 2))]
TENSORS = [tf.constant(3, tf.int64), tf.constant([3], tf.float32), tf.Variable(3)]


@pytest.mark.parametrize(
    "epoch",
    [*NUMBERS, *ARRAYS, *TENSORS],
    ids=lambda epoch: f"{type(epoch).__name__}{np.shape(epoch)}",
)
def test_epoch_of_any_type_and_shape(epoch):
    rule = DecayRule(1e-2, 1e-5, 5, n_warmup_epochs=2)
    rates = rule.rates(epoch)
    expected = np.full(np.shape(epoch), 10**-3.5)
    assert (rates.shape, rates.dtype) == (expected.shape, np.float64)
    np.testing.assert_allclose(rates, expected, rtol=1e-14, atol=0)
    rate = rule.learning_rate(epoch)
    assert rate.dtype == tf.float32
    np.testing.assert_array_equal(rate.numpy(), expected.astype("float32"), strict=True)


@pytest.mark.parametrize(
    "options", [None, {}, {"jit_compile": True}], ids=["eager", "graph", "XLA"]
)
def test_tensorflow_gives_the_bits_of_numpy(options):
    for rule, epochs in random_rules(4, seed=3):
        epochs = epochs / 4
        function = rule.learning_rate
        if options is not None:
            function = tf.function(function, **options)
        assert_accurate(rule, epochs)
        for tensor in (tf.constant(epochs), tf.Variable(epochs)):
            rates = function(tensor).numpy()
            np.testing.assert_array_equal(rates, rule.learning_rate(epochs).numpy())


def test_dtype_defaults_to_floatx(floatx):
    rule = DecayRule(0.8, 0.1, n_epochs=4)
    floatx("float64")
    rate = rule.learning_rate(0.1)
    assert rate.dtype == tf.float64
    # The float 0.1 must not pass through float32.
    assert rate.numpy() == pytest.approx(0.8 * 2**-0.1, rel=1e-15)
    rate = rule.learning_rate(1, dtype=tf.float16)
    assert rate.dtype == tf.float16
    assert rate.numpy() == np.float16(0.4)


def test_rule_is_read_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DecayRule(0.1, 0.01, 9).base_lr = 1.0
