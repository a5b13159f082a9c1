"""The report page: what goes into it, that nothing of a trace becomes markup, and how it works in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from view.devtools import CHROMIUM, Browser

from kvmvfio_emu.cli.main import main
from kvmvfio_emu.view.read import read
from kvmvfio_emu.view.report import build, window

HEADER = {"kvmvfio_emu_trace": 1, "profile": "rfc-2014", "machine": "calxeda-midway", "gic": 2, "clock": "ns"}
HOSTILE = "</script><img src=x onerror=alert(1)><!--\u2028&lt;"


def event(number: int, **more: Any) -> dict[str, Any]:
    return {"n": number, "t": number * 10, "name": "host_irq", "actor": "host irq", "f": {"irq": 112}, **more}


def page_of(records: list[dict[str, Any]], **bounds: Any) -> str:
    return build.page(window.gather(records, **bounds))


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="trace">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


# ---- what goes in ---------------------------------------------------------------------------------------------


def test_nothing_of_a_trace_is_markup() -> None:
    records = [
        {**HEADER, "profile": HOSTILE, "machine": HOSTILE, "mode": HOSTILE},
        event(1, name=HOSTILE, actor=HOSTILE, f={HOSTILE: HOSTILE}, s={f"gic.{HOSTILE}.state": HOSTILE}),
    ]
    page = page_of(records)
    assert "<img" not in page
    assert page.count("</script>") == 2, "the data's end, and the program's"
    run = data_of(page)["runs"][0]
    assert run["kinds"][1] == [HOSTILE, HOSTILE]
    assert run["fields"][1] == {HOSTILE: HOSTILE}


def test_the_policy_lets_nothing_else_run_or_load() -> None:
    page = page_of([HEADER, event(1)])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-") or "&#39;none&#39;" in policy[1]
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)""", page), "the page names nothing outside itself"


def test_state_is_there_though_its_step_is_not() -> None:
    records = [HEADER, *(event(n, s={"irq.112.depth": n}) for n in range(1, 101))]
    part = window.gather(records, first=50, last=60)
    steps = list(part.runs[0].steps())
    assert [step.number for step in steps] == list(range(50, 61))
    assert part.runs[0].outside == 89
    part = window.gather(records, events=10)
    steps = list(part.runs[0].steps())
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 96, 97, 98, 99, 100]
    assert (part.runs[0].gap, part.runs[0].dropped) == (5, 90)
    assert "90 steps in the middle are left out" in part.runs[0].missing()


def test_its_size_is_bounded() -> None:
    long = {"text": "x" * 100_000}
    records = [HEADER, *(event(n, f={**long, "n": n}) for n in range(1, 3001))]
    part = window.gather(records, size=1 << 20)
    assert len(build.page(part)) < 3 << 20
    assert part.runs[0].total == 3000


def test_what_no_browser_could_hold_is_told_in_words() -> None:
    page = page_of([HEADER, event(1, f={"huge": 1 << 64, "endless": float("inf")}, t=1 << 70)])
    assert data_of(page)["runs"][0]["fields"][1] == {"huge": "0x10000000000000000", "endless": "inf"}


def test_names_and_actors_without_end_do_not_grow_the_page() -> None:
    records = [HEADER, *(event(n, name=f"name{n}", actor=f"actor{n}") for n in range(1, 3001))]
    part = window.gather(records)
    assert len(data_of(build.page(part))["lanes"]) == window.STRANGERS + 1
    assert len(part.runs[0].counts) <= window.NAMES + 1
    assert sum(part.runs[0].counts.values()) == 3000


def test_further_runs_are_counted() -> None:
    part = window.gather([HEADER, event(1)] * (window.RUNS + 3))
    assert (len(part.runs), part.more) == (window.RUNS, 3)
    assert "3 further runs" in build.page(part)


