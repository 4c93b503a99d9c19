"""The compiled part, which is left out where no compiler is: all else of the package is said in pyproject.toml."""

import sysconfig

from setuptools import Extension, setup

compiled = not sysconfig.get_config_var("Py_GIL_DISABLED")  # such a Python has no stable ABI

setup(
    ext_modules=[
        Extension(
            "segment_fetch.wire._scanner",
            ["segment_fetch/wire/_scanner.c"],
            extra_compile_args=["-O3"],
            py_limited_api=True,
            optional=True,
        )
    ]
    if compiled
    else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if compiled else {},
)
