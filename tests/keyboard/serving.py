"""A server on a thread, and Chromium."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("starlette", reason="the extra `keyboard` is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra `keyboard` is not installed")

from fastrnn.lm.keyboard import listening
from fastrnn.lm.keyboard.engine import Engine
from fastrnn.lm.keyboard.server import Keyboard, served_names
from fastrnn.lm.keyboard.states import Kept
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


class Served:
    """A server on a thread, at `address`."""

    def __init__(self, folders, names=("letters", "words")):
        self.worker = ThreadPoolExecutor(1)
        kept = Kept(1 << 26)
        self.engines = {
            name: self.worker.submit(Engine.load, folders[name], kept, name, mx.cpu()).result()
            for name in names
        }
        self.keyboard = Keyboard(self.engines, self.worker, served_names("127.0.0.1"))
        listener = listening("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        config = uvicorn.Config(
            self.keyboard.app, access_log=False, log_level="error", lifespan="off"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [listener]}, daemon=True
        )
        self.thread.start()

    def stop(self):
        self.keyboard.ending = True
        self.server.should_exit = True
        self.thread.join(20)
        self.worker.shutdown()

    def call(self, method, path, body=None, **headers):
        """Status, headers and content of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            named.setdefault("Content-Type", "application/json")
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    def post(self, path, body, **headers):
        """Status and JSON of an answer."""
        status, _, content = self.call("POST", path, body, **headers)
        return status, json.loads(content)


def find_chromium():
    """Chromium and its driver, or None."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def start_chromium(*arguments):
    """A headless Chromium that reaches this machine alone."""
    from selenium import webdriver

    browser, driver = find_chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",  # Chromium refuses to sandbox root
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--force-prefers-reduced-motion",
        "--hide-scrollbars",
        *arguments,
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver)
    return webdriver.Chrome(options=options, service=service)
