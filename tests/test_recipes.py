"""Each row of .github/RECIPES.md (optax and torch: clients.py), by its own formula.

The formulas are written from the sources that the rows link to, in NumPy, and know
nothing of the package. `k` contains the values of the row's names.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from recipes import recipe_rows
from releases import needs_tensorflow

from expdecay_keras import DecayRule, WarmupExponentialSchedule


def lrfn(epochs, k):
    """A ramp, a hold, then a decay towards LR_MIN."""
    decay_start = k.LR_RAMPUP_EPOCHS + k.LR_SUSTAIN_EPOCHS
    ramp = (k.LR_MAX - k.LR_START) / k.LR_RAMPUP_EPOCHS * epochs + k.LR_START
    decay = (k.LR_MAX - k.LR_MIN) * k.LR_EXP_DECAY ** (epochs - float(decay_start))
    phases = [epochs < k.LR_RAMPUP_EPOCHS, epochs < decay_start]
    return np.select(phases, [ramp, k.LR_MAX], decay + k.LR_MIN)


def efficientnet(epochs, k):
    """A ramp of 5 epochs, then stairs: 0.97 every 2.4 epochs, counted from epoch 0."""
    stairs = np.floor(epochs / 2.4 + 1e-9)  # 3 * 2.4 / 2.4 is just below 3
    return np.where(epochs < 5, 0.256 * epochs / 5, 0.256 * 0.97**stairs)


def inception_v3(steps, k):
    """0.045, "decayed every two epoch using an exponential rate of 0.94"."""
    return 0.045 * 0.94 ** (steps // k.s // 2)


def minicpm(steps, k):
    """Warm-up, stable stage at 0.01, decay with a half-life of 5000 steps."""
    decay = 0.5 ** ((steps - k.F) / 5000) * 0.01
    return np.select([steps < k.W, steps < k.F], [steps / k.W * 0.01, 0.01], decay)


def wav2vec(steps, k):
    """The three stages of `fairseq/optim/lr_scheduler/tri_stage_lr_scheduler.py`."""
    peak_lr, max_update = 3e-5, 80_000
    init_lr, final_lr = 0.01 * peak_lr, 0.05 * peak_lr
    warmup_steps, decay_steps = 0.1 * max_update, 0.5 * max_update
    decay_start = warmup_steps + 0.4 * max_update
    ramp = init_lr + (peak_lr - init_lr) / warmup_steps * steps
    decay = peak_lr * np.exp(np.log(0.05) / decay_steps * (steps - decay_start))
    phases = [steps < warmup_steps, steps < decay_start, steps <= max_update]
    return np.select(phases, [ramp, peak_lr, decay], final_lr)


def nerf(steps, k):
    """Keras's `ExponentialDecay` by 0.1 in 500,000 steps, as in the paper."""
    return 5e-4 * 0.1 ** (steps / (500 * 1000))


