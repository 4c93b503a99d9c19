"""The prose of `--help`: examples, environment, exit codes. Lines fit into 60 columns."""

from __future__ import annotations

import textwrap

from segment_fetch.cli.exit_codes import MEANINGS

PROGRAM = """\
Extract LivePerson agent segments (Actual Handle Time API) completely, provably, restartably and fast."""

EXTRACT = """\
Extract a range of segments into a folder, or to standard output. Each window is written whole once it is proven \
complete, and never in part. Run the same command again to go on after an interruption, or to settle what was \
provisional; what is complete is not asked for again."""

SYNC = """\
Keep a folder up to date, every night say: read from where the last run ended until now, in files of whole days, and \
settle what was provisional. A day that did not change costs one small request; one that did is read again and \
replaced. The report says what was added and removed."""

VERIFY = """\
Hold every file of a folder against its manifest, line by line, without the network: files that are missing, cut off \
or changed, segments that are doubled, lost or out of place. With --against-api also compare the number of segments \
in each window with what the API has now."""

PLAN = """\
Show the windows, counts and pages that extracting a range takes, and about how long. Moves nothing."""

DOCTOR = """\
Check step by step whether the account can be read: settings, domain, clock, credentials, permission, and one small \
query. Says for whatever fails how to mend it, and stops there."""

SIMULATE = """\
Serve the agent-segments API on this machine (127.0.0.1), with made-up segments and chosen trouble, until Ctrl-C. \
Credentials are taken from the environment, or made up and shown where there are none."""

DEMO = """\
Start the simulator in a process of its own, with OAuth 1.0, a hidden request limit, latency and faults, and \
extract 60,000 segments of 20 days from it. Needs no account and no network. Run it twice: the second run finds \
nothing to do."""

EXTRACT_EXAMPLES = """\
  segment-fetch extract --from now-7d --out segments
  segment-fetch extract --from 2026-11-01 --to 2026-11-08 \\
      --format csv --compress gzip --out november
  segment-fetch extract --from now-1d --out - --quiet |
      gzip > yesterday.jsonl.gz"""

SYNC_EXAMPLES = """\
  segment-fetch sync --from now-28d --out segments
  segment-fetch sync --out segments
  segment-fetch sync --out segments --timezone Europe/Berlin
  segment-fetch sync --out duckdb:///segments.duckdb"""

VERIFY_EXAMPLES = """\
  segment-fetch verify --out segments
  segment-fetch verify --out segments --against-api --json"""

PLAN_EXAMPLES = """\
  segment-fetch plan --from now-28d
  segment-fetch plan --from 2026-11-01 --to now-1d --json"""

DOCTOR_EXAMPLES = """\
  segment-fetch doctor --account 111111
  segment-fetch doctor --credentials ~/liveperson.env"""

SIMULATE_EXAMPLES = """\
  segment-fetch simulate --segments 20000 --days 7
  segment-fetch simulate --auth oauth1 --latency 30-120 \\
      --limit 40/s --limit 5-at-once --fault error_500=0.02
  segment-fetch simulate --json --until-stdin-closes"""

DEMO_EXAMPLES = """\
  segment-fetch demo
  segment-fetch demo --out duckdb:///demo.duckdb
  segment-fetch demo --out /tmp/demo --quiet --json"""

_ENVIRONMENT = """\
  LIVEPERSON_ACCOUNT        the account, unless --account
  and one set of credentials:
  LIVEPERSON_APP_KEY, LIVEPERSON_APP_SECRET,
  LIVEPERSON_ACCESS_TOKEN, LIVEPERSON_ACCESS_TOKEN_SECRET
                            OAuth 1.0
  LIVEPERSON_CLIENT_ID, LIVEPERSON_CLIENT_SECRET
                            OAuth 2.0 client credentials
  LIVEPERSON_BEARER         a token
  SSL_CERT_FILE             more certificates to trust
  HTTPS_PROXY, NO_PROXY     a proxy, and for whom not
Secrets are never options: other users of the machine can
read those."""


def _codes() -> str:
    return "\n".join(
        textwrap.fill(meaning, 60, initial_indent=f"  {code:<5}", subsequent_indent=" " * 7)
        for code, meaning in MEANINGS
    )


def epilog(examples: str, *, environment: bool = True, note: str = "") -> str:
    """What stands below the options of a command."""
    parts = [f"examples:\n{examples}"]
    if environment:
        parts.append(f"environment:\n{_ENVIRONMENT}")
    parts.append(f"exit codes:\n{_codes()}")
    if note:
        parts.append(textwrap.fill(note, 60))
    return "\n\n".join(parts)
