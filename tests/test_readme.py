"""What the README and the docstrings show is what happens."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

from expdecay_keras.command import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q"


@pytest.mark.parametrize("name", ["rule", "callbacks", "schedule", "plotting"])
def test_docstring_examples(name):
    examples = doctest.testmod(importlib.import_module(f"expdecay_keras.{name}"))
    assert examples.attempted > 0 and examples.failed == 0


def test_code_blocks_run(tmp_path, monkeypatch):
    """As one script, in their order."""
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "learning_rate.png").exists()
    assert names["decay"].rule.target_lr == 1e-6


def test_the_rates_in_the_first_example():
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    shown = re.search(r'\["learning_rate"\]  # (.*)', block)[1].split(", ")
    names = {}
    exec(block, names)
    rates = names["history"].history["learning_rate"]
    start, end = shown[: shown.index("...")], shown[shown.index("...") + 1 :]
    assert [f"{rate:.3g}" for rate in rates[: len(start)]] == start
    assert [f"{rate:.2g}" for rate in rates[-len(end) :]] == end


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


def test_links_to_files():
    for path in re.findall(r"\]\((?!https?://|#)(.*?)\)", README):
        if not (ROOT / ".ci").exists():
            pytest.skip("not a checkout")
        assert (ROOT / path).exists(), path
