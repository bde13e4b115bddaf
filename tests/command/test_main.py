"""The command as a whole: its options, its refusals and what is imported."""

import re
import runpy
import sys
from importlib.metadata import entry_points, version

import pytest
from runs import options_of

from expdecay_keras import __version__
from expdecay_keras.command import main

PREVIEW = ["preview", *options_of(0.1, 1e-4, 5)]
DEFAULTS = {
    "preview": """
        --n-warmup-epochs 0
        --warmup-start-lr the base rate, so that there is no ramp
        --n-hold-epochs 0
        --format table""",
    "train": """
        --base-lr 0.2
        --target-lr 0.01
        --n-epochs 20
        --n-warmup-epochs 2
        --warmup-start-lr a twentieth of the base rate
        --n-hold-epochs 0
        --run-dir runs/digits""",
}


def printed(arguments, capsys):
    """What a command that only informs prints, in one line."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", DEFAULTS)
def test_help_shows_each_default(command, capsys):
    text = printed([command, "--help"], capsys)
    shown = re.findall(r"(--[\w-]+) (?:(?! --)[^()])*\(default: ([^()]*)\)", text)
    assert " ".join(map(" ".join, shown)) == " ".join(DEFAULTS[command].split())
    others = {"preview": "--plot FILE ", "train": "--overwrite discard the run in DIR"}
    assert f" {others[command]}" in text.partition(" options: ")[2]


def test_the_examples_in_the_help_work(capsys, begin, tmp_path, monkeypatch):
    preview, train = [
        printed([command, "--help"], capsys).partition("example: expdecay-keras ")[2]
        for command in DEFAULTS
    ]
    assert main(preview.split()) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["19", "0.001000"]
    monkeypatch.chdir(tmp_path)
    command, *options = train.split()
    assert command == "train"
    begin(*options)
    assert (tmp_path / "runs" / "slower" / "callback.json").exists()


def test_help_and_version_of_the_command(capsys):
    assert printed(["--version"], capsys) == f"expdecay-keras {__version__}"
    text = printed(["--help"], capsys)
    assert "preview print the learning rate of each epoch" in text
    assert "train train a small network on handwritten digits" in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("", "the following arguments are required: command"),
        ("preview", "are required: --base-lr, --target-lr, --n-epochs"),
        ("preview --format xml", "invalid choice: 'xml'"),
    ],
)
def test_arguments_that_cannot_be_read(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [PREVIEW, ["train"]], ids=["preview", "train"])
def test_numbers_that_make_no_rule(command, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = "--warmup-start-lr 0 --n-warmup-epochs 0"
    assert refused(*command, *options.split()).endswith(
        "because a ramp needs warm-up epochs. Received: n_warmup_epochs=0, "
        "warmup_start_lr=0.0\n"
    )
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
    assert version("expdecay-keras") == __version__


def test_the_module_is_the_same_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["", *PREVIEW])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("expdecay_keras", run_name="__main__")
    assert stopped.value.code == 0
    assert "half-life: " in capsys.readouterr().out


def test_the_library_does_not_import_the_command(python):
    python("import expdecay_keras; assert 'expdecay_keras.command' not in sys.modules")
