"""Rules and their true rates, computed independently of the package."""

import numpy as np
import pytest

from expdecay_keras import DecayRule

# Arguments, and the rates of five epochs to six decimals, from the post on the rule.
REFERENCE_TABLE = pytest.mark.parametrize(
    "arguments, rates",
    [
        ((1e-1, 1e-6, 5, 0), [0.100000, 0.005623, 0.000316, 0.000018, 0.000001]),
        ((1e-2, 1e-4, 5, 1), [0.010000, 0.010000, 0.002154, 0.000464, 0.000100]),
        ((1e-2, 1e-5, 5, 2), [0.010000, 0.010000, 0.010000, 0.000316, 0.000010]),
    ],
    ids=["W=0", "W=1", "W=2"],
)


def true_rates(rule, epochs):
    """The equation in NumPy's long double."""
    epochs = np.asarray(epochs, np.longdouble)
    base_lr, target_lr = np.longdouble(rule.base_lr), np.longdouble(rule.target_lr)
    decay_start = rule.n_warmup_epochs + rule.n_hold_epochs
    n_decay_epochs = rule.n_epochs - decay_start - 1
    decayed = np.clip(epochs - decay_start, 0, n_decay_epochs)
    rates = base_lr * np.exp(np.log(target_lr / base_lr) * decayed / n_decay_epochs)
    rates = np.where(decayed == n_decay_epochs, target_lr, rates)
    if rule.warmup_start_lr is not None:
        start_lr = np.longdouble(rule.warmup_start_lr)
        fraction = epochs.clip(0) / rule.n_warmup_epochs
        ramp = start_lr * (1 - fraction) + base_lr * fraction
        rates = np.where(fraction < 1, ramp, rates)
    return rates


def random_rules(n_rules, seed):
    """Yields rules, each with some of its epochs."""
    rng = np.random.default_rng(seed)
    for _ in range(n_rules):
        base_lr, target_lr, start_lr = np.exp(rng.uniform(-80, 80, 3)).tolist()
        n_warmup_epochs = int(rng.integers(0, 100))
        n_hold_epochs = int(rng.integers(0, 100)) if rng.random() < 0.5 else 0
        n_epochs = n_warmup_epochs + n_hold_epochs + int(rng.integers(2, 1000))
        has_ramp = n_warmup_epochs > 0 and rng.random() < 0.5
        rates = base_lr, target_lr, n_epochs
        phases = n_warmup_epochs, start_lr if has_ramp else None, n_hold_epochs
        yield DecayRule(*rates, *phases), rng.integers(0, n_epochs + 3, 50)


def float32_rates(rule, epochs):
    """The true rates, rounded once, as Python floats."""
    return [float(rate) for rate in true_rates(rule, epochs).astype(np.float32)]
