"""What the README and the docstrings show is what happens."""

import doctest
import importlib
import re
import shlex
import warnings
from pathlib import Path

import pytest
import tensorflow as tf
from oracle import float32_rates
from releases import BACKEND
from test_distribution import free_addresses

from expdecay_keras import (
    DecayRule,
    plot_learning_rate,
)
from expdecay_keras.command import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q"


@pytest.mark.parametrize("name", ["rule", "callbacks", "schedule", "plotting"])
def test_docstring_examples(name):
    examples = doctest.testmod(importlib.import_module(f"expdecay_keras.{name}"))
    assert examples.attempted > 0 and examples.failed == 0


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """The folder in which all code blocks ran in order, as one script without any
    warning of the package, and the names that each block left, by its first line."""
    folder = tmp_path_factory.mktemp("readme")
    names, states = {}, {}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(folder)
        warnings.filterwarnings("error", module="expdecay_keras")
        for block in BLOCKS:
            exec(block, names)
            models = [names.get("model"), names.get("planned")]
            logs = [model.history.history for model in models if model is not None]
            rates = [log.get("learning_rate") for log in logs]
            states[block.partition("\n")[0]] = {**names, "rates": rates}
    return folder, states


def shown_rates(text):
    return text.partition("#")[2].strip().split(", ")


def test_code_blocks_run(states):
    folder, names = states
    assert len(BLOCKS) == len(names) > 5
    assert (folder / "learning_rate.png").exists()
    assert [path.name for path in (folder / "logs").iterdir()]
    # A CSV file that `plot_learning_rate` takes.
    assert plot_learning_rate(folder / "log.csv").get_lines()


def test_the_rates_in_the_first_example(states):
    (line,) = re.findall(r'\["learning_rate"\]  (# .*)', BLOCKS[0])
    shown = shown_rates(line)
    rates, *_ = states[1]["import numpy as np"]["rates"]
    start, end = shown[: shown.index("...")], shown[shown.index("...") + 1 :]
    assert [f"{rate:.3g}" for rate in rates[: len(start)]] == start
    assert [f"{rate:.2g}" for rate in rates[-len(end) :]] == end


def test_the_rates_of_a_rule(states):
    (line,) = re.findall(r"rule.rates\(range\(5\)\)  (# .*)", README)
    rule = states[1]["from expdecay_keras import DecayRule"]["rule"]
    assert [f"{rate:.3g}" for rate in rule.rates(range(5))] == shown_rates(line)


@pytest.mark.parametrize(
    "block, source, rule, epochs",
    [
        ("import json", 0, DecayRule(0.1, 1e-4, 20, 2), range(12, 20)),
        ("def build():", 1, DecayRule(0.1, 1e-4, 20, 2), range(12, 20)),
        ("hold = Warm", 0, DecayRule(0.1, 1e-3, 20, 0, None, 11), range(12, 20)),
        ("decay = Warm", 0, DecayRule(1e-3, 1e-6, 30, 20), range(20, 30)),
        ("planned.optimizer", 1, DecayRule(1e-4, 1e-6, 30, 20), range(20, 30)),
    ],
)
def test_resuming_blocks_train_at_the_rates_of_the_rule(
    block, source, rule, epochs, states
):
    (first_line,) = [line for line in states[1] if line.startswith(block)]
    rates = states[1][first_line]["rates"][source]
    assert rates == float32_rates(rule, epochs)


def test_the_learning_rates_in_the_text():
    (expression, shown) = re.search(
        r"`target_lr = (.*?)`, or ([\d.]+\d)", README
    ).groups()
    assert f"{eval(expression):.3g}" == shown


def test_preview_prints_what_the_readme_shows(capsys, monkeypatch):
    pattern = r"```\n\$ expdecay-keras (preview .*)\n((?:.*\n)*?)```"
    command, output = re.search(pattern, README).groups()
    monkeypatch.setenv("COLUMNS", "80")
    assert main(command.split()) == 0
    assert capsys.readouterr().out == output


@pytest.mark.parametrize(
    "command, script",
    [
        (f"{SET_UP} '.[demo]' && .venv/bin/expdecay-keras train", "demo"),
        (f"{SET_UP} '.[test]' && .venv/bin/pytest", "matrix"),
    ],
)
def test_commands_are_those_that_ci_runs(command, script):
    assert f"\n{command}\n" in README
    script = ROOT / ".ci" / script
    if not script.exists():
        pytest.skip("not a checkout")
    assert f"\n{command}\n" in script.read_text()


def test_no_other_command_is_shown():
    commands = re.findall(r"expdecay-keras (\w+)", README)
    assert sorted(commands) == ["preview", "train"]


@pytest.mark.skipif(BACKEND != "jax", reason="only for JAX")
def test_two_jax_processes_as_shown(start, tmp_path):
    (script,) = re.findall(r"```python train.py\n(.*?)```", README, re.DOTALL)
    (commands,) = re.findall(r"```\n(export .*?)```", README, re.DOTALL)
    *exports, first, second = [
        shlex.split(line, comments=True) for line in commands.splitlines()
    ]
    shared = dict(word.split("=") for line in exports for word in line[1:])
    assert shared.pop("KERAS_BACKEND") == BACKEND
    assert shared["KERAS_DISTRIBUTION_JOB_ADDRESSES"] == "127.0.0.1:9911"
    shared["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = free_addresses(1)[0]
    assert first[1:] == ["python", "train.py", "&"]
    assert second[1:] == ["python", "train.py"]
    processes = []
    for assignment, *_ in (first, second):
        own = dict([assignment.split("=")])
        processes.append(start(script, cwd=tmp_path, **shared, **own))
    for process in processes:
        done = process.wait()
        assert done.status == 0, done.stderr
        assert "8/8" in done.stdout
        assert "learning_rate: 1.0000e-04" in done.stdout
    for number in range(2):
        assert (tmp_path / f"model-{number}.keras").exists()


@pytest.mark.parametrize("page", ["README.md", ".github/RECIPES.md"])
def test_links_to_files(page):
    if not (ROOT / ".ci").exists():
        pytest.skip("not a checkout")
    page = ROOT / page
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?://)(.*?)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.M)
        slugs = [re.sub(r"[^\w -]", "", name).lower() for name in headings]
        assert not anchor or anchor.replace("-", " ") in slugs, link


def test_keras_itself_has_the_same_classes():
    """So `import keras` works as well as `tf.keras`."""
    keras = pytest.importorskip("keras")
    if not hasattr(tf.keras, "ops"):
        pytest.skip("this is Keras 2")
    assert keras.callbacks.Callback is tf.keras.callbacks.Callback
    assert keras.optimizers.Optimizer is tf.keras.optimizers.Optimizer
