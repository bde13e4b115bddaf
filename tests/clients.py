"""Other tools store the rates exactly, or decay alike: `.ci/matrix clients`."""

import json
import os
import subprocess
import sys

import dvclive.keras
import keras_tuner
import mlflow
import numpy as np
import optuna
import optuna_integration
import pytest
import tensorflow as tf
import wandb
from models import FIT, RATES, X, Y, build_model, decay, scheduled
from oracle import float32_rates
from recipes import recipe_rows
from scikeras import wrappers
from sklearn.model_selection import GridSearchCV
from wandb.integration.keras import WandbMetricsLogger

from expdecay_keras import DecayRule, LearningRateLogger, WarmupExponentialDecay

# A model to train, and the callback that logs its rate.
by_both = pytest.mark.parametrize(
    "make, callback", [(build_model, decay), (scheduled, LearningRateLogger)]
)


def test_keras_tuner_keeps_the_rates_of_trials_with_callbacks_of_their_own(tmp_path):
    class Tried(keras_tuner.HyperModel):
        def build(self, parameters):
            parameters.Float("base_lr", 0.01, 0.1)
            return build_model()

        def fit(self, parameters, model, *data, callbacks, **options):
            own = WarmupExponentialDecay(parameters.get("base_lr"), 1e-4, 5)
            history = model.fit(*data, callbacks=[own, *callbacks], **options)
            assert history.history["learning_rate"] == float32_rates(own.rule, range(5))
            return history

    options = {"objective": "loss", "directory": str(tmp_path), "max_trials": 2}
    tuner = keras_tuner.RandomSearch(Tried(), project_name="own", **options)
    tuner.search(X, Y, **FIT)
    trials = tuner.oracle.get_best_trials(2)
    assert len({trial.hyperparameters.get("base_lr") for trial in trials}) == 2
    for trial in trials:  # the rate of the best epoch, the last
        stored = trial.metrics.get_history("learning_rate")
        assert [(seen.value, seen.step) for seen in stored] == [([RATES[4]], 4)]


def test_scikeras_clones_or_makes_the_callback():
    def build():
        return build_model()

    regressor = wrappers.KerasRegressor(model=build, callbacks=[decay()], **FIT)
    searched = GridSearchCV(
        regressor, {"optimizer__momentum": [0.0, 0.5]}, cv=2, error_score="raise"
    )
    assert searched.fit(X, Y).best_estimator_.history_["learning_rate"] == RATES
    routed = wrappers.KerasRegressor(
        model=build,
        callbacks=WarmupExponentialDecay,
        callbacks__base_lr=0.5,
        callbacks__target_lr=1e-3,
        callbacks__n_epochs=5,
        **FIT,
    )
    rates = routed.fit(X, Y).history_["learning_rate"]
    assert rates == float32_rates(DecayRule(0.5, 1e-3, 5), range(5))