def deepmd(steps, k):
    """Decays every `decay_steps`, as in `deepmd/tf/utils/learning_rate.py`."""
    start_lr, stop_lr, decay_steps, numb_steps = 1e-3, 3.51e-8, 5000, 1_000_000
    decay_rate = (stop_lr / start_lr) ** (decay_steps / numb_steps)
    return start_lr * decay_rate ** (steps // decay_steps)


def espnet(steps, k):
    """Constant, then a decay that reaches `min_lr` at step `total_steps`."""
    share = (steps - k.warmup_steps) / (k.total_steps - k.warmup_steps)
    decay = k.max_lr * np.exp(np.log(k.min_lr / k.max_lr) * share)
    return np.where(steps < k.warmup_steps, k.max_lr, decay)


def espnet_from_zero(steps, k):
    """A ramp, but a rate of 0 at first, which the constructor sets."""
    ramp = np.where(steps == 0, 0.0, k.max_lr * (steps + 1) / k.warmup_steps)
    return np.where(steps < k.warmup_steps, ramp, espnet(steps, k))


def wespeaker(steps, k):
    """A decay from step 0 on, multiplied by a ramp from 0 to `scale_ratio`."""
    ramp = np.minimum(steps / (k.warm_up_epoch * k.epoch_iter), 1)
    share = steps / (k.num_epochs * k.epoch_iter)
    decay = k.initial_lr * np.exp(share * np.log(k.final_lr / k.initial_lr))
    return k.scale_ratio * ramp * decay


def some_steps(n_steps, *turns):
    """Returns thousands of steps, and those next to the turns and to the last step."""
    spread = np.linspace(0, n_steps - 1, 4001).astype(int)
    nearby = [turn + np.arange(-2, 3) for turn in (*turns, n_steps - 1)]
    steps = np.concatenate([spread, *nearby])
    return steps[(steps >= 0) & (steps < n_steps)]


# The numbers of the notebooks, on a TPU with 8 cores.
KAGGLE = {
    "EPOCHS": 20,
    "LR_START": 1e-5,
    "LR_MAX": 8 * 5e-5,
    "LR_MIN": 1e-5,
    "LR_RAMPUP_EPOCHS": 5,
    "LR_SUSTAIN_EPOCHS": 0,
    "LR_EXP_DECAY": 0.8,
}
KAGGLE_30 = {**KAGGLE, "EPOCHS": 30}
TO_ZERO = {**KAGGLE, "LR_MIN": 0.0, "LR_SUSTAIN_EPOCHS": 3}
# The paper does not give the lengths of warm-up and training: any will do.
MINICPM = {"N": 289_301, "W": 1000, "F": 263_000}
ESPNET = {"max_lr": 0.02, "min_lr": 3e-5, "total_steps": 9000, "warmup_steps": 700}
# examples/voxceleb/v2/conf/resnet.yaml, with any number of steps and of processes.
WESPEAKER = {
    "num_epochs": 150,
    "epoch_iter": 80,
    "initial_lr": 0.1,
    "final_lr": 5e-5,
    "warm_up_epoch": 6,
    "scale_ratio": 4.0,
}
# A row, the values of its names, its formula, and where the two are the same.
SAME = [
    ("Kaggle and Colab", TO_ZERO, lrfn, np.arange(20)),
    ("Kaggle and Colab", KAGGLE, lrfn, np.array([0, 1, 2, 3, 4, 5, 19])),
    # Where the stairs begin, from warm-up to the end.
    ("EfficientNet", {}, efficientnet, 2.4 * np.arange(3, 146)),
    ("MiniCPM", MINICPM, minicpm, some_steps(289_301, 1000, 263_000)),
    ("wav2vec 2.0", {}, wav2vec, some_steps(81_000, 8000, 40_000, 80_000)),
    ("NeRF", {}, nerf, some_steps(500_001)),
    ("ESPnet", ESPNET, espnet, some_steps(9001, 700)),
    ("ESPnet from zero", ESPNET, espnet_from_zero, some_steps(9001, 700)[1:]),
    ("WeSpeaker", WESPEAKER, wespeaker, np.arange(480, 12_001)),
]
STAIRS = [
    ("Inception-v3", {"s": 10}, inception_v3, np.arange(100 * 10)),
    ("DeePMD-kit", {}, deepmd, some_steps(1_000_001, *range(5000, 1_000_000, 5000))),
]
WARMUP, LATER = np.arange(1, 500) / 100, np.arange(500, 34_901) / 100
# Where they are not, and what the page says of it.
DIFFERENT = [
    ("Kaggle and Colab", KAGGLE, lrfn, np.arange(20), "14 % higher in 20"),
    ("Kaggle and Colab", KAGGLE_30, lrfn, np.arange(30), "89 % higher in 30"),
    ("EfficientNet", {}, efficientnet, LATER, "starts: up to 3 % lower"),
    ("EfficientNet", {}, efficientnet, WARMUP, "to the stairs: 6 % lower"),
    ("WeSpeaker", WESPEAKER, wespeaker, np.arange(1, 480), "26 % lower"),
]


def by_name(cases, names):
    return pytest.mark.parametrize(names, cases, ids=[case[0] for case in cases])


def test_no_row_is_left_out():
    tested = {name for name, *_ in SAME + STAIRS}
    assert set(recipe_rows()) == tested | {"Keras", "optax", "torch"}


@by_name(SAME, "name, names, formula, counts")
def test_a_rule_follows_the_recipe(name, names, formula, counts):
    rates = recipe_rows()[name].call(DecayRule, **names).rates(counts)
    expected = formula(counts, SimpleNamespace(**names))
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


@by_name(STAIRS, "name, names, formula, steps")
def test_a_schedule_follows_the_stairs_of_the_recipe(name, names, formula, steps):
    schedule = recipe_rows()[name].call(WarmupExponentialSchedule, **names)
    rates = np.asarray(schedule(steps.astype("int32")))
    assert rates.dtype == "float32"
    # Rounded to float32 once: 2**-24 at most.
    expected = formula(steps, SimpleNamespace(**names))
    np.testing.assert_allclose(rates.astype("float64"), expected, rtol=6e-8)


@by_name(DIFFERENT, "name, names, formula, counts, said")
def test_a_row_says_how_much_it_differs(name, names, formula, counts, said):
    row = recipe_rows()[name]
    rates = row.call(DecayRule, **names).rates(counts)
    differences = rates / formula(counts, SimpleNamespace(**names)) - 1
    largest = differences[np.abs(differences).argmax()]
    word = "higher" if largest > 0 else "lower"
    assert f"{abs(100 * largest):.0f} % {word}" in said
    assert said in row.difference


def test_espnet_takes_a_first_step_at_rate_0():
    row = recipe_rows()["ESPnet from zero"]
    assert row.difference == "The first step of the original has rate 0."
    assert row.call(DecayRule, **ESPNET).rates(0) == ESPNET["max_lr"] / 700


@needs_tensorflow
def test_keras_decays_like_the_rule():
    # tensorflow#52529 asks whether decay_steps are epochs or steps.
    names = {"B": tf.constant(0.1, tf.float64), "T": 1e-4, "D": 30, "s": 100}
    decay = tf.keras.optimizers.schedules.ExponentialDecay
    schedule = recipe_rows()["Keras"].call(decay, **names)
    steps = np.arange(0, 3001, 7)
    rates = [float(schedule(tf.constant(step, tf.float64))) for step in steps]
    expected = DecayRule(0.1, 1e-4, 31).rates(steps / 100)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert float(schedule(tf.constant(3100, tf.float64))) < names["T"]
