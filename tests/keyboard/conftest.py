"""Tiny trained models."""

from __future__ import annotations

import pytest

from fastrnn.lm import data, preset
from fastrnn.lm.generation import Writer
from fastrnn.lm.keyboard.engine import Engine
from fastrnn.lm.keyboard.states import Kept
from fastrnn.lm.training import Training
from fastrnn.lm.training.checkpoint import save_checkpoint
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
TEXT = data.load_text("builtin")[:20_000]
SMALL = {"embed": 16, "hidden": 48, "batch": 8, "steps": 25, "validation": 0.0}
RUNS = {
    "letters": ("demo", {"epochs": 2}),
    "gru": ("demo", {"cell": "gru", "layers": 2, "epochs": 1}),
    "unrolled": ("unrolled", {"data": "builtin", "epochs": 1}),
    "words": ("zaremba-small", {"optimizer": "adam", "rate": 0.01, "epochs": 3}),
}


class Runs(dict):
    """Folders of runs by name, trained when they are asked for."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __missing__(self, name):
        base, changes = RUNS[name]
        training = Training(preset(base, **{**SMALL, **changes}), TEXT, [mx.cpu()])
        while not training.finished:
            training.run_epoch()
        self[name] = self.folder / name
        self[name].mkdir()
        save_checkpoint(self[name] / "best.npz", training.checkpoint())
        return self[name]


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session", params=list(RUNS))
def writer(request, run_folders):
    return Writer.from_checkpoint(run_folders[request.param])


@pytest.fixture(scope="session")
def served(run_folders):
    from serving import Served

    server = Served(run_folders)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def driver():
    from serving import start_chromium

    driver = start_chromium()
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, served):
    from browser_page import Page

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
