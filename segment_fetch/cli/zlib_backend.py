"""The extra `speed`, used only by the command: a library must not change how its application decompresses."""

from __future__ import annotations


def use_fast_gzip() -> bool:
    """Make aiohttp decompress with ISA-L, in a third of the time. Return True if it is installed."""
    try:
        from isal import isal_zlib  # noqa: PLC0415
    except ImportError:
        return False
    import aiohttp  # noqa: PLC0415

    aiohttp.set_zlib_backend(isal_zlib)
    return True
