"""What `features()` and `fastrnn info` tell of an installation."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from fastrnn import _info, _native
from fastrnn import mxnet as _mxnet
from fastrnn.check import verdict

BUILD = {
    "version": "0.1.0",
    "compiler": "12.2.0",
    "onednn": "3.2.0",
    "mxnet_operators": True,
    "mxnet_version": "1.9.1",
    "cuda_toolkit": "12.4",
    "cuda_architectures": ["80", "90"],
    "operator_types": {"cpu": ("float32",), "gpu": ("float32", "float16")},
}
GPU = {
    "name": "NVIDIA H100",
    "compute_capability": "9.0",
    "memory_bytes": 80 * 2**30,
    "multiprocessors": 132,
}


@pytest.fixture
def installation(monkeypatch, tmp_path):
    """Give `features()` an installation made of chosen parts; returns a function that does so."""

    def install(build=None, off=None, driver="12.4", devices=(GPU,), error=None, usable=True):
        report = tmp_path / "_build.json"
        report.write_text(json.dumps({"off": off or {}}))
        monkeypatch.setattr(_info, "_REPORT", report)
        library = ModuleType("fastrnn._C")
        library.__file__ = "/site/fastrnn/_C.so"
        library.build_info = lambda: {**BUILD, **(build or {})}
        cuda = {"driver": driver, "devices": list(devices), "error": error}
        library.cuda_devices = lambda: cuda
        monkeypatch.setattr(_native, "find", lambda: (library, ""))
        unchecked = verdict.Reading(None, "not checked")
        monkeypatch.setattr(verdict, "of_process", lambda device: unchecked)
        native = ModuleType("fastrnn.mxnet.native")
        native.STATUS = SimpleNamespace(usable=usable, reason="MXNet sees 1 GPU")
        monkeypatch.setitem(sys.modules, "fastrnn.mxnet.native", native)
        monkeypatch.setattr(_mxnet, "installed", lambda: True)
        monkeypatch.setattr(_mxnet, "import_mxnet", fake_mxnet)
        return _info.features()

    return install


def fake_mxnet(cuda=False, gpus=0):
    mx = ModuleType("mxnet")
    mx.__version__ = "1.9.1"
    mx.MXNetError = RuntimeError
    mx.runtime = SimpleNamespace(Features=lambda: SimpleNamespace(is_enabled=lambda name: cuda))
    mx.context = SimpleNamespace(num_gpus=lambda: gpus)
    return mx


def test_everything_on(installation):
    found = installation()
    assert found["native_library"] == "/site/fastrnn/_C.so"
    assert found["numpy"] == np.__version__
    assert (found["onednn"], found["mxnet_operators"], found["driver"]) == ("3.2.0", True, "12.4")
    assert found["devices"] == [GPU]
    assert found["off"] == {"mxnet_gpus": "MXNet was built for the CPU", "check": "not checked"}


@pytest.mark.parametrize(
    ("build", "part", "key"),
    [
        ({"onednn": None}, "onednn", "onednn"),
        ({"mxnet_operators": False}, "mxnet_operators", "mxnet_operators"),
        ({"cuda_toolkit": None}, "cuda", "cuda_toolkit"),
    ],
)
def test_a_part_left_out_of_the_build_has_the_reason_of_the_build(installation, build, part, key):
    found = installation(build, off={part: "the reason"})
    assert not found[key]
    assert found["off"][key] == "the reason"


def test_operators_that_cannot_be_used_are_off(installation):
    found = installation(usable=False)
    assert found["mxnet_operators"] is False
    assert found["off"]["mxnet_operators"] == "MXNet sees 1 GPU"


@pytest.mark.parametrize(
    ("driver", "devices", "key", "reason"),
    [
        (None, (), "driver", "no NVIDIA driver"),
        (None, (), "devices", "no NVIDIA driver"),
        ("11.4", (), "devices", "toolkit newer than driver (12.4 and 11.4)"),
        ("12.3", (GPU,), "driver", "toolkit newer than driver (12.4 and 12.3)"),
        ("13.0", (), "devices", "broken"),
    ],
)
def test_devices_and_driver_are_explained(installation, driver, devices, key, reason):
    found = installation(driver=driver, devices=devices, error="broken")
    assert found["off"][key] == reason


def test_a_toolkit_is_compared_with_its_driver_as_numbers(installation):
    assert "driver" not in installation({"cuda_toolkit": "12.9"}, driver="12.10")["off"]


def test_without_a_native_library_the_build_says_why(installation, monkeypatch):
    installation(off={"native": "no C++ compiler was found"})
    monkeypatch.setattr(_native, "find", lambda: (None, "not built"))
    found = _info.features()
    assert found["native_library"] is None
    assert found["off"]["native_library"] == "no C++ compiler was found"
    assert found["off"]["onednn"] == "there is no native library"


def test_without_mxnet_the_extra_is_named(installation, monkeypatch):
    installation()

    def missing():
        raise ImportError(_mxnet.MISSING)

    monkeypatch.setattr(_mxnet, "import_mxnet", missing)
    found = _info.features()
    assert found["mxnet"] is None
    assert "fastrnn[cpu]" in found["off"]["mxnet"]
    assert found["off"]["mxnet_operators"] == "there is no MXNet"


def test_the_build_of_mxnet_is_named(monkeypatch):
    wheels = [SimpleNamespace(metadata={"Name": name}) for name in ("numpy", "mxnet-cu112")]
    monkeypatch.setattr(_info.importlib.metadata, "distributions", lambda: wheels)
    assert _info._mxnet_build(fake_mxnet(cuda=False)) == "cpu"
    assert _info._mxnet_build(fake_mxnet(cuda=True)) == "cu112"
    monkeypatch.setattr(_info.importlib.metadata, "distributions", lambda: wheels[:1])
    assert _info._mxnet_build(fake_mxnet(cuda=True)) == "cuda"


def test_the_text_has_a_line_for_each_fact_with_value_or_reason(installation):
    found = installation({"onednn": None}, off={"onednn": "not found"})
    text = _info.format_features()
    assert len(text.splitlines()) == len(found) - 1
    assert "NVIDIA H100 (sm_90, 80 GiB, 132 multiprocessors)" in text
    onednn = next(line for line in text.splitlines() if line.startswith("oneDNN "))
    assert onednn.endswith("none: not found")


def test_this_installation_explains_whatever_it_lacks():
    found = _info.features()
    lacking = {key for key, value in found.items() if key != "off" and not value}
    assert lacking <= set(found["off"])
    json.dumps(found)
