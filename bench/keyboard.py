"""From a key to new suggestions in the page, in Chromium: ``python bench/keyboard.py RUN...``.

The time is from the key's event, as the browser saw it, to the change of the page; the page itself
measures it (User Timing). The server has all processors but those that Chromium takes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, List, Tuple

import numpy as np

_BETWEEN_KEYS = 0.15  # seconds: a quick typist's, in which the page asks for likely keys' answers
TEXT = "The value of an object is the result of the last call to its method. If there is none, "
_OBSERVE = (
    "window.times = []; new PerformanceObserver((list) => { for (const entry of list.getEntries())"
    " times.push(entry.duration) }).observe({ entryTypes: ['measure'] })"
)
# Looking more often than this would keep the page from its work.
_SETTLED = (
    "const [done] = arguments; const look = () => pumping || asked || "
    "document.querySelector('#strip.waiting') ? setTimeout(look, 20) : done(); look()"
)


def browser() -> Any:
    """A headless Chromium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def measured(run: Path, text: str) -> Tuple[List[float], float]:
    """Milliseconds for each key of `text`, and the server's processor time for one, on average."""
    command = [sys.executable, "-m", "fastrnn", "keyboard", str(run), "--port", "0"]
    server = subprocess.Popen([*command, "--no-browser"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().split()[1]
    driver = browser()
    try:
        driver.get(address)
        field = driver.find_element("id", "text")
        driver.execute_script(_OBSERVE)
        before = _processor_time(server.pid)
        for character in text:
            field.send_keys(character)
            driver.execute_async_script(_SETTLED)
            time.sleep(_BETWEEN_KEYS)
        spent = _processor_time(server.pid) - before
        return driver.execute_script("return times"), 1000 * spent / len(text)
    finally:
        driver.quit()
        server.send_signal(signal.SIGINT)
        server.wait()


def _processor_time(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description="From a key to new suggestions in the page.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    print("run                   median   9 of 10   server's processor time")
    for run in parser.parse_args().runs:
        times, spent = measured(run, TEXT)
        median, most = np.quantile(times, [0.5, 0.9])
        print(f"{run.name:20} {median:5.1f} ms  {most:5.1f} ms  {spent:5.1f} ms", flush=True)


if __name__ == "__main__":
    main()
