import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import expdecay_keras


def test_version_stands_in_one_place():
    assert importlib.metadata.version("expdecay-keras") == expdecay_keras.__version__


def test_tensorflow_is_the_only_dependency():
    requirements = importlib.metadata.requires("expdecay-keras")
    (requirement,) = [name for name in requirements if "extra ==" not in name]
    assert sorted(requirement.removeprefix("tensorflow").split(",")) == ["<2.22", ">=2.12"]


def test_the_type_marker_is_installed():
    assert Path(expdecay_keras.__file__).with_name("py.typed").exists()


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, **options
    )


def test_a_plain_import_brings_every_name_and_registers():
    script = """
import expdecay_keras
assert set(expdecay_keras.__all__) <= set(vars(expdecay_keras))
import tensorflow as tf
assert tf.keras.utils.get_registered_object("expdecay_keras>WarmupExponentialDecay")
"""
    python("-c", script)


@pytest.mark.parametrize("name", ["expdecay-keras.py", "train.py"])
def test_a_users_script_of_any_name_gets_every_name(name, tmp_path):
    (tmp_path / name).write_text("from expdecay_keras import WarmupExponentialDecay")
    python(str(tmp_path / name))


def test_a_users_module_gets_every_name(tmp_path):
    package = tmp_path / "users_package"
    package.mkdir()
    (package / "__init__.py").write_text("from expdecay_keras import WarmupExponentialDecay")
    (package / "__main__.py").write_text("")
    python("-m", "users_package", "-m", "expdecay_keras_not", cwd=tmp_path)
