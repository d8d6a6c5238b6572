"""The page in a real browser: it opens, filters, answers keys, stays text, and stays quick."""

import pathlib
import urllib.parse

import pytest

from gtpo_jax.report.page import build_page
from gtpo_jax.results.evaluation import RIGHT
from tests.outcomes import samples
from tests.report import made

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")

from selenium.webdriver.common import keys  # noqa: E402

from tests.report import browser  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("usual_device"),
    pytest.mark.skipif(
        browser.DRIVER is None or browser.CHROMIUM is None,
        reason="needs chromium on PATH",
    ),
]

CONTRAST = (pathlib.Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


def test_it_opens_without_network_or_complaint(page):
    page.open()
    assert page.texts("h1, #subtitle, #note") == ["mine", "GTPO", "8 of 9"]
    assert page.count == "10 groups, 26 trajectories"
    # The first group whose outcomes differ; groups have 0, 1, 2 and 3 right samples.
    assert page.question == "What is 11 + 2?"
    assert page.texts(".truth") == ["Answer 13 · 1 of 3 right"]
    assert page.texts(".trajectory h3") == ["Sample 0", "Sample 1", "Sample 2"]
    assert page.texts(".chip") == ["✓right", "×wrong", "×wrong"]
    assert page.texts("#figures dt")[0] == "held-out success"
    assert page.complaints == []
    assert page.requests <= {page.path.as_uri(), "about:blank", "data:,"}


def test_turns_show_what_was_written_and_earned(page):
    page.open()
    # Wrong, with a violation.
    [record] = [r for r in made.make_step(1) if (r["group"], r["sample"]) == (1, 2)]
    last = ".trajectory:nth-child(3) "
    assert page.texts(last + ".text") == ["".join(t["pieces"]) for t in record["turns"]]
    assert page.texts(last + "code.code") == record["turns"][0]["codes"]
    assert page.texts(last + ".stdout") == ["4"]
    assert page.texts(last + ".observation pre") == ["<|tool|>4\n<|end|><|assistant|>"]
    assert page.texts(last + ".status") == ["ok"]
    assert page.texts(last + ".advantage b") == ["−0.50", "−1.00"]
    assert page.texts(last + ".violation") == ["no call"]
    assert page.texts(".trajectory:first-child .credit")[1] == "reward+1.00outcome+1.00return+1.00"
    assert page.texts(last + "> .known") == ["response tokens30"]
    assert page.texts(last + ".turn .known") == ["turn entropies0.25", "turn entropies0.50"]
    assert "no action" in page.texts(last + ".ended")[0]
    # A token of this tokenizer is a byte; kinds go on from one to the next.
    assert "".join(page.texts(last + ".py-keyword")) == "forin"
    assert "".join(page.texts(last + ".py-builtin")) == "rangeprint"
    assert "".join(page.texts(last + ".py-comment")) == "# two"
    assert "".join(page.texts(last + ".py-string")) == "'é'"
    assert "".join(page.texts(last + ".py-number")) == "2"
    assert page.texts(last + ".t.marker")[:3] == ["<code>", "</code>", "<|end|>"]


def test_every_token_is_an_element_with_its_number(page):
    page.open()
    [record] = [r for r in made.make_step(1) if (r["group"], r["sample"]) == (1, 0)]
    pieces = page.run(
        "const text = {};"
        "for (const t of document.querySelector('.turn').querySelectorAll('.t'))"
        " text[t.dataset.i] = (text[t.dataset.i] ?? '') + t.textContent;"
        "return Object.values(text)"
    )
    assert pieces == record["turns"][0]["pieces"]


def test_filters_change_the_list(page):
    page.open()
    page.choose("source", "train").choose("step", "2")
    assert page.count == "4 groups, 12 of 26 trajectories"
    page.choose("outcome", "wrong")
    assert page.count == "3 groups, 6 of 26 trajectories"
    page.choose("family", "products")
    assert page.count == "1 group, 2 of 26 trajectories"
    # The rest of the group stays in sight, but steps back.
    assert page.texts(".trajectory.unmatched h3") == ["Sample 0"]
    page.run("document.getElementById('clear').click()")
    assert page.count == "10 groups, 26 trajectories"
    page.choose("source", "train").choose("stop", "no_action")
    assert page.count == "2 groups, 2 of 26 trajectories"
    page.choose("stop", "").choose("violations", None)
    assert page.count == "2 groups, 2 of 26 trajectories"
    page.choose("violations", None).choose("source", "").choose("unequal", None)
    assert page.count == "4 groups, 12 of 26 trajectories"
    page.choose("unequal", None).choose("search", "SUM-22")
    assert page.count == "1 group, 3 of 26 trajectories" and page.question == "What is 22 + 2?"
    page.choose("search", "no such problem")
    assert page.count == "0 groups, 0 of 26 trajectories"
    assert page.texts("#view") == ["No group matches these filters."]
    assert page.complaints == []


def test_groups_come_in_the_order_that_is_chosen(page):
    page.open(source="train", step="1", order="easiest")
    order = ["What is 13 + 2?", "What is 12 + 2?", "What is 11 + 2?", "What is 10 + 2?"]
    assert page.texts(".asked") == order
    page.choose("order", "hardest")
    assert page.texts(".asked") == order[::-1]


def test_keys_move_and_choose(page):
    page.open(source="train")
    assert page.question == "What is 11 + 2?"
    assert page.press("j").question == "What is 12 + 2?"
    assert page.press("k", "k", "k").question == "What is 10 + 2?"  # and there it stays
    assert page.texts(".row[aria-selected=true] .asked") == ["What is 10 + 2?"]
    page.press("l", "l")
    assert page.texts(".trajectory.chosen h3") == ["Sample 1"]
    page.press("h")
    assert page.texts(".trajectory.chosen h3") == ["Sample 0"]
    page.press("/", "2", "2", "j")
    assert page.run("return document.getElementById('search').value") == "22j"
    page.press(keys.Keys.ESCAPE, "c")
    assert page.count.startswith("10 groups")
    page.press("u")
    assert page.count.startswith("4 groups")
    page.press("?")
    assert page.run("return document.getElementById('help').open")
    page.press(keys.Keys.ESCAPE)
    assert not page.run("return document.getElementById('help').open")
    assert page.complaints == []


def test_tints_change_the_colors(page):
    colors = "return [...document.querySelectorAll('.trajectory .t')].map(t =>"
    colors += " getComputedStyle(t).backgroundColor)"
    seen = {}
    page.open(tint="none")
    for tint in ("none", "advantage", "probability", "entropy"):
        assert page.run("return document.getElementById('view').dataset.tint") == tint
        seen[tint] = page.run(colors)
        page.press("t")
    assert len(set(seen["none"])) == 1
    # Two turns of a right and of a wrong trajectory: four colors, the same for a whole turn.
    assert len(set(seen["advantage"])) == 4
    assert len(set(seen["probability"])) > 10 and len(set(seen["entropy"])) > 10
    assert seen["probability"] != seen["entropy"]
    assert page.texts("#legend") == [""]
    page.press("t")
    assert page.texts("#legend span") == ["−1", "advantage of the turn", "+1"]


def test_a_token_tells_its_figures(page):
    page.open()
    page.run(
        "document.querySelectorAll('.turn')[1].querySelector('.t:last-child')"
        ".dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))"
    )
    told = dict(zip(page.texts("#tip span"), page.texts("#tip b"), strict=True))
    # The last token of a turn: its log-prob is −2, its entropy 1.
    assert (told["probability"], told["log-prob"]) == ("0.14", "−2")
    assert (told["entropy"], told["advantage"]) == ("1 nats", "+1.00")


def test_the_address_keeps_what_is_seen(page):
    page.open(source="train")
    page.press("j", "l").choose("step", "1").choose("search", "12")
    address = page.run("return location.hash")
    page.open(**dict(urllib.parse.parse_qsl(address[1:])))
    assert page.question == "What is 12 + 2?"
    assert page.texts(".trajectory.chosen h3") == ["Sample 0"]
    assert page.run("return document.getElementById('step').value") == "1"
    assert page.run("return document.getElementById('search').value") == "12"


def test_curves_are_read_and_chosen(page):
    page.open()
    assert page.texts(".panel h3 span") == ["success", "reward"]
    assert page.texts(".readings")[0].split() == ["0.50", "rollouts1", "held", "out"]
    at = "const graph = document.querySelectorAll('.panel svg')[1], box ="
    at += " graph.getBoundingClientRect(); const event = new MouseEvent(arguments[0],"
    at += " {bubbles: true, clientX: box.left + arguments[1] * box.width, clientY: box.top + 5});"
    page.run(at + "graph.dispatchEvent(event)", "pointermove", 0.53)
    assert page.texts(".at") == ["step 11", "step 11"]
    assert page.texts(".readings")[1] == "0.55"
    page.run(at + "graph.dispatchEvent(event)", "click", 0.1)
    assert page.run("return document.getElementById('step').value") == "2"
    page.run("document.getElementById('chooser').open = true")
    page.run("document.querySelector('#choices input:not(:checked)').click()")
    assert page.texts(".panel h3 span") == ["success", "reward", "loss"]
    page.press(keys.Keys.ESCAPE)
    assert not page.run("return document.getElementById('chooser').open")


ATTACKS = (
    "<img src=x onerror=window.hit=1>",
    "</script><script>window.hit=2</script>",
    "<svg onload=window.hit=3><!--",
    "javascript:window.hit=4",
    "\"><iframe srcdoc='<script>parent.hit=5</script>'>",
    "{{SCRIPT}}</title></style>",
)


def test_what_a_trajectory_holds_stays_text(driver, tmp_path):
    attack = " ".join(ATTACKS)
    problem = made.make_problem(0, id=attack, question=attack, answer=attack, family=attack)
    trajectory = made.make_trajectory(
        *(problem, 0, 0), code=attack, stdout=attack, stderr=attack, violation=attack, answer=attack
    )
    record = made.make_record(trajectory, 1)
    record["turns"][0]["credit"][attack] = 1.0
    record["facts"][attack] = 1.0
    record["stop_reason"] = attack
    sampled = samples(attack, RIGHT)
    held_out = made.make_held_out(attack, sampled=sampled, greedy=sampled)
    page = browser.Page(driver, tmp_path / "report.html")
    text = build_page(
        {attack: [record, {**record, "group": 1}], "b": [record]},
        title=attack,
        subtitle=attack,
        note=attack,
        runs={attack: {"train": [{"step": 1, attack: 1.0}, {"step": 2, attack: 2.0}]}},
        evaluations={attack: 2 * [held_out], "b": []},
    )
    page.path.write_text(text, encoding="utf-8")
    page.open()
    page.run("document.querySelector('#choices input').click()")
    page.press("j", "l", "t", "t", "?", keys.Keys.ESCAPE)
    for selector in ("#title", "#subtitle", "#note", "#question", ".truth b", ".code", ".violation",
                     ".stdout", ".stderr", ".asked", ".row .where", ".facts p", ".credit dt",
                     ".known dt", ".ended", "#choices label", ".trajectory header b",
                     "#evaluations h3", ".bars b", ".comparison summary",
                     ".comparison p"):  # fmt: skip
        texts = "".join(page.texts(selector))
        assert attack in texts or attack.replace("_", " ") in texts, selector
    assert page.driver.title == attack
    assert page.run("return window.hit") is None
    assert page.run("return document.querySelectorAll('img, iframe, a[href^=java]').length") == 0
    assert page.run("return document.scripts.length") == text.count("<script")
    assert page.complaints == []
    assert {url for url in page.requests if url.startswith("http")} == set()


def test_the_policy_stops_what_is_not_the_page_s_own(page):
    page.open()
    page.run(
        "const made = document.createElement('script'); made.textContent = 'window.hit = 1';"
        "document.body.append(made); const image = new Image(); image.src = 'http://127.0.0.1:9/';"
        "fetch('http://127.0.0.1:9/').catch(() => { window.refused = 1 })"
    )
    page.wait("return window.refused === 1")
    assert page.run("return window.hit") is None
    assert all("Content Security Policy" in line for line in page.complaints)


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_has_nothing_beyond_its_width(page, width):
    browser.resize(page.driver, width, 800, mobile=True)
    page.open()
    assert page.run("return document.documentElement.scrollWidth") <= width
    # One trajectory fills the width; the next one is a swipe away.
    boxes = page.run("return [...document.querySelectorAll('.trajectory')].map(e => e.offsetWidth)")
    assert all(0.75 * width < box < width for box in boxes)
    assert not page.run("return document.getElementById('more').open")
    assert page.run("return document.querySelector('.trajectories').scrollWidth") > 2 * width


def test_a_dark_system_has_a_dark_page(page):
    page.open()
    shades = {}
    for scheme in ("dark", "light"):
        browser.emulate(page.driver, scheme)
        shades[scheme] = page.run(
            "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color].map("
            "c => c.match(/\\d+/g).slice(0, 3).reduce((sum, x) => sum + Number(x), 0))"
        )
    [light_page, light_ink], [dark_page, dark_ink] = shades["light"], shades["dark"]
    assert light_page > 600 > 200 > light_ink and dark_page < 200 < 600 < dark_ink


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_stands_out_from_what_is_behind_it(page, scheme):
    browser.emulate(page.driver, scheme)
    for tint in ("advantage", "probability", "entropy"):
        page.open(tint=tint)
        found = page.run(CONTRAST)
        assert len(found) > 20
        assert [kind for kind, ratio in found if ratio < 4.5] == []  # WCAG 2.2, level AA


def test_every_control_has_a_name(page):
    page.open()
    nameless = page.run(
        "return [...document.querySelectorAll('input, select, button, [role=listbox], dialog,"
        " section, article, svg[role=img]')].filter(e => !(e.labels?.length || e.ariaLabel ||"
        " e.getAttribute('aria-labelledby') || e.textContent.trim())).map(e => e.outerHTML)"
    )
    assert nameless == []


def test_five_thousand_trajectories_do_not_freeze_it(driver, tmp_path):
    template = made.make_step(1, groups=5, samples=8)[-8:]
    records = [
        {
            **template[sample],
            **{"step": 1 + group // 16, "group": group},
            "problem": {**template[sample]["problem"], "id": str(group), "question": f"n {group}?"},
        }
        for group in range(625)
        for sample in range(8)
    ]
    page = browser.Page(driver, tmp_path / "report.html")
    page.path.write_text(build_page({"train": records}, title="large"), encoding="utf-8")
    assert page.open().count == "625 groups, 5,000 trajectories"
    assert len(page.texts(".row")) < 40
    page.run(
        "window.longest = 0; new PerformanceObserver(list => { for (const entry of"
        " list.getEntries()) window.longest = Math.max(window.longest, entry.duration); })"
        ".observe({type: 'longtask', buffered: true})"
    )
    page.choose("search", "n 62").choose("outcome", "wrong")
    assert page.count == "6 groups, 24 of 5,000 trajectories"
    page.choose("search", "").choose("order", "longest").choose("step", "40")
    page.press("c", *"jjjjjjjj")
    page.run("document.getElementById('list').scrollTop = 1e6")
    page.wait("return document.querySelector('.row:last-child .asked').textContent === 'n 624?'")
    # What a person notices begins at a tenth of this; the machine may be busy with other things.
    assert page.run("return window.longest") < 1000
    assert page.complaints == []
