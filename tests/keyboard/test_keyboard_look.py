"""How the keyboard's page looks, and how it is reached: keys, touch, widths, colours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browser_page import Page, size
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.keys import Keys
from serving import Served, find_chromium, start_chromium

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="neither Chromium nor its driver is installed"
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
