"""What the README and the docstrings show is what happens."""

import doctest
import importlib
import re
import shlex
from pathlib import Path

import pytest
from oracle import float32_rates
from processes import free_addresses
from releases import BACKEND, needs_jax

from expdecay_keras import DecayRule
from expdecay_keras.command import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
needs_checkout = pytest.mark.skipif(
    not (ROOT / ".ci").exists(), reason="not a checkout"
)


@pytest.mark.parametrize("name", ["rule", "callbacks", "schedule", "plotting"])
def test_docstring_examples(name):
    examples = doctest.testmod(importlib.import_module(f"expdecay_keras.{name}"))
    assert examples.attempted > 0 and examples.failed == 0


KAGGLE = DecayRule(4e-4, 1e-5 + 39e-5 * 0.8**14, 20, 5, 1e-5)
# How a block begins, the model that it trains, the rule of its rates, and its epochs.
TRAINED = [
    ("import numpy", "model", DecayRule(0.1, 1e-4, 20, 2), range(20)),
    ("import json", "model", DecayRule(0.1, 1e-4, 20, 2), range(12, 20)),
    ("def build", "planned", DecayRule(0.1, 1e-4, 20, 2), range(12, 20)),
    ("hold =", "model", DecayRule(0.1, 1e-3, 20, 0, None, 11), range(12, 20)),
    ("decay =", "model", DecayRule(1e-3, 1e-6, 30, 20), range(20, 30)),
    ("planned.optimizer", "planned", DecayRule(1e-4, 1e-6, 30, 20), range(20, 30)),
    ("EPOCHS,", "model", KAGGLE, range(20)),
]


def test_the_code_blocks_as_one_script(tmp_path, monkeypatch):
    """They give no warning, and train at the rates that the text promises."""
    monkeypatch.chdir(tmp_path)
    names, checked = {}, []
    for block in BLOCKS:
        exec(block, names)
        for start, name, rule, epochs in TRAINED:
            if block.startswith(start):
                rates = names[name].history.history["learning_rate"]
                assert rates == float32_rates(rule, epochs)
                checked.append(start)
    assert checked == [start for start, *_ in TRAINED]
    assert (tmp_path / "learning_rate.png").exists()
    assert {path.name for path in Path("logs").iterdir()} == {"callback", "schedule"}


@pytest.mark.parametrize(
    "call, rule",
    [
        ('history.history["learning_rate"]', DecayRule(0.1, 1e-4, 20, 2)),
        ("rule.rates(range(5))", DecayRule(0.1, 1e-3, 5)),
    ],
)
def test_the_rates_in_comments(call, rule):
    (shown,) = re.findall(re.escape(f"{call}  # ") + "(.*)", README)
    rates = ", ".join(f"{rate:.3g}" for rate in rule.rates(range(rule.n_epochs)))
    assert re.fullmatch(re.escape(shown).replace(r"\.\.\.", ".*"), rates)


def test_the_learning_rate_in_the_text():
    pattern = r"`target_lr = (.*?)`, or ([\d.]+\d)"
    expression, shown = re.search(pattern, README).groups()
    assert f"{eval(expression):.3g}" == shown


def test_preview_prints_what_the_readme_shows(capsys, monkeypatch):
    pattern = r"```\n\$ expdecay-keras (preview .*)\n((?:.*\n)*?)```"
    command, output = re.search(pattern, README).groups()
    monkeypatch.setenv("COLUMNS", "80")
    assert main(command.split()) == 0
    assert capsys.readouterr().out == output


@needs_checkout
@pytest.mark.parametrize("script", ["demo", "matrix"])
def test_commands_are_those_that_ci_runs(script):
    text = (ROOT / ".ci" / script).read_text()
    (command,) = re.findall(r"^python3 -m venv .venv && .*&& .*", text, re.M)
    assert f"\n{command}\n" in README
    assert sorted(re.findall(r"expdecay-keras (\w+)", README)) == ["preview", "train"]


@needs_jax
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
    for number, process in enumerate(processes):
        done = process.wait()
        assert done.status == 0, done.stderr
        assert "8/8" in done.stdout
        assert "learning_rate: 1.0000e-04" in done.stdout
        assert (tmp_path / f"model-{number}.keras").exists()


@needs_checkout
@pytest.mark.parametrize("page", ["README.md", ".github/RECIPES.md"])
def test_links_to_files(page):
    page = ROOT / page
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?://)(.*?)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.M)
        slugs = [re.sub(r"[^\w -]", "", name).lower() for name in headings]
        assert not anchor or anchor.replace("-", " ") in slugs, link
