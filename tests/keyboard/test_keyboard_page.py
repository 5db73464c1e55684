"""The keyboard's page in Chromium: text, suggestions, surprise."""

from __future__ import annotations

import json

import pytest
from browser_page import Page, words
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from serving import Served, find_chromium

from fastrnn.lm import data

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="neither Chromium nor its driver is installed"
)
LONG = (data.load_text("builtin") * 2)[:100_000]


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
