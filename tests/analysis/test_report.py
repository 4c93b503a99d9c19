"""The report's page, in a real browser: it renders, sorts, loads nothing, can be read by all, and runs no data."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from segment_fetch import InputError
from segment_fetch.analysis import report
from segment_fetch.analysis.report_facts import TOP, facts_of
from segment_fetch.analysis.report_page import rendered
from tests.analysis.test_handle_time import by_hand, filled, segment
from tests.support_postgres import PASSWORD, Postgres
from tests.support_runs import NOW_MS

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
EVIL = '<img src=x onerror="window.ran=1"><script>window.ran=1</script>'


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium of this machine."""
    from playwright.async_api import async_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"none of {', '.join(BROWSERS)} is installed; on Debian: apt-get install {BROWSERS[0]}")
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed, so the page is not tried in a browser")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=list(QUIET))
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about 400 segments, with the log of a run."""
    folder = tmp_path_factory.mktemp("report")
    asyncio.run(filled(str(folder / "out")))
    log = [
        {"time": "2026-12-01T12:00:00Z", "event": "pace_changed", "rate": 10.0},
        {"time": "2026-12-01T12:00:02Z", "event": "page_read", "rows": 500},
        {"time": "2026-12-01T12:00:03Z", "event": "paused", "seconds": 1.0},
        {"time": "2026-12-01T12:00:05Z", "event": "pace_changed", "rate": 8.0},
    ]
    lines = [json.dumps(line).encode() for line in log]
    html = report(folder / "out", timezone="Europe/Berlin", now_ms=NOW_MS, run_log=lines)
    file = folder / "page.html"
    file.write_text(html, encoding="utf-8")
    return file


class Seen:
    """The requests and the complaints of an open page."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1280])
async def test_it_renders_without_a_complaint_and_asks_for_nothing(
    browser: Browser, page_file: Path, width: int, scheme: Any
) -> None:
    page = await browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen = Seen(page)
    await page.goto(page_file.as_uri())
    assert seen.complaints == []
    assert seen.requests == [page_file.as_uri()]
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    titled = "all => all.map(c => c.querySelector('title').textContent.length > 5 && c.clientWidth > 100)"
    assert await page.locator("svg").evaluate_all(titled) == [True] * 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_contrast_names_and_headings_pass_the_checker(browser: Browser, page_file: Path, scheme: Any) -> None:
    from axe_playwright_python.async_playwright import Axe

    page = await browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    await page.goto(page_file.as_uri())
    await page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


async def test_tables_are_sorted_by_a_click_and_by_the_keyboard(browser: Browser, page_file: Path) -> None:
    page = await browser.new_page()
    await page.goto(page_file.as_uri())
    table = page.locator("h3#by-skill ~ div.scroll table").first

    async def column(at: int) -> list[float]:
        cells = await table.locator(f"tbody tr td:nth-child({at})").all_inner_texts()
        return [float(text.replace(",", "")) for text in cells if text]

    before = await column(2)
    heading = table.locator("th button", has_text="Segments")
    await heading.click()
    assert await column(2) == sorted(before)
    assert await table.locator("th[aria-sort=ascending]").count() == 1
    await heading.press("Enter")
    assert await column(2) == sorted(before, reverse=True)
    assert await table.locator("th[aria-sort=descending]").inner_text() == "Segments"


async def test_it_prints(browser: Browser, page_file: Path) -> None:
    page = await browser.new_page()
    await page.goto(page_file.as_uri())
    assert len(await page.pdf()) > 10_000
    await page.emulate_media(media="print")
    await page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    folded = "[...document.querySelectorAll('details .scroll')]"
    seen = await page.evaluate(f"{folded}.map(table => table.checkVisibility({{contentVisibilityAuto: true}}))")
    assert len(seen) >= 2
    assert all(seen)


async def test_charts_are_readable_on_a_phone(browser: Browser, page_file: Path) -> None:
    page = await browser.new_page(viewport={"width": 380, "height": 800})
    await page.goto(page_file.as_uri())
    texts = "[...document.querySelectorAll('svg text')]"
    assert await page.evaluate(f"Math.min(...{texts}.map(text => text.getBoundingClientRect().height))") > 9
    assert await page.evaluate("document.documentElement.scrollWidth") == 380


async def test_data_is_shown_and_never_run(browser: Browser, tmp_path: Path) -> None:
    folder = by_hand(
        tmp_path / "out",
        segment("a", employeeId=EVIL, endReason=EVIL, totalHandleTimeMillis=-1, startTimeL=1),
        segment(EVIL, employeeId="x", totalHandleTimeMillis=90_000_000, startTimeL=1_793_600_000_000),
    )
    html = report(folder)
    assert EVIL not in html
    file = tmp_path / "page.html"
    file.write_text(html, encoding="utf-8")
    page = await browser.new_page()
    seen = Seen(page)
    await page.goto(file.as_uri())
    assert await page.evaluate("window.ran") is None
    assert seen.complaints == []
    assert seen.requests == [file.as_uri()]
    assert EVIL in await page.locator("h3#by-employee ~ div.scroll table").first.inner_text()
    assert EVIL in await page.locator("h2", has_text="Oddities").locator("xpath=following::table[1]").inner_text()


