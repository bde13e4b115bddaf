"""What the rates must be, computed another way, for the tests and the benchmarks."""

import numpy as np

from expdecay_keras import DecayRule


def true_rates(rule, epochs):
    """The equation in NumPy's long double, the independent oracle."""
    epochs = np.asarray(epochs, np.longdouble)
    base_lr, target_lr = np.longdouble(rule.base_lr), np.longdouble(rule.target_lr)
    n_decay_epochs = rule.n_epochs - rule.n_warmup_epochs - 1
    decayed = np.clip(epochs - rule.n_warmup_epochs, 0, n_decay_epochs)
    rates = base_lr * np.exp(np.log(target_lr / base_lr) * decayed / n_decay_epochs)
    rates = np.where(decayed == n_decay_epochs, target_lr, rates)
    if rule.warmup_start_lr is not None:
        start_lr, fraction = np.longdouble(rule.warmup_start_lr), epochs.clip(0) / rule.n_warmup_epochs
        rates = np.where(fraction < 1, start_lr * (1 - fraction) + base_lr * fraction, rates)
    return rates


def random_rules(n_rules, seed):
    rng = np.random.default_rng(seed)
    for _ in range(n_rules):
        base_lr, target_lr, start_lr = (float(rate) for rate in np.exp(rng.uniform(-80, 80, 3)))
        n_warmup_epochs = int(rng.integers(0, 100))
        n_epochs = n_warmup_epochs + int(rng.integers(2, 1000))
        ramp = start_lr if n_warmup_epochs and rng.random() < 0.3 else None
        epochs = rng.integers(0, n_epochs + 3, 50)
        yield DecayRule(base_lr, target_lr, n_epochs, n_warmup_epochs, ramp), epochs
