"""Published recipes in the package's arguments, against their own formulas.

The formulas are written from each recipe's source, in NumPy, and know nothing of the
package.
"""

import numpy as np
import pytest

from expdecay_keras import DecayRule, WarmupExponentialSchedule


def efficientnet(epochs):
    """A ramp of 5 epochs, then stairs: 0.97 every 2.4 epochs, counted from epoch 0.

    https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/utils.py
    """
    stairs = np.floor(epochs / 2.4 + 1e-9)  # 3 * 2.4 / 2.4 is just below 3
    return np.where(epochs < 5, 0.256 * epochs / 5, 0.256 * 0.97**stairs)


def inception_v3(epochs):
    """0.045, "decayed every two epoch using an exponential rate of 0.94".

    https://arxiv.org/abs/1512.00567, section 8
    """
    return 0.045 * 0.94 ** (epochs // 2)


def minicpm(steps, warmup_end, stable_end):
    """Warm-up, stable stage at 0.01, decay with a half-life of 5000 steps.

    https://arxiv.org/abs/2404.06395, equation 1 and section 6.2
    """
    warmup = steps / warmup_end * 0.01
    decay = 0.5 ** ((steps - stable_end) / 5000) * 0.01
    return np.select([steps < warmup_end, steps < stable_end], [warmup, 0.01], decay)


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


def deepmd(steps, smooth):
    """Decays every `decay_steps`, from `start_lr` to `stop_lr` at step `numb_steps`.

    https://docs.deepmodeling.com/projects/deepmd/en/latest/train/learning-rate.html
    https://github.com/deepmodeling/deepmd-kit/tree/master/examples/water/se_e2_a
    """
    start_lr, stop_lr, decay_steps, numb_steps = 1e-3, 3.51e-8, 5000, 1_000_000
    decay_rate = (stop_lr / start_lr) ** (decay_steps / numb_steps)
    n_decays = steps / decay_steps if smooth else steps // decay_steps
    return start_lr * decay_rate**n_decays


def some_steps(n_steps, *turns):
    """Returns thousands of steps, and those next to the turns and to the last step."""
    spread = np.linspace(0, n_steps - 1, 4001).astype(int)
    nearby = [turn + np.arange(-2, 3) for turn in (*turns, n_steps - 1)]
    steps = np.concatenate([spread, *nearby])
    return steps[(steps >= 0) & (steps < n_steps)]


def efficientnet_rule():
    # The stairs are counted from epoch 0, so they have already fallen by epoch 5.
    factor = 0.97 ** (1 / 2.4)
    return DecayRule(0.256 * factor**5, 0.256 * factor**349, 350, 5, 0.0)


def minicpm_rule(n_steps, warmup_end, stable_end):
    target_lr = 0.01 * 0.5 ** ((n_steps - 1 - stable_end) / 5000)
    return DecayRule(0.01, target_lr, n_steps, warmup_end, 0.0, stable_end - warmup_end)


@pytest.mark.parametrize(
    "rule, formula, epochs",
    [
        pytest.param(
            efficientnet_rule(),
            efficientnet,
            2.4 * np.arange(3, 146),  # where the stairs begin, from warm-up to the end
            id="EfficientNet",
        ),
        pytest.param(
            # The paper does not give the lengths of warm-up and training: any will do.
            minicpm_rule(289_301, 1000, 263_000),
            lambda steps: minicpm(steps, 1000, 263_000),
            some_steps(289_301, 1000, 263_000),
            id="MiniCPM",
        ),
        pytest.param(
            DecayRule(3e-5, 1.5e-6, 80_001, 8000, 3e-7, 32_000),
            wav2vec,
            some_steps(81_000, 8000, 40_000, 80_000),  # past the end, too
            id="wav2vec 2.0",
        ),
        pytest.param(
            DecayRule(5e-4, 5e-5, 500_001),
            nerf,
            some_steps(500_001),
            id="NeRF",
        ),
        pytest.param(
            DecayRule(1e-3, 3.51e-8, 1_000_001),
            lambda steps: deepmd(steps, smooth=True),
            some_steps(1_000_001),
            id="DeePMD-kit, smooth",
        ),
    ],
)
def test_a_rule_follows_the_recipe(rule, formula, epochs):
    rates = rule.learning_rate(epochs, dtype="float64").numpy()
    np.testing.assert_allclose(rates, formula(epochs), rtol=1e-12)


@pytest.mark.parametrize(
    "schedule, formula, steps",
    [
        pytest.param(
            # 10 steps per epoch, and one epoch of ours is two of theirs.
            WarmupExponentialSchedule(
                0.045, 0.045 * 0.94**49, 50, steps_per_epoch=2 * 10
            ),
            lambda steps: inception_v3(steps // 10),
            np.arange(100 * 10),
            id="Inception-v3",
        ),
        pytest.param(
            WarmupExponentialSchedule(1e-3, 3.51e-8, 201, steps_per_epoch=5000),
            lambda steps: deepmd(steps, smooth=False),
            some_steps(1_000_001, *range(5000, 1_000_000, 5000)),
            id="DeePMD-kit",
        ),
    ],
)
def test_a_schedule_follows_the_stairs_of_the_recipe(schedule, formula, steps):
    rates = np.asarray(schedule(steps.astype("int32")))
    assert rates.dtype == "float32"
    # Rounded to float32 once: 2**-24 at most.
    np.testing.assert_allclose(rates.astype("float64"), formula(steps), rtol=6e-8)


def test_efficientnet_off_the_starts_of_its_stairs():
    rule = efficientnet_rule()
    epochs = np.arange(500, 34_901) / 100
    rates = rule.learning_rate(epochs, dtype="float64").numpy()
    ratios = rates / efficientnet(epochs)
    assert 0.97 < ratios.min() < 0.971  # at the end of a stair
    assert ratios.max() == pytest.approx(1, rel=1e-12)
    # Theirs ramps up to 0.256, then falls onto the stairs.
    ramp = rule.learning_rate(range(5), dtype="float64").numpy()
    expected = 0.97 ** (5 / 2.4) * efficientnet(np.arange(5))
    np.testing.assert_allclose(ramp, expected, rtol=1e-12)
