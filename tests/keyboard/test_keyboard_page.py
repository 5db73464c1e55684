"""The keyboard's page in Chromium."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from serving import Served, find_chromium, start_chromium

pytest.importorskip("selenium", reason="the extra `browser` is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from fastrnn.lm import data
from fastrnn.lm.keyboard.engine import Engine
from fastrnn.lm.keyboard.states import Kept
from fastrnn.mxnet import import_mxnet

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="neither Chromium nor its driver is installed"
)
mx = import_mxnet()
LONG = (data.load_text("builtin") * 2)[:100_000]


@pytest.fixture(scope="module")
def driver():
    driver = start_chromium()
    yield driver
    driver.quit()


class Page:
    """The page in one window."""

    def __init__(self, driver, served):
        self.driver = driver
        driver.set_window_size(900, 900)
        driver.get(served.address)
        self.settle()

    def find(self, name):
        return self.driver.find_element("id", name)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, condition, seconds=60):
        return WebDriverWait(self.driver, seconds, 0.02).until(lambda _: condition())

    def settle(self):
        """Wait until the strip belongs to the text and all of it has been read."""
        self.until(
            lambda: self.run(
                "return runs.size > 0 && !pumping && !asked"
                " && !document.querySelector('#strip.waiting')"
                " && !document.getElementById('status').textContent.includes('reading')"
            )
        )

    def type(self, *keys):
        self.find("text").send_keys(*keys)
        self.settle()

    def paste(self, text):
        """Insert at the cursor in one go, any characters."""
        self.run("document.getElementById('text').focus()")
        self.driver.execute_cdp_cmd("Input.insertText", {"text": text})

    @property
    def text(self):
        return self.find("text").get_property("value")

    @property
    def strip(self):
        return self.run(
            "return [...document.querySelectorAll('#strip b')].map((b) => b.textContent)"
            ".filter((word) => word)"
        )

    @property
    def tinted(self):
        """What is tinted, with what is said of each token."""
        return self.run(
            "return [...document.querySelectorAll('#tint div span')]"
            ".map((s) => [s.textContent, s.title, s.className])"
        )

    @property
    def shown(self):
        return "".join(text for text, _, _ in self.tinted)

    def choose(self, run):
        self.run(
            "const picker = document.getElementById('run'); picker.value = arguments[0];"
            "picker.dispatchEvent(new Event('change'))",
            run,
        )
        self.settle()

    @property
    def focused(self):
        return self.run(
            "const e = document.activeElement;"
            "return e.id || (e.parentNode.id || e.parentNode.parentNode.id)"
        )


@pytest.fixture
def page(driver, served):
    page = Page(driver, served)
    driver.get_log("browser")
    yield page
    # Among what the console reports are violations of the content security policy.
    assert driver.get_log("browser") == []


@pytest.fixture(scope="module")
def engines(run_folders):
    return {
        name: Engine.load(run_folders[name], Kept(1 << 26), name, mx.cpu())
        for name in ("letters", "words")
    }


def words(answer):
    return [proposal["text"] for proposal in answer["suggestions"]]


@pytest.mark.parametrize("run", ["letters", "words"])
def test_typing(page, engines, run):
    page.choose(run)
    text = "The value of the "
    for end in (3, 7, 13, 17):
        page.type(text[len(page.text) : end])
        answer = engines[run].answer(text[:end])
        assert page.strip == words(answer)
        assert page.shown.rstrip() == text[:end].rstrip()
    judged = [token for token in answer["tokens"] if "bits" in token]
    bits = sum(token["bits"] for token in judged) / sum(len(token["text"]) for token in judged)
    assert page.find("status").text == f"{bits:.2f} bits per character"
    for token, (shown, title, kind) in zip(answer["tokens"], page.tinted):
        assert shown == token["text"]
        assert title.endswith(f"{token['bits']:.2f} bits")
        assert kind.startswith("level")


@pytest.mark.parametrize("run", ["letters", "words"])
def test_likely_keys_are_answered_ahead(page, engines, run):
    """What is asked for before a key comes is what the key asks for."""
    page.choose(run)
    text = "The object va"
    page.type(text)
    page.until(lambda: page.run("return ahead.answers.size > 0"))
    question = page.run("return [...ahead.answers.keys()][0]")
    text = json.loads(question)["before"]
    # From here on nothing is asked ahead, and requests are counted.
    page.run(
        "lookAhead = () => {}; window.count = 0;"
        "const ask = request; request = (...rest) => { count += 1; return ask(...rest); }"
    )
    page.type(text[-1])
    assert page.text == text
    assert page.run("return count") == 0
    answer = engines[run].answer(text)
    assert page.strip == words(answer)
    assert page.shown.rstrip() == text.rstrip()
    assert [title for _, title, _ in page.tinted if "bits" in title][-1].endswith(
        f"{[token for token in answer['tokens'] if 'bits' in token][-1]['bits']:.2f} bits"
    )


def test_a_byte_order_mark(page):
    page.paste("\ufeffThe")
    page.settle()
    assert page.shown == "The"
    assert page.find("unread").text == ""
    page.type(Keys.HOME, Keys.DELETE, "A")
    assert page.shown == "AThe"
    assert page.find("unread").text == ""


def test_another_place_has_other_suggestions(page):
    page.paste(LONG)
    page.type(Keys.CONTROL, Keys.HOME)
    page.paste("The val")
    page.until(lambda: page.run("return proposals.length > 0"))
    left = page.run(
        "field.setSelectionRange(4, 4);"
        "document.dispatchEvent(new Event('selectionchange'));"
        "return [pumping, proposals.length]"
    )
    assert left == [True, 0]


def test_keys_are_coloured(page, engines):
    page.type("The valu")
    keys = engines["letters"].answer("The valu")["keys"]
    for key in "aeiou":
        button = page.driver.find_element("css selector", f'#keys [data-insert="{key}"]')
        level = round(8 * keys.get(key, 0) ** 0.5)
        assert (f"level{level}" in button.get_attribute("class")) == (level > 0)
        assert button.accessible_name.startswith(f"{key}, ")


@pytest.mark.parametrize("how", ["tab", "click", "alt"])
def test_taking_a_suggestion(page, how):
    page.type("The val")
    n = 0 if how == "tab" else 1
    word = page.strip[n]
    if how == "tab":
        page.type(Keys.TAB)
    elif how == "alt":
        ActionChains(page.driver).key_down(Keys.ALT).send_keys("2").key_up(Keys.ALT).perform()
    else:
        page.driver.find_elements("css selector", "#strip button")[n].click()
    page.settle()
    assert page.text == f"The {word} "
    assert page.focused == "text"
    page.type(Keys.TAB)  # the next word, after the space
    assert page.text.startswith(f"The {word} ")
    assert len(page.text.split()) == 3
    page.type(Keys.CONTROL, "z")
    assert page.text == f"The {word} "


def test_deleting(page, engines):
    page.type("The value", *[Keys.BACKSPACE] * 3)
    assert page.text == page.shown == "The va"
    assert page.strip == words(engines["letters"].answer("The va"))
    page.type(Keys.CONTROL, "a")
    page.type(Keys.DELETE)
    assert page.text == page.shown == ""
    assert page.strip == words(engines["letters"].answer(""))
    assert page.find("status").text == ""


@pytest.mark.parametrize("run", ["letters", "words"])
def test_editing_in_the_middle(page, engines, run):
    page.choose(run)
    page.type("The val of an object\nin a list ")
    page.type(Keys.HOME, Keys.ARROW_LEFT, *[Keys.ARROW_LEFT] * 13)
    answer = engines[run].answer("The val", " of an object\nin a list ")
    assert page.strip == words(answer)
    page.type("ue")
    text = "The value of an object\nin a list "
    assert page.text == text
    assert page.shown.rstrip() == text.rstrip()
    answer = engines[run].answer("The value", text[9:])
    assert page.strip == words(answer)
    for token, (shown, title, _) in zip(answer["tokens"], page.tinted):
        assert shown == token["text"]
        if "bits" in token:
            assert title.endswith(f"{token['bits']:.2f} bits")


@pytest.mark.parametrize("run", ["letters", "words"])
def test_pasting_a_long_text(page, engines, run):
    page.choose(run)
    page.paste(LONG)
    page.until(lambda: "reading" in page.find("status").text)
    page.find("text").send_keys("x")  # while it is being read
    page.until(lambda: "reading" in page.find("status").text)
    page.settle()
    assert page.text == LONG + "x"
    assert page.shown == (LONG + "x")[: len(page.shown)]
    assert len(page.shown) >= len(LONG)
    page.type(" the ")
    assert page.strip == words(engines[run].answer(LONG + "x the "))
    page.type(*[Keys.BACKSPACE] * 3)
    assert page.strip == words(engines[run].answer(LONG + "x t"))


def test_what_is_unknown(page):
    page.paste("The 😀 valюe")
    page.settle()
    unknown = [(text, title) for text, title, kind in page.tinted if kind == "unknown"]
    assert unknown == [("😀", "😀: unknown"), ("ю", "ю: unknown")]
    assert "2 unknown, passed over" in page.find("status").text
    assert page.shown == page.text == "The 😀 valюe"
    page.type(Keys.BACKSPACE, Keys.BACKSPACE, "ue of")
    assert "1 unknown" in page.find("status").text
    assert page.shown == "The 😀 value of"
    page.choose("words")
    assert page.shown.startswith("The 😀 value")
    assert "unknown" in page.find("status").text


def test_two_sessions(page, served, driver, engines):
    first = driver.current_window_handle
    page.type("The val")
    driver.switch_to.new_window("window")
    other = Page(driver, served)
    second = driver.current_window_handle
    texts = {first: "The val", second: ""}
    for addition in ("ue", " of", " an o"):
        for handle in (first, second):
            driver.switch_to.window(handle)
            texts[handle] += addition
            page.type(addition)
            assert page.text == texts[handle]
            assert page.strip == words(engines["letters"].answer(texts[handle]))
    assert other.text == texts[second]
    driver.close()
    driver.switch_to.window(first)


def size(page, width, height):
    """Make the page itself so wide: a window has a least width."""
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


@pytest.mark.parametrize(("width", "height"), [(360, 740), (1600, 1000)])
def test_width(page, width, height):
    size(page, width, height)
    page.paste("The value of an object " + "pneumono" * 30 + " is the val")
    page.settle()
    assert page.run("return document.documentElement.clientWidth") == width
    assert page.run("return document.documentElement.scrollWidth") == width
    boxes = page.run(
        "return [...document.querySelectorAll('button, textarea, #tint, input')]"
        ".map((e) => e.getBoundingClientRect().toJSON())"
    )
    for box in boxes:
        assert 0 <= box["left"] < box["right"] <= width
    for box in boxes[3:-4]:  # keys
        assert box["width"] >= 24
        assert box["height"] >= 40
    for n, box in enumerate(boxes):
        for other in boxes[n + 1 :]:
            apart = box["right"] <= other["left"] + 0.1 or other["right"] <= box["left"] + 0.1
            assert apart or box["bottom"] <= other["top"] + 0.1 or other["bottom"] <= box["top"]
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_keys_alone(page):
    def press(*keys):
        ActionChains(page.driver).send_keys(*keys).perform()
        page.settle()

    assert page.focused == "text"
    press("The val")
    word = page.strip[0]
    press(Keys.ESCAPE)
    press(Keys.TAB)
    assert page.focused == "strip"
    outline = page.run("return getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    press(Keys.ENTER)
    assert page.text == f"The {word} "
    assert page.focused == "text"
    press(Keys.ESCAPE)
    press(Keys.TAB, Keys.TAB, Keys.TAB, Keys.TAB)
    assert page.focused == "keys"
    press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ENTER)
    assert page.text == f"The {word} s"
    assert page.focused == "keys"
    press(Keys.ARROW_DOWN, Keys.ARROW_LEFT, Keys.ENTER)  # shift
    press(Keys.ARROW_RIGHT, Keys.ENTER)
    assert page.text == f"The {word} sZ"
    press(Keys.TAB)
    assert page.focused == "write"
    press(Keys.TAB, Keys.ARROW_RIGHT)
    assert page.find("degree").text == "0.9"
    press(Keys.TAB, Keys.HOME)
    assert page.find("detail").text.startswith("T: ")
    press(Keys.ARROW_RIGHT)
    assert page.find("detail").text.startswith("h: ")
    for _ in range(3):
        back = ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB)
        back.key_up(Keys.SHIFT).perform()
    assert page.focused == "keys"


def test_on_screen_keys(page):
    def click(selector):
        page.driver.find_element("css selector", f"#keys {selector}").click()
        page.settle()

    for key in "an ":
        click(f'[data-insert="{key}"]')
    click('[data-name="delete"]')
    click('[data-name="layer"]')
    click('[data-insert="1"]')
    click('[data-insert="\\a "]')
    assert page.text == "an1\n"
    assert page.shown == page.text
    assert page.focused == "text"


def test_a_touch_screen(served):
    # A browser of its own: touches get lost in one in which other windows were closed.
    driver = start_chromium("--touch-events=enabled")
    try:
        tap_a_suggestion(Page(driver, served))
    finally:
        driver.quit()


def tap_a_suggestion(page):
    page.type("The val")
    word = page.strip[-1]
    buttons = page.driver.find_elements("css selector", "#strip button")
    finger = ActionBuilder(page.driver, PointerInput(POINTER_TOUCH, "finger"))
    finger.pointer_action.move_to(buttons[len(page.strip) - 1]).pointer_down().pointer_up()
    finger.perform()
    page.until(lambda: page.text == f"The {word} ")


def luminance(colour):
    channels = [int(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_colours(page, scheme):
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    style = "const s = getComputedStyle(document.querySelector(arguments[0])); return s."
    back = luminance(page.run(style + "backgroundColor", "body"))
    assert (back < 0.1) == (scheme == "dark")
    for selector in ("h1", "#help", "label"):
        front = luminance(page.run(style + "color", selector))
        low, high = sorted([front, back])
        assert (high + 0.05) / (low + 0.05) >= 4.5
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_writing_on_until_a_click(page):
    page.type("The value ")
    page.find("write").click()
    page.until(lambda: len(page.text) > 30)
    assert page.find("write").text == "Stop"
    page.find("write").click()
    page.until(lambda: page.find("write").text == "Write on")
    page.settle()
    text = page.text
    assert text.startswith("The value ")
    assert page.shown == text
    page.type("x")  # at the cursor, which is where the writing stopped
    assert page.text == text + "x"


def test_typing_stops_the_writing(page):
    page.find("write").click()
    page.until(lambda: len(page.text) > 5)
    page.find("text").send_keys("X")
    page.until(lambda: page.find("write").text == "Write on")
    page.settle()
    assert "X" in page.text
    assert page.shown == page.text


def test_the_picker(page):
    picker = page.find("run")
    assert picker.is_displayed()
    page.type("The value ")
    letters = [text for text, _, _ in page.tinted]
    page.choose("words")
    assert len(page.tinted) < len(letters)
    page.choose("letters")
    assert [text for text, _, _ in page.tinted] == letters


def test_bits_of_a_token(page):
    page.type("The value")
    span = page.driver.find_element("css selector", "#tint div span:nth-child(5)")
    assert span.get_attribute("title").startswith("v: ")
    span.click()
    assert page.find("detail").text == span.get_attribute("title")


def test_a_server_that_has_ended(driver, run_folders):
    server = Served(run_folders, ["letters"])
    page = Page(driver, server)
    assert not page.find("picker").is_displayed()
    server.stop()
    page.find("text").send_keys("a")
    page.until(lambda: page.find("message").text == "The server does not answer. Has it ended?")
    driver.get_log("browser")


def test_screenshots(driver, run_folders, tmp_path):
    """The pictures of the docs, of FASTRNN_SCREENSHOT_RUN and in FASTRNN_SCREENSHOTS if set."""
    run = Path(os.environ.get("FASTRNN_SCREENSHOT_RUN", run_folders["letters"]))
    folder = Path(os.environ.get("FASTRNN_SCREENSHOTS", tmp_path))
    server = Served({run.name: run}, [run.name])
    page = Page(driver, server)
    page.type("The value of an object is the res")
    for name, scheme, width in (("light", "light", 760), ("dark", "dark", 360)):
        size(page, width, 640)
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        assert driver.save_screenshot(str(folder / f"{name}.png"))
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    server.stop()
