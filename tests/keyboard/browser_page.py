"""The keyboard's page, driven in Chromium."""

from __future__ import annotations

import pytest

pytest.importorskip("selenium", reason="the extra `browser` is not installed")
from selenium.webdriver.support.ui import WebDriverWait


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
                # The browser tells the page a little later that the cursor has moved.
                " && (document.activeElement !== field || field.selectionEnd === selected)"
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


def words(answer):
    return [proposal["text"] for proposal in answer["suggestions"]]


def size(page, width, height):
    """Make the page itself so wide: a window has a least width."""
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
