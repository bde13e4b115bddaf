import glob

from setuptools import setup
from setuptools.command.sdist import sdist


class SdistWithTests(sdist):
    """Adds the tests to the source distribution."""

    def make_release_tree(self, base_dir, files):
        tests = glob.glob("tests/**/*.py", recursive=True)
        super().make_release_tree(base_dir, sorted({*files, *tests}))


setup(cmdclass={"sdist": SdistWithTests})