def test_both_modes_come_side_by_side() -> None:
    records = [HEADER | {"mode": "forwarded"}, event(1), HEADER | {"mode": "unforwarded"}, event(1)]
    page = page_of(records)
    assert data_of(page)["pair"] == [1, 0]
    assert "difference" in page


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("not json\n", "1"),
        (json.dumps(HEADER) + "\n", "no events"),
        (json.dumps(HEADER) + "\n" + json.dumps(event(1))[:-9], "2"),
    ],
)
def test_what_is_no_trace_is_told_with_its_place(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(text)
    assert main(["report", str(trace), "-o", str(tmp_path / "out.html")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error
    assert not (tmp_path / "out.html").exists()


# ---- in a browser -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "demo.jsonl"
    assert main(["demo", "--trace", str(path), "--state"]) == 0
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    one = Browser(tmp_path_factory.mktemp("browser"))
    yield one
    one.close()


@pytest.fixture
def report(browser: Browser, trace: Path, tmp_path: Path) -> Browser:
    path = tmp_path / "report.html"
    assert main(["report", str(trace), "-o", str(path)]) == 0
    browser.window(1280, 900)
    browser.open(path)
    browser.settle()
    assert browser.errors == []
    assert browser.requests == [path.as_uri()], "it loads itself and nothing else"
    return browser


def find(report: Browser, words: str) -> None:
    """Search, and go to the first match."""
    report.press("/")
    report.run(
        f"(b => {{ b.value = {json.dumps(words)}; b.dispatchEvent(new Event('input')); }})(document.activeElement)"
    )
    report.press("Enter")
    report.press("Escape")


def cards(report: Browser, pane: int = 0) -> str:
    return str(report.run(f"document.querySelectorAll('.pane')[{pane}].querySelector('.state').innerText"))


def said(report: Browser, pane: int = 0) -> str:
    return str(report.run(f"document.querySelectorAll('.pane')[{pane}].querySelector('.step').innerText"))


def test_stepping_changes_the_state(report: Browser) -> None:
    assert report.run("document.querySelectorAll('.pane').length") == 2
    find(report, "name:line_up")
    assert "raises its line" in said(report)
    seen = {cards(report)}
    for _ in range(12):
        report.press("ArrowRight")
        seen.add(cards(report))
    assert len(seen) > 5, "each step of an interrupt changes something"
    report.press("Home")
    first = said(report)
    report.press("End")
    assert said(report) != first
    assert report.errors == []


def test_what_changed_is_marked_and_said(report: Browser) -> None:
    find(report, "name:gicd_mask")
    assert report.run("document.querySelectorAll('.pane .card.touched').length") >= 1
    report.run("new Promise(done => setTimeout(done, 200))")
    assert "masked in the distributor" in report.text("#live")


def test_cause_and_effect_are_a_key_away(report: Browser) -> None:
    find(report, "name:eventfd_trigger")
    report.press("c")
    assert "takes GIC interrupt" in said(report)
    report.press("e")
    assert "signals the trigger eventfd" in said(report)


def test_the_forwarded_run_shows_the_tree(report: Browser) -> None:
    report.press("End")
    tree = report.run("document.querySelectorAll('.pane')[1].querySelector('svg.tree')?.getAttribute('aria-label')")
    assert "112 to physical 112" in str(tree)
    assert report.run("document.querySelectorAll('.pane')[0].querySelector('svg.tree')") is None


def test_the_scrubber_moves_it(report: Browser) -> None:
    x, y, width, height = report.box("#strip")
    report.drag((x + 2, y + height / 2), (x + width / 2, y + height / 2), (x + width - 2, y + height / 2))
    assert int(report.run("document.getElementById('range').value")) == int(
        report.run("document.getElementById('range').max")
    )


def count(report: Browser, pane: int = 0) -> str:
    return str(report.run(f"document.querySelectorAll('.pane')[{pane}].querySelector('.count').innerText"))


def test_linked_runs_follow_each_other_by_what_they_do(report: Browser) -> None:
    """A step that only one of them takes is said to be missing in the other; unlinked, each goes its own way."""
    find(report, "name:guest_eoi")
    assert said(report, 0).startswith("guest signals end of interrupt")
    assert said(report, 1).startswith("guest signals end of interrupt")
    find(report, "name:gicd_mask")
    assert "masked in the distributor" in said(report, 0)
    assert said(report, 1).startswith("No such step here")
    report.press("l")
    assert report.run("document.getElementById('link').getAttribute('aria-pressed')") == "false"
    still = count(report, 1)
    report.press("ArrowRight")
    assert count(report, 1) == still
    report.press("s")
    report.press("ArrowLeft")
    assert count(report, 1) != still
    assert report.errors == []


def test_every_way_to_move_by_keyboard(report: Browser) -> None:
    report.press("Home")
    assert count(report).startswith("step 1 of")
    for key, place in (("j", 2), ("ArrowRight", 3), ("k", 2), ("ArrowLeft", 1)):
        report.press(key)
        assert count(report).startswith(f"step {place} of"), key
    report.run("document.querySelector('.pane .steps').focus()")
    for key, place in (("ArrowDown", 2), ("PageDown", 12), ("PageUp", 2), ("ArrowUp", 1)):
        report.press(key)
        assert count(report).startswith(f"step {place} of"), key
    active = "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))"
    assert report.run(f"{active}.getAttribute('aria-selected')") == "true"
    find(report, "name:guest_eoi")
    report.press("[")
    assert said(report).startswith("guest writes")
    report.press("]")
    assert said(report).startswith("guest signals end")
    report.press("?")
    assert report.run("document.getElementById('keys').open")
    report.run("document.getElementById('single').click()")
    report.press("Escape")
    before = count(report)
    report.press("j")
    assert count(report) == before, "single letters can be switched off"
    report.press("ArrowRight")
    assert count(report) != before


def test_words_typed_into_the_search_move_nothing(report: Browser) -> None:
    report.press("Home")
    before = count(report)
    report.press("/")
    for letter in "jet":
        report.press(letter)
    assert report.run("document.getElementById('find').value") == "jet"
    assert count(report) == before
    assert report.text("#found") == "no match"
    assert report.run("document.documentElement.dataset.theme") == "auto"


def test_the_slider_says_where_it_is(report: Browser) -> None:
    find(report, "name:line_up")
    said_by_slider = str(report.run("document.getElementById('range').getAttribute('aria-valuetext')"))
    assert "unforwarded, step" in said_by_slider
    assert "device raises its line" in said_by_slider
    report.run("document.getElementById('range').focus()")
    at = int(report.run("document.getElementById('range').value"))
    report.press("ArrowRight")
    assert int(report.run("document.getElementById('range').value")) == at + 1
    assert not said(report).startswith("device raises its line")


def test_the_theme_can_be_chosen(report: Browser) -> None:
    papers = []
    for _ in range(3):
        papers.append(report.run("getComputedStyle(document.body).backgroundColor"))
        report.press("t")
    assert papers[0] != papers[1]
    assert papers[0] == papers[2], "auto, dark, light"
    assert report.run("document.documentElement.dataset.theme") == "auto"


def test_on_a_phone_one_run_is_shown_and_the_other_a_touch_away(report: Browser) -> None:
    report.window(390, 844, mobile=True)
    shown = "[...document.querySelectorAll('.pane')].map((pane) => pane.offsetParent !== null)"
    assert report.run(shown) == [True, False]
    find(report, "name:gicd_mask")
    report.click("#tabs button:last-child")
    assert report.run(shown) == [False, True]
    assert said(report, 1).startswith("No such step here")
    for name in ("back", "forward", "to-cause"):
        _, _, width, height = report.box(f"#{name}")
        assert min(width, height) >= 44, "large enough for a finger"


def test_a_large_tree_is_drawn_to_its_fifth_level(browser: Browser, tmp_path: Path) -> None:
    def tree(low: int, high: int, color: str) -> Any:
        if low > high:
            return None
        middle, below = (low + high) // 2, "black" if color == "red" else "red"
        ends = {"left": tree(low, middle - 1, below), "right": tree(middle + 1, high, below)}
        return {"virtual": middle, "physical": middle + 32, "color": color, **ends}

    path = tmp_path / "tree.html"
    build.write(page_of([HEADER, event(1, s={"rbtree.0": tree(1, 127, "black")})]), str(path))
    browser.window(1280, 900)
    browser.open(path)
    browser.settle()
    nodes = browser.run(
        "[...document.querySelectorAll('.tree g')].map((g) => [g.querySelector('text').textContent, "
        "+g.querySelector('circle').getAttribute('cx'), +g.querySelector('circle').getAttribute('cy')])"
    )
    assert [int(number) for number, _, _ in nodes] == list(range(4, 128, 4)), "31 nodes, in their order"
    assert len({y for _, _, y in nodes}) == 5
    assert nodes[15][0] == "64", "the root"
    assert [x for _, x, _ in nodes] == sorted(x for _, x, _ in nodes)
    assert browser.run("document.querySelectorAll('.tree .below').length") == 16
    assert "127 nodes" in str(browser.run("document.querySelector('.tree').getAttribute('aria-label')"))
    assert browser.errors == []


def test_rows_that_never_change_fold_away_and_stay_open_when_opened(report: Browser) -> None:
    find(report, "name:line_up")
    part = "document.querySelector('.pane .card[data-part=gic]')"
    rows = f"{part}.querySelectorAll('tbody tr').length"
    assert report.run(rows) == 1
    report.click(".pane .card[data-part=gic] summary")
    opened = report.run(rows)
    assert opened > 1
    report.press("ArrowRight")
    assert report.run(rows) == opened


def test_a_trace_without_states_still_has_its_steps(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "stateless.html"
    build.write(page_of([HEADER, event(1), event(2, cause=1)]), str(path))
    browser.open(path)
    browser.settle()
    browser.press("End")
    assert "recorded without states" in browser.text(".pane .state")
    assert "step 2 of 2" in browser.text(".pane .count")
    assert browser.errors == []


def test_light_dark_and_a_phone(report: Browser, tmp_path: Path) -> None:
    pictures = {}
    for name, arguments in {"light": (1280, 900, False), "dark": (1280, 900, True), "phone": (390, 844, False)}.items():
        width, height, dark = arguments
        report.window(width, height, dark=dark, mobile=width < 500)
        pictures[name] = report.picture(tmp_path / f"{name}.png")
        assert report.run("document.documentElement.scrollWidth") <= width, f"{name} scrolls sideways"
    assert len({len(data) for data in pictures.values()}) == 3
    report.window(1280, 900, dark=True)
    dark_paper = report.run("getComputedStyle(document.body).backgroundColor")
    report.window(1280, 900)
    assert report.run("getComputedStyle(document.body).backgroundColor") != dark_paper


def test_hostile_strings_stay_text(browser: Browser, tmp_path: Path) -> None:
    records = [
        {**HEADER, "mode": HOSTILE},
        event(
            1,
            name=HOSTILE,
            actor=HOSTILE,
            f={HOSTILE: HOSTILE},
            s={f"gic.{HOSTILE}.state": HOSTILE, "rbtree.0": HOSTILE},
        ),
    ]
    path = tmp_path / "hostile.html"
    build.write(page_of(records), str(path))
    browser.window(1280, 900)
    browser.open(path)
    browser.settle()
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert HOSTILE[:20] in browser.text(".pane .step")
    assert browser.errors == []


def test_a_hundred_thousand_events_step_without_a_pause(browser: Browser, tmp_path: Path) -> None:
    """Bounded work: however long the trace, only what is in sight is in the document."""
    names = ("line_up", "host_irq", "work", "guest_iar", "guest_eoi")
    trace = tmp_path / "long.jsonl"
    with trace.open("w") as file:
        file.write(json.dumps(HEADER) + "\n")
        for n in range(1, 100_001):
            more = {"cause": n - 1} if n > 1 else {}
            file.write(json.dumps(event(n, name=names[n % 5], s={"irq.112.depth": n % 3}, **more)) + "\n")
    path = tmp_path / "long.html"
    build.write(build.page(window.gather(read(trace))), str(path))
    assert path.stat().st_size < 8 << 20
    browser.window(1280, 900)
    browser.open(path)
    browser.settle()
    browser.press("End")
    assert "100\u202f000 of 100\u202f000" in browser.text(".pane .count")
    for _ in range(20):
        browser.press("ArrowLeft")
    assert "99\u202f980" in browser.text(".pane .count")
    assert browser.run("document.querySelectorAll('.row').length") < 200


# ---- as a picture -------------------------------------------------------------------------------------------------


def test_a_picture_of_one_run(trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.svg"
    assert main(["report", str(trace), "--svg", str(path), "--run", "2", "--from", "70"]) == 0
    assert path.read_text().startswith("<svg")
    assert main(["report", str(trace), "--svg", str(path), "--run", "3"]) == 2
    assert main(["report", str(trace), "--svg", str(path), "--at", "9999"]) == 2


def test_a_picture_has_a_bounded_number_of_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, path = tmp_path / "long.jsonl", tmp_path / "long.svg"
    trace.write_text("".join(json.dumps(record) + "\n" for record in [HEADER, *map(event, range(1, 1001))]))
    assert main(["report", str(trace), "--svg", str(path)]) == 2
    assert "--from and --to" in capsys.readouterr().err
    assert main(["report", str(trace), "--svg", str(path), "--from", "900"]) == 0
