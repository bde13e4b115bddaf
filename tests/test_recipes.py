"""Each row of .github/RECIPES.md, against the recipe's own formula.

The formulas are written from each recipe's source, in NumPy, and know nothing of the
package.
"""

import numpy as np
import pytest
import tensorflow as tf
from recipes import recipe_rows
from releases import needs_tensorflow

from expdecay_keras import DecayRule, WarmupExponentialSchedule


def lrfn(
    epochs,
    EPOCHS,
    LR_START,
    LR_MAX,
    LR_MIN,
    LR_RAMPUP_EPOCHS,
    LR_SUSTAIN_EPOCHS,
    LR_EXP_DECAY,
):
    """A ramp, a hold, then a decay towards LR_MIN.

    https://github.com/GoogleCloudPlatform/training-data-analyst,
    courses/fast-and-lean-data-science/keras_flowers_gputputpupod_tf2.1.ipynb
    """
    decay_start = LR_RAMPUP_EPOCHS + LR_SUSTAIN_EPOCHS
    ramp = (LR_MAX - LR_START) / LR_RAMPUP_EPOCHS * epochs + LR_START
    decay = (LR_MAX - LR_MIN) * LR_EXP_DECAY ** (epochs - float(decay_start)) + LR_MIN
    return np.select(
        [epochs < LR_RAMPUP_EPOCHS, epochs < decay_start], [ramp, LR_MAX], decay
    )


def efficientnet(epochs):
    """A ramp of 5 epochs, then stairs: 0.97 every 2.4 epochs, counted from epoch 0.

    https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/utils.py
    """
    stairs = np.floor(epochs / 2.4 + 1e-9)  # 3 * 2.4 / 2.4 is just below 3
    return np.where(epochs < 5, 0.256 * epochs / 5, 0.256 * 0.97**stairs)


