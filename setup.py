from setuptools import setup
from setuptools.command.egg_info import manifest_maker

manifest_maker.template = ".github/MANIFEST.in"  # what the sdist holds besides the package
setup()
