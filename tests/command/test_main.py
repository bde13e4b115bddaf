"""The command as a whole: its options, its refusals and what is imported."""

import sys
from importlib.metadata import entry_points, version

import pytest
from processes import COMMAND
from runs import options_of

from expdecay_keras import __version__
from expdecay_keras.command import main

PREVIEW = ["preview", *options_of(0.1, 1e-4, 5)]
RULE_HELP = "--base-lr --target-lr --n-epochs --n-warmup-epochs --n-hold-epochs"


@pytest.mark.parametrize(
    "arguments, texts",
    [
        (["--help"], "preview train --version"),
        (["preview", "--help"], f"{RULE_HELP} --warmup-start-lr --format --plot"),
        (["train", "--help"], f"{RULE_HELP} --warmup-start-lr --run-dir --overwrite"),
        (["--version"], f"expdecay-keras {__version__}"),
    ],
)
def test_help_and_version(arguments, texts, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    output = capsys.readouterr().out
    for text in texts.split():
        assert text in output


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: command"),
        (["bake"], "invalid choice: 'bake'"),
        (["preview"], "are required: --base-lr, --target-lr, --n-epochs"),
        (["train", "--base-lr", "fast"], "--base-lr: invalid float value: 'fast'"),
        (["train", "--seed", "1"], "unrecognized arguments: --seed 1"),
    ],
)
def test_arguments_that_cannot_be_read(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [PREVIEW, ["train"]], ids=["preview", "train"])
def test_numbers_that_make_no_rule(command, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refused(*command, "--target-lr=-1e-4")
    assert "finite number > 0. Received: target_lr=-0.0001" in error
    error = refused(*command, "--warmup-start-lr", "0.1", "--n-warmup-epochs", "0")
    assert "`warmup_start_lr` must be None if n_warmup_epochs is 0" in error
    assert list(tmp_path.iterdir()) == []


def test_missing_packages(monkeypatch, refused, tmp_path):
    packages = []
    for package in ("matplotlib", "scikit-learn", "tensorboard"):
        packages.append(package)
        module = {"scikit-learn": "sklearn"}.get(package, package)
        monkeypatch.setitem(sys.modules, module, None)
        error = refused("train", "--run-dir", tmp_path / "run")
        assert error.endswith(f"Missing packages: pip install {' '.join(packages)}\n")
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_is_main():
    (script,) = entry_points(group="console_scripts", name="expdecay-keras")
    assert script.load() is main


def test_the_installed_version_is_that_of_the_package():
    assert version("expdecay-keras") == __version__


def test_the_module_is_the_same_command(python):
    script = "import runpy\nrunpy.run_module('expdecay_keras', run_name='__main__')"
    expected = python(COMMAND, *PREVIEW).stdout
    assert "half-life: " in expected
    assert python(script, *PREVIEW).stdout == expected


def test_the_library_does_not_import_the_command(python):
    python("import expdecay_keras; assert 'expdecay_keras.command' not in sys.modules")