@by_both
def test_mlflow_autolog(make, callback, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MLflow writes files there
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.tensorflow.autolog(log_models=False, checkpoint=False)
    try:
        with mlflow.start_run() as run:
            make().fit(X, Y, callbacks=[callback()], **FIT)
        stored = mlflow.MlflowClient().get_metric_history(
            run.info.run_id, "learning_rate"
        )
    finally:
        mlflow.tensorflow.autolog(disable=True)
    assert [(seen.step, seen.value) for seen in stored] == list(enumerate(RATES))


def test_optuna_keeps_the_rates(tmp_path):
    storage = f"sqlite:///{tmp_path}/optuna.db"

    def objective(trial):
        base_lr = trial.suggest_float("base_lr", 0.01, 0.1)
        own = WarmupExponentialDecay(base_lr, 1e-4, 5)
        pruning = optuna_integration.KerasPruningCallback(trial, "loss")
        history = build_model().fit(X, Y, callbacks=[own, pruning], **FIT).history
        trial.set_user_attr("learning_rate", history["learning_rate"])
        return history["loss"][-1]

    sampler = optuna.samplers.RandomSampler(seed=0)
    optuna.create_study(storage=storage, study_name="rates", sampler=sampler).optimize(
        objective, 3
    )
    trials = optuna.load_study(study_name="rates", storage=storage).trials
    assert len(trials) == 3
    for trial in trials:
        rule = DecayRule(trial.params["base_lr"], 1e-4, 5)
        assert trial.user_attrs["learning_rate"] == float32_rates(rule, range(5))
        assert sorted(trial.intermediate_values) == list(range(5))


@pytest.mark.parametrize(
    "make, callbacks, expected",
    [
        (build_model, [decay, WandbMetricsLogger], RATES),
        # It asks the schedule after the epoch.
        (scheduled, [LearningRateLogger, WandbMetricsLogger], [*RATES[1:], RATES[4]]),
    ],
)
def test_wandb_and_the_next_epochs_rate_of_a_schedule(
    make, callbacks, expected, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_SILENT", "true")
    model, stored = make(), []

    def read(epoch, logs):
        stored.append(run.summary["epoch/learning_rate"])

    reader = tf.keras.callbacks.LambdaCallback(on_epoch_end=read)
    with wandb.init(dir=str(tmp_path), mode="offline") as run:
        made = [callback() for callback in callbacks]
        model.fit(X, Y, callbacks=[*made, reader], **FIT)
    assert stored == expected
    assert model.history.history["learning_rate"] == RATES


@by_both
def test_dvclive(make, callback, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    live = dvclive.Live("live", dvcyaml=None, save_dvc_exp=False)
    make().fit(
        X, Y, callbacks=[callback(), dvclive.keras.DVCLiveCallback(live=live)], **FIT
    )
    rows = dvclive.utils.parse_tsv("live/plots/metrics/train/learning_rate.tsv")
    assert [float(row["learning_rate"]) for row in rows] == RATES


RAY = """
import json, sys
import ray
import ray.train
import tensorflow as tf
from ray.train.tensorflow import TensorflowTrainer

folder = sys.argv[1]


class Store(ray.train.UserCallback):
    def after_report(self, run_context, metrics, checkpoint):
        with open(folder + "/reports", "a") as file:
            print(json.dumps(metrics), file=file)


def train():
    from expdecay_keras import WarmupExponentialDecay

    decay = WarmupExponentialDecay(0.1, 1e-4, n_epochs=5)
    report = tf.keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ray.train.report(
            {"learning_rate": logs["learning_rate"]}
        )
    )
    model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = y = tf.zeros((16, 1))
    model.fit(x, y, epochs=5, verbose=0, callbacks=[decay, report])


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
TensorflowTrainer(
    train,
    scaling_config=ray.train.ScalingConfig(num_workers=2),
    run_config=ray.train.RunConfig(storage_path=folder, callbacks=[Store()]),
).fit()
ray.shutdown()
"""


def test_ray_train_reports_the_rates_of_two_workers(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-c", RAY, str(tmp_path)]
    subprocess.run(command, check=True, timeout=240, env=environment)
    lines = (tmp_path / "reports").read_text().splitlines()
    expected = [[{"learning_rate": rate}] * 2 for rate in RATES]
    assert [json.loads(line) for line in lines] == expected


def test_optax_decays_like_the_rule():
    import jax
    import optax

    rule = DecayRule(0.1, 1e-4, 15, 2, 0.01, 3)
    names = {"B": 0.1, "T": 1e-4, "W": 2, "S": 0.01, "H": 3, "D": 9, "s": 7}
    function = optax.warmup_exponential_decay_schedule
    schedule = recipe_rows()["optax"].call(function, **names)
    steps = np.arange(16 * 7)  # past the end, too
    with jax.enable_x64(True):
        rates = [float(schedule(step)) for step in steps]
    np.testing.assert_allclose(rates, rule.rates(steps / 7), rtol=1e-12)


def test_torch_decays_like_the_rule():
    import torch

    rule = DecayRule(0.1, 1e-4, 31)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = recipe_rows()["torch"].call(
        lambda gamma: torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma),
        **{"B": 0.1, "T": 1e-4, "D": 30},
    )
    rates = []
    for _ in range(31):
        rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates, rule.rates(range(31)), rtol=1e-12)
    assert scheduler.get_last_lr()[0] < 1e-4
