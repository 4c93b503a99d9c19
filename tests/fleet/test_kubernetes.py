"""The example of a Kubernetes Job: valid by Kubernetes' own schema, and true to the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml  # type: ignore[import-untyped]

from segment_fetch.cli.exit_codes import MEANINGS
from segment_fetch.cli.parser import build

FILE = Path(__file__).parents[2] / "examples" / "kubernetes" / "fleet.yaml"
VERSION = "1.33"  # the first release in which backoffLimitPerIndex is stable


@pytest.fixture
def job() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def test_it_is_valid(job: dict[str, Any]) -> None:
    kubernetes_validate.validate(job, VERSION, strict=True)
    job["spec"]["backoffLimitForIndex"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSION, strict=True)


def test_every_exit_code_has_one_rule(job: dict[str, Any]) -> None:
    rules = [rule for rule in job["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    named = sorted(code for rule in rules for code in rule["onExitCodes"]["values"])
    assert named == sorted({int(code) for code, _ in MEANINGS} - {0} | {129, 143})
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert {rule["onExitCodes"]["containerName"] for rule in rules} == {container["name"]}


def test_its_command_is_understood(job: dict[str, Any]) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    program, command, *argv = container["command"]
    assert (program, command) == ("segment-fetch", "fleet")
    _, parsers = build(["fleet"])
    assert parsers["fleet"].parse_args(argv).shards == job["spec"]["completions"]