def inception_v3(steps, s):
    """0.045, "decayed every two epoch using an exponential rate of 0.94".

    https://arxiv.org/abs/1512.00567, section 8
    """
    return 0.045 * 0.94 ** (steps // s // 2)


def minicpm(steps, N, W, F):
    """Warm-up, stable stage at 0.01, decay with a half-life of 5000 steps.

    https://arxiv.org/abs/2404.06395, equation 1 and section 6.2
    """
    decay = 0.5 ** ((steps - F) / 5000) * 0.01
    return np.select([steps < W, steps < F], [steps / W * 0.01, 0.01], decay)


def wav2vec(steps):
    """The three stages of fairseq's `tri_stage`, with config/finetuning/base_100h.yaml.

    https://github.com/facebookresearch/fairseq/tree/main/examples/wav2vec
    https://github.com/facebookresearch/fairseq/tree/main/fairseq/optim/lr_scheduler
    """
    peak_lr, max_update = 3e-5, 80_000
    init_lr, final_lr = 0.01 * peak_lr, 0.05 * peak_lr
    warmup_steps = 0.1 * max_update
    hold_steps = 0.4 * max_update
    decay_steps = 0.5 * max_update
    decay_factor = -np.log(0.05) / decay_steps
    steps_in_decay = steps - warmup_steps - hold_steps
    return np.select(
        [
            steps < warmup_steps,
            steps < warmup_steps + hold_steps,
            steps_in_decay <= decay_steps,
        ],
        [
            init_lr + (peak_lr - init_lr) / warmup_steps * steps,
            peak_lr,
            peak_lr * np.exp(-decay_factor * steps_in_decay),
        ],
        final_lr,
    )


def nerf(steps):
    """Keras's `ExponentialDecay` by 0.1 in 500,000 steps, as in the paper.

    https://github.com/bmild/nerf/blob/master/run_nerf.py
    https://github.com/bmild/nerf/blob/master/paper_configs/blender_config.txt
    """
    return 5e-4 * 0.1 ** (steps / (500 * 1000))


def deepmd(steps):
    """Decays every `decay_steps`, from `start_lr` to `stop_lr` at step `numb_steps`.

    https://github.com/deepmodeling/deepmd-kit: deepmd/tf/utils/learning_rate.py,
    examples/water/se_e2_a/input.json
    """
    start_lr, stop_lr, decay_steps, numb_steps = 1e-3, 3.51e-8, 5000, 1_000_000
    decay_rate = (stop_lr / start_lr) ** (decay_steps / numb_steps)
    return start_lr * decay_rate ** (steps // decay_steps)


def espnet(steps, max_lr, min_lr, total_steps, warmup_steps, warm_from_zero=False):
    """Constant or a ramp, then a decay that reaches `min_lr` at step `total_steps`.

    https://github.com/espnet/espnet: espnet2/schedulers/exponential_decay_warmup.py,
    whose constructor sets the rate to 0 if `warm_from_zero`
    """
    warmup = np.full(len(steps), max_lr)
    if warm_from_zero:
        warmup = np.where(steps == 0, 0.0, max_lr * (steps + 1) / warmup_steps)
    share = (steps - warmup_steps) / (total_steps - warmup_steps)
    decay = max_lr * np.exp(np.log(min_lr / max_lr) * share)
    return np.where(steps < warmup_steps, warmup, decay)


def wespeaker(
    steps, num_epochs, epoch_iter, initial_lr, final_lr, warm_up_epoch, scale_ratio
):
    """A decay from step 0 on, multiplied by a ramp from 0 to `scale_ratio`.

    https://github.com/wenet-e2e/wespeaker/blob/master/wespeaker/utils/schedulers.py
    """
    coefficient = scale_ratio * np.minimum(steps / (warm_up_epoch * epoch_iter), 1)
    share = steps / (num_epochs * epoch_iter)
    return coefficient * initial_lr * np.exp(share * np.log(final_lr / initial_lr))


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


def espnet_from_zero(steps, **names):
    return espnet(steps, **names, warm_from_zero=True)


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
# Where they are not, and what the page says of it.
DIFFERENT = [
    ("Kaggle and Colab", KAGGLE, lrfn, np.arange(20), "14 % higher in 20"),
    (
        "Kaggle and Colab",
        {**KAGGLE, "EPOCHS": 30},
        lrfn,
        np.arange(30),
        "89 % higher in 30",
    ),
    (
        "EfficientNet",
        {},
        efficientnet,
        np.arange(500, 34_901) / 100,
        "starts: up to 3 % lower",
    ),
    (
        "EfficientNet",
        {},
        efficientnet,
        np.arange(1, 500) / 100,
        "to the stairs: 6 % lower",
    ),
    ("WeSpeaker", WESPEAKER, wespeaker, np.arange(1, 480), "26 % lower"),
]
LIBRARIES = {"Keras", "optax", "torch"}


def by_name(cases, names):
    return pytest.mark.parametrize(names, cases, ids=[case[0] for case in cases])


def test_no_row_is_left_out():
    tested = {name for name, *_ in SAME + STAIRS}
    assert set(recipe_rows()) == tested | LIBRARIES


@by_name(SAME, "name, names, formula, counts")
def test_a_rule_follows_the_recipe(name, names, formula, counts):
    rates = recipe_rows()[name].call(DecayRule, **names).rates(counts)
    np.testing.assert_allclose(rates, formula(counts, **names), rtol=1e-12)


@by_name(STAIRS, "name, names, formula, steps")
def test_a_schedule_follows_the_stairs_of_the_recipe(name, names, formula, steps):
    schedule = recipe_rows()[name].call(WarmupExponentialSchedule, **names)
    rates = np.asarray(schedule(steps.astype("int32")))
    assert rates.dtype == "float32"
    # Rounded to float32 once: 2**-24 at most.
    expected = formula(steps, **names)
    np.testing.assert_allclose(rates.astype("float64"), expected, rtol=6e-8)


@by_name(DIFFERENT, "name, names, formula, counts, said")
def test_a_row_says_how_much_it_differs(name, names, formula, counts, said):
    row = recipe_rows()[name]
    rates = row.call(DecayRule, **names).rates(counts)
    differences = rates / formula(counts, **names) - 1
    largest = differences[np.abs(differences).argmax()]
    word = "higher" if largest > 0 else "lower"
    assert f"{abs(100 * largest):.0f} % {word}" in said
    assert said in row.difference


def test_espnet_takes_a_first_step_at_rate_0():
    row = recipe_rows()["ESPnet from zero"]
    assert row.difference == "The first step of the original has rate 0."
    assert espnet_from_zero(np.arange(2), **ESPNET)[0] == 0
    assert row.call(DecayRule, **ESPNET).rates(0) == ESPNET["max_lr"] / 700


@needs_tensorflow
def test_keras_decays_like_the_rule():
    names = {"B": 0.1, "T": 1e-4, "D": 30, "s": 100}
    B = tf.constant(names["B"], tf.float64)
    row = recipe_rows()["Keras"]
    keras = row.call(
        tf.keras.optimizers.schedules.ExponentialDecay, **{**names, "B": B}
    )
    steps = np.arange(0, 3001, 7)
    rates = [float(keras(tf.constant(step, tf.float64))) for step in steps]
    rule = DecayRule(0.1, 1e-4, 31)
    np.testing.assert_allclose(rates, rule.rates(steps / 100), rtol=1e-12)
    assert float(keras(tf.constant(3100, tf.float64))) < names["T"]
