import doctest
import importlib
import re
from pathlib import Path

import pytest

from expdecay_keras.command import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    "python3 -m venv .venv && .venv/bin/pip install -q '.[demo]' && .venv/bin/expdecay-keras train",
    "python3 -m venv .venv && .venv/bin/pip install -q '.[test]' && .venv/bin/pytest",
]


def assert_examples_run(examples):
    assert examples.attempted > 0 and examples.failed == 0


def test_readme_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_examples_run(doctest.testfile(str(ROOT / "README.md"), module_relative=False))


@pytest.mark.parametrize("name", ["rule", "callbacks", "schedule", "plotting"])
def test_docstring_examples(name):
    assert_examples_run(doctest.testmod(importlib.import_module(f"expdecay_keras.{name}")))


def test_code_blocks_run(tmp_path, monkeypatch):
    """Blocks without a prompt run as one script, in their order."""
    monkeypatch.chdir(tmp_path)
    blocks = [b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if ">>>" not in b]
    assert blocks
    exec("\n".join(blocks), {})


def test_preview_prints_what_the_readme_shows(capsys, monkeypatch):
    command, output = re.search(r"```\n\$ expdecay-keras (preview .*)\n((?:.*\n)*?)```", README).groups()
    monkeypatch.setenv("COLUMNS", "80")
    assert main(command.split()) == 0
    assert capsys.readouterr().out == output


@pytest.mark.parametrize("command", COMMANDS, ids=["demo", "test"])
def test_commands_are_those_that_ci_runs(command):
    assert f"\n{command}\n" in README
    scripts = [ROOT / ".ci" / "run", ROOT / ".ci" / "matrix"]
    if not all(script.exists() for script in scripts):
        pytest.skip("not a checkout")
    assert any(command in script.read_text() for script in scripts)
