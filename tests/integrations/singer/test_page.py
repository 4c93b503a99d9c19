"""The page about the tap: what can be pasted is what the tap knows."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from segment_fetch.integrations.singer import app, config
from tests.integrations.singer.support import World, dataset

PAGE = (Path(__file__).parents[3] / "docs" / "singer.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def plugin() -> dict[str, Any]:
    [found] = yaml.safe_load(block("yaml"))["plugins"]["extractors"]
    return dict(found)


def test_the_plugin_has_every_setting_and_hides_the_secrets() -> None:
    settings = plugin()["settings"]
    assert {setting["name"] for setting in settings} == set(config.TapConfig.__struct_fields__)
    assert {setting["name"] for setting in settings if setting.get("sensitive")} == set(config.SECRETS)
    groups = [set(group) - {"start_date", "account"} for group in plugin()["settings_group_validation"]]
    assert groups == [set(names) for names in config.SETS]
    assert set(plugin()["config"]) <= set(config.TapConfig.__struct_fields__)


def test_the_plugin_is_the_program() -> None:
    assert plugin()["capabilities"] == list(app.CAPABILITIES)
    [program] = entry_points(group="console_scripts", name=plugin()["executable"])
    assert program.load() is app.main
    assert plugin()["name"] == app.NAME


def test_the_config_of_the_page_is_one(world: World) -> None:
    world.serve(dataset(20))
    shown = config.settings(block("json").encode(), "the page")
    assert config.who(shown, {}, "the page").account == "111111"
    assert world.tap(**plugin()["config"]).code == 0


def test_the_commands_of_the_page_have_options_that_there_are(world: World) -> None:
    commands = re.findall(r"^tap-liveperson-segments[^|>\n]*", PAGE, re.MULTILINE)
    options = {option for command in commands for option in re.findall(r"--\w+", command)}
    assert {"--config", "--catalog", "--state", "--discover"} <= options
    assert options <= set(re.findall(r"--\w+", world.call("--help").out))
