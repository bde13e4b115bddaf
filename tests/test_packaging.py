import importlib.metadata
from pathlib import Path

import expdecay_keras


def test_version_stands_in_one_place():
    assert importlib.metadata.version("expdecay-keras") == expdecay_keras.__version__


def test_tensorflow_is_the_only_dependency():
    requirements = importlib.metadata.requires("expdecay-keras")
    (requirement,) = [name for name in requirements if "extra ==" not in name]
    assert sorted(requirement.removeprefix("tensorflow").split(",")) == ["<2.22", ">=2.12"]


def test_the_type_marker_is_installed():
    assert Path(expdecay_keras.__file__).with_name("py.typed").exists()
