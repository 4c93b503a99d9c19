"""What the extra `speed` brings. Only the command uses it: its process is its own, which an application's is not."""

from __future__ import annotations


def quicken_gzip() -> bool:
    """Has aiohttp decompress with ISA-L where it is installed, which takes a third of the time; says whether it is."""
    try:
        from isal import isal_zlib  # noqa: PLC0415
    except ImportError:
        return False
    import aiohttp  # noqa: PLC0415

    aiohttp.set_zlib_backend(isal_zlib)
    return True
