"""The commands, one module each, named like the command.

A module declares its help (`USAGE`, `DESCRIPTION`, `EXAMPLES`), its options (`add_options`; `REQUIRED` names those that
are required), and `run(args, console)`, which returns the exit code. It calls the client, and contains no logic that
belongs in the library.
"""

from collections.abc import Mapping
from types import MappingProxyType

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "extract": "extract a range of segments into a destination",
        "sync": "extract what has closed since the last run",
        "fleet": "sync many accounts, listed in a file, concurrently",
        "verify": "check a destination against its manifest",
        "report": "write a page about what a destination holds",
        "handle-time": "sum handle time by interval, skill, agent or group",
        "plan": "show windows, counts, pages and time; extract nothing",
        "doctor": "check whether the account can be read",
        "simulate": "serve the API on this machine, with chosen faults",
        "demo": "extract from a simulator; needs no account",
    }
)
"""Every command, with its line in `segment-fetch --help`."""