def test_no_text_of_the_api_controls_a_terminal_or_turns_the_page_around(tmp_path: Path) -> None:
    controls = "\x1b[2J\x9b1m\x07\u202eliarofni\u2066\u2028"
    folder = by_hand(
        tmp_path / "out",
        segment(f"a{controls}", employeeId=controls, endReason=controls + "x" * 100_000, totalHandleTimeMillis=-1),
    )
    facts = structs.replace(
        facts_of(folder, now_ms=NOW_MS),
        unknown_fields=(controls, "y" * 100_000),
        unproven=(("a window", f"a reason {controls}"),),
    )
    html = rendered(facts)
    assert [sign for sign in set(html) if not sign.isprintable() and sign not in "\n\xa0"] == []
    assert "?[2J?1m?" in html
    assert len(html.encode()) < 100_000


def test_oddities_are_counted_with_examples(tmp_path: Path) -> None:
    close = 1_793_500_000_000
    folder = by_hand(
        tmp_path / "out",
        segment("negative", totalHandleTimeMillis=-5, startTimeL=close - 1000, endReason="other"),
        segment("absurd", totalHandleTimeMillis=90_000_000, startTimeL=close - 95_000_000),
        segment("backwards", totalHandleTimeMillis=1, startTimeL=close + 1),
        segment("longer", totalHandleTimeMillis=2000, startTimeL=close - 1000),
        segment("reason", endReason="tired", startTimeL=close - 1),
        segment("twice", startTimeL=close - 1),
        segment("twice", startTimeL=close - 1),
        segment("plain", startTimeL=None, skillId=1),
    )
    facts = facts_of(folder, now_ms=NOW_MS)
    assert {each.kind: (each.segments, each.examples) for each in facts.oddities} == {
        "negative handle time": (1, ("negative",)),
        "handle time above 24 hours": (1, ("absurd",)),
        "closed before it started": (1, ("backwards",)),
        "handle time longer than the segment": (1, ("longer",)),
        "end reason that the API does not document": (1, ("reason",)),
        "id in it more than once": (1, ("twice",)),
    }
    assert dict(facts.absent) | {"x": 0} == {
        "start time": 1,
        "handle time": 4,
        "conversation": 0,
        "agent": 8,
        "employee": 8,
        "skill": 7,
        "group": 8,
        "end reason": 6,
        "x": 0,
    }


def test_a_large_group_is_summed_beyond_its_first_rows_and_the_page_stays_small(tmp_path: Path) -> None:
    rows = [
        segment(f"s{at}", employeeId=f"employee-{at:05d}-" + "x" * 300, totalHandleTimeMillis=at) for at in range(3000)
    ]
    folder = by_hand(tmp_path / "out", *rows)
    facts = facts_of(folder, now_ms=NOW_MS)
    employees = facts.groups["employee"]
    assert len(employees) == TOP + 1
    assert employees[0].name == "employee-02999-" + "x" * 300
    assert employees[-1].name is None
    assert sum(row.segments for row in employees) == 3000
    assert sum(row.handle_time_ms for row in employees) == sum(range(3000))
    html = report(folder)
    assert "all 2,950 others" in html
    assert len(html.encode()) < 400_000


async def test_postgresql_has_the_same_facts(
    tmp_path: Path, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    place = f"{postgres_server.url(password=None)}?table=reported"
    await filled(place)
    await filled(str(tmp_path / "out"))
    one, other = facts_of(place, now_ms=NOW_MS), facts_of(tmp_path / "out", now_ms=NOW_MS)
    assert (one.days, one.hours, one.absent) == (other.days, other.hours, other.absent)
    for group, rows in one.groups.items():
        assert [(row.name, row.handle_time_ms) for row in rows] == [
            (row.name, row.handle_time_ms) for row in other.groups[group]
        ]
    assert "s3cret" not in report(place)


def test_a_log_that_is_none_is_named(tmp_path: Path) -> None:
    folder = by_hand(tmp_path / "out", segment("a"))
    with pytest.raises(InputError, match=r"line 2 of the log is not a line of a JSON log"):
        report(folder, run_log=[b'{"time":"2026-12-01T12:00:00Z","event":"x"}\n', b"2026-12-01 plain text\n"])


def test_every_link_and_script_is_inside(page_file: Path) -> None:
    html = page_file.read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)=[\"']?(?!data:)[^\"' >]+", html) == []
    assert html.count("<script") == 1
