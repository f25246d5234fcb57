"""The report page in a real browser: what a reader sees, does and hears."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_html import HOSTILE, a_result, one_class
from tests.support.browser import Browser, find_chromium
from tests.support.results import caltech, voc2007
from vggfeat.report.html import write_page
from vggfeat.report.result import Result

pytestmark = pytest.mark.slow

WIDTHS, SCHEMES = (360, 768, 1280), ("light", "dark")
PAGES = ("voc2007", "caltech101", "few", "hostile")

# The texts on the page whose contrast with what is behind them is below WCAG 2's 4.5:1. A canvas
# turns every form of a colour into numbers.
FAINT = """(() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].map(x => x / 255);
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((x, k) => x * a + below[k] * (1 - a));
  const behind = element => over(
    rgba(getComputedStyle(element).backgroundColor),
    element.parentElement ? behind(element.parentElement) : rgba("Canvas").slice(0, 3));
  const luminance = rgb => rgb
    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, k) => sum + x * [0.2126, 0.7152, 0.0722][k], 0);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = [];
  let count = 0;
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
    if (!text || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), ground = behind(element);
    const ink = over(rgba(element.closest("svg") ? style.fill : style.color), ground);
    const [low, high] = [luminance(ink), luminance(ground)].sort((a, b) => a - b);
    if ((high + 0.05) / (low + 0.05) < 4.5) faint.push(text);
    count++;
  }
  return {faint, count};
})()"""
TABLE_KEYS = """[...document.querySelectorAll("table.sortable")].map(table =>
  [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.dataset.key)))"""
SHOWN = """(selector => [...document.querySelectorAll(selector)]
  .filter(part => getComputedStyle(part).display !== "none").map(part => part.dataset.class))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_chromium()
    if program is None and os.environ.get("CI_REQUIRE_BROWSER"):
        pytest.fail("no Chromium is installed, and CI_REQUIRE_BROWSER asks for one")
    if program is None:
        pytest.skip("no Chromium is installed")
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, voc_photos: list[bytes]) -> dict[str, Path]:
    """The pages of a large result of each kind, a small one, and one with hostile names."""

    def image(name: str) -> bytes:
        return voc_photos[sum(map(ord, name)) % len(voc_photos)]

    folder = tmp_path_factory.mktemp("pages")
    results: dict[str, Result] = {
        "voc2007": voc2007(),
        "caltech101": caltech(),
        "few": caltech(6, 5),
        "hostile": a_result(*map(one_class, HOSTILE), one_class("no number", None)),
    }
    for name, result in results.items():
        write_page(result, folder / f"{name}.html", image)
    return {name: folder / f"{name}.html" for name in results}


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    list(product(PAGES, WIDTHS, SCHEMES)),
    ids=str,
)
def test_it_fits_can_be_read_and_asks_for_nothing(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    browser.shape(width)
    browser.medium(scheme)
    browser.open(pages[name])
    dark = browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (browser.evaluate("innerWidth"), dark) == (width, scheme == "dark")
    browser.evaluate(
        "document.querySelectorAll('details').forEach(d => { d.name = ''; d.open = true; })"
    )
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    found = browser.evaluate(FAINT)
    assert found["faint"] == []
    assert found["count"] > 100
    assert browser.complaints == []
    assert browser.requests == [pages[name].as_uri()]


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_has_a_name_for_those_who_do_not_see_it(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    browser.open(pages[name])
    browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    drawn = [n for n in nodes if not n["ignored"] and n["role"]["value"] in {"image", "img"}]
    assert len(drawn) >= 2 + len(browser.evaluate(f"{SHOWN}('.curves figure')"))
    assert all(node.get("name", {}).get("value", "").strip() for node in drawn)
    outside = "svg:not([role=img]):not([aria-hidden=true]), img"
    assert browser.evaluate(f"document.querySelectorAll('{outside}').length") == 0


def in_order(keys: list[str], *, numeric: bool, down: bool) -> bool:
    """Whether texts or numbers are in order, those that are absent at the end."""
    known = [key for key in keys if key]
    values: list[Any] = list(map(float, known)) if numeric else [key.lower() for key in known]
    return keys[: len(known)] == known and values == sorted(values, reverse=down)


@pytest.mark.parametrize("name", ["voc2007", "caltech101", "few"])
def test_a_click_on_any_head_sorts_the_rows_and_another_turns_them(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    browser.open(pages[name])
    before = browser.evaluate(TABLE_KEYS)
    clicked = 0
    for number, rows in enumerate(before):
        heads = f"document.querySelectorAll('table.sortable')[{number}].tHead.rows[0].cells"
        for column in range(len(rows[0])):
            head = f"{heads}[{column}]"
            numeric = browser.evaluate(f"{head}.classList.contains('number')")
            for _ in range(2):
                browser.evaluate(f"{head}.querySelector('button').click()")
                down = browser.evaluate(f"{head}.getAttribute('aria-sort')") == "descending"
                now = browser.evaluate(TABLE_KEYS)[number]
                assert sorted(now) == sorted(rows)
                assert in_order([row[column] for row in now], numeric=numeric, down=down)
                clicked += 1
            others = f"[...{heads}].filter(h => h.hasAttribute('aria-sort')).length"
            assert browser.evaluate(others) == 1
    assert clicked == 2 * sum(len(rows[0]) for rows in before) > 10


def test_a_class_without_a_number_stays_at_the_end(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["hostile"])
    for _ in range(2):
        browser.evaluate("document.querySelector('#per-class th.number button').click()")
        [rows] = browser.evaluate(TABLE_KEYS)
        assert rows[-1][:2] == ["no number", ""]


@pytest.mark.parametrize(
    ("name", "wanted"), [("voc2007", "Bo"), ("caltech101", "_09"), ("few", "emu"), ("few", "none")]
)
def test_the_filter_hides_the_other_classes_everywhere(
    browser: Browser, pages: dict[str, Path], name: str, wanted: str
) -> None:
    browser.open(pages[name])
    places = ("#per-class tbody tr", ".bars .bar[data-class]", ".curves figure", ".album")
    every = [browser.evaluate(f"{SHOWN}('{place}')") for place in places]
    typed = "(f => { f.value = '%s'; f.dispatchEvent(new Event('input')); })"
    field = "(document.querySelector('.filter input'))"
    browser.evaluate(typed % wanted + field)
    for place, all_of_it in zip(places, every, strict=True):
        left = [entry for entry in all_of_it if wanted.lower() in entry.lower()]
        assert browser.evaluate(f"{SHOWN}('{place}')") == left
    pairs = browser.evaluate(f"{SHOWN}('#mistakes tbody tr')")
    assert all(wanted.lower() in pair.lower() for pair in pairs)
    count = sum(wanted.lower() in entry.lower() for entry in every[0])
    assert browser.evaluate("document.querySelector('.filter output').value") == (
        f"{count} of {len(every[0])}"
    )
    browser.evaluate(typed % "" + field)
    assert [browser.evaluate(f"{SHOWN}('{place}')") for place in places] == every


def test_one_class_at_a_time_shows_its_pictures_and_a_link_opens_it(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.shape(360)
    browser.open(pages["voc2007"])
    opened = "[...document.querySelectorAll('.album')].flatMap((d, k) => d.open ? [k] : [])"
    assert browser.evaluate(opened) == [0]
    browser.evaluate("document.querySelectorAll('.album summary')[3].click()")
    assert browser.evaluate(opened) == [3]
    browser.evaluate("document.querySelector('a[href=\"#class7\"]').click()")
    assert browser.evaluate(opened) == [7]
    seen = "[...document.querySelectorAll('.shot svg')].filter(s => s.checkVisibility()).length"
    assert 12 <= browser.evaluate(seen) <= 18
    top = "document.querySelector('#class7').getBoundingClientRect().top"
    assert 0 <= browser.evaluate(top) < 900


def test_without_scripts_everything_is_still_there(
    browser: Browser, pages: dict[str, Path]
) -> None:
    text = "document.querySelector('main').textContent.replace(/\\s+/g, ' ')"
    for name in ("voc2007", "few"):
        browser.open(pages[name])
        with_scripts = browser.evaluate(text)
        with browser.without_scripts():
            browser.open(pages[name])
            assert browser.evaluate("document.querySelectorAll('table button').length") == 0
            assert browser.evaluate(text) == with_scripts
            hidden = "[...document.querySelectorAll('[hidden]')].map(e => e.className)"
            assert browser.evaluate(hidden) == ["filter"]
            assert browser.complaints == []


def test_print_shows_what_is_folded_and_leaves_out_what_needs_a_hand(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.shape(1280)
    browser.medium(scheme="dark", medium="print")
    browser.open(pages["caltech101"])
    folded = "[...document.querySelectorAll('.shot svg, .folded .bar, .digest')]"
    seen = f"{folded}.map(e => e.checkVisibility({{contentVisibilityAuto: true}}))"
    shown = browser.evaluate(seen)
    assert len(shown) > 24 * 6
    assert all(shown)
    assert browser.evaluate("document.querySelector('.filter').checkVisibility()") is False
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"  # ink is for reading, whatever the screen prefers
    )
    browser.medium()


def test_hostile_names_run_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])
    assert browser.evaluate("document.scripts.length") == 1
    names = browser.evaluate(f"{SHOWN}('#per-class tbody tr')")
    assert names[:3] == list(HOSTILE[:3])
    assert browser.complaints == []


def test_the_driver_does_notice_complaints_and_requests(browser: Browser, tmp_path: Path) -> None:
    policy = "<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">"
    for head, expected in (
        ("<script>console.error('a message')</script>", "a message"),
        ("<script>throw new Error('a mistake')</script>", "a mistake"),
        (f"{policy}<script>1</script>", "Content Security Policy"),
    ):
        (tmp_path / "page.html").write_text(f"<!DOCTYPE html>{head}<p>text")
        browser.open(tmp_path / "page.html")
        assert any(expected in complaint for complaint in browser.complaints)
    (tmp_path / "page.html").write_text("<!DOCTYPE html><img src='absent.png'>")
    browser.open(tmp_path / "page.html")
    assert browser.requests == [(tmp_path / name).as_uri() for name in ("page.html", "absent.png")]
