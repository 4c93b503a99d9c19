"""Build of the compiled scanner; everything else about the package is in pyproject.toml.

The scanner is optional: without a C compiler the package is installed without it, and pages are decoded in Python. The
environment variable SEGMENT_FETCH_SCANNER changes that: `require` makes a failed build an error, `skip` does not try.
"""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

CHOICE = os.environ.get("SEGMENT_FETCH_SCANNER", "")
if CHOICE not in ("", "require", "skip"):
    sys.exit(f"SEGMENT_FETCH_SCANNER={CHOICE}: set it to require or to skip, or leave it unset")

# A free-threaded Python has no stable ABI. It is installed without the scanner, just as without a compiler.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
if FREE_THREADED and CHOICE == "require":
    sys.exit("SEGMENT_FETCH_SCANNER=require: the scanner is not available for a free-threaded Python")

# The path of the build directory is left out of the debug information, so that two builds give the same bytes.
FLAGS = ["-O3", f"-ffile-prefix-map={Path.cwd()}=."] if os.name == "posix" else []

# Debug information is two thirds of the file. It is kept where it is asked for, as for the sanitizers.
LINK_FLAGS = ["-Wl,-S"] if os.name == "posix" and "-g" not in os.environ.get("CFLAGS", "").split() else []


class BuildScanner(build_ext):
    """Build the scanner or, unless it is required, go on without it."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            if CHOICE == "require":
                raise
            print(f"warning: the scanner is not compiled, pages are decoded in Python: {error}", file=sys.stderr)  # noqa: T201
            self._leave_out()

    def _leave_out(self) -> None:
        """Make the wheel a pure one, so that its tag never claims a scanner that is not in it."""
        for extension in self.extensions:
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)  # of an earlier build
        self.extensions = []
        self.distribution.ext_modules = []
        wheel = self.distribution.get_command_obj("bdist_wheel", create=False)
        if isinstance(wheel, bdist_wheel):
            wheel.root_is_pure = True


SCANNER = Extension(
    "segment_fetch.wire._scanner",
    ["segment_fetch/wire/_scanner.c"],
    extra_compile_args=FLAGS,
    extra_link_args=LINK_FLAGS,
    py_limited_api=True,
)
BUILT = CHOICE != "skip" and not FREE_THREADED

setup(
    ext_modules=[SCANNER] if BUILT else [],
    cmdclass={"build_ext": BuildScanner},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if BUILT else {},
)
