"""The build: its switches, its decisions, and what it asks pip for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from build_machines import COMPLETE, NO_COMPILER, NO_MXNET, NO_NVCC, NO_ONEDNN, machine

from fastrnn_build import backend, commands, plan
from fastrnn_build.detect import Machine, Missing, Nvcc
from fastrnn_build.settings import BuildError, Settings

ROOT = Path(__file__).resolve().parents[1]
SWITCHES = ("FASTRNN_NATIVE", "FASTRNN_CUDA", "FASTRNN_CUDA_ARCHITECTURES", "DNNL_ROOT")
ONEDNN_WHEELS = ["onednn-cpu-gomp==2023.2.0", "onednn-devel-cpu-gomp==2023.2.0"]


# Settings


@pytest.mark.parametrize("name", ["FASTRNN_NATIVE", "FASTRNN_CUDA"])
@pytest.mark.parametrize("value", ["yes", "2", "", "Auto"])
def test_a_bad_switch_is_named_with_its_value_and_the_allowed_ones(name, value):
    with pytest.raises(BuildError) as caught:
        Settings.from_environment({name: value})
    assert str(caught.value) == f"fastrnn: {name}={value!r} is not one of 0, 1, auto"


@pytest.mark.parametrize("value", ["sm_80", "8.0", "80,90", "80;", ";", "80 90", "auto"])
def test_bad_architectures_are_named(value):
    with pytest.raises(BuildError, match="FASTRNN_CUDA_ARCHITECTURES=.*such as"):
        Settings.from_environment({"FASTRNN_CUDA_ARCHITECTURES": value})


def test_cuda_without_native_is_a_contradiction():
    with pytest.raises(BuildError, match="FASTRNN_CUDA=1 .* FASTRNN_NATIVE=0"):
        Settings.from_environment({"FASTRNN_NATIVE": "0", "FASTRNN_CUDA": "1"})


def test_settings_are_read_from_the_environment():
    environ = dict(zip(SWITCHES, ("1", "0", "80;90a;100", "/opt/dnnl")))
    assert Settings.from_environment(environ) == Settings(
        "1", "0", ("80", "90a", "100"), "/opt/dnnl"
    )
    assert Settings.from_environment({}) == Settings("auto", "auto", (), "")


# What pip is asked for


@pytest.mark.parametrize(
    ("settings", "found", "expected"),
    [
        (Settings(), {}, ONEDNN_WHEELS),
        (Settings(), {"mxnet": NO_MXNET}, [*ONEDNN_WHEELS, "mxnet==1.9.1"]),
        (Settings(), {"mxnet": NO_MXNET, "python": (3, 8)}, [*ONEDNN_WHEELS, "mxnet==1.9.1"]),
        (Settings(), {"mxnet": NO_MXNET, "python": (3, 13)}, ONEDNN_WHEELS),
        (Settings(), {"platform": "linux-aarch64"}, []),
        (Settings(), {"platform": "linux-aarch64", "onednn": NO_ONEDNN}, []),
        (Settings("1"), {"onednn": NO_ONEDNN, "nvcc": NO_NVCC}, ONEDNN_WHEELS),
        (Settings("1", "1"), {"tools": Missing("CMake was not found")}, ONEDNN_WHEELS),
        (Settings(dnnl_root="/opt/dnnl"), {}, []),
    ],
)
def test_a_native_build_asks_for_its_tools(settings, found, expected):
    tools = ["cmake>=3.18", "ninja", "pybind11>=2.13"]
    assert plan.requirements(settings, machine(**found)) == tools + expected


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (Settings("0"), {}),
        (Settings(), {"compiler": NO_COMPILER}),
        (Settings(), {"platform": "macosx-11.0-arm64"}),
        (Settings(), {"platform": "musllinux-x86_64"}),
        (Settings(), {"platform": "linux-aarch64", "onednn": NO_ONEDNN, "nvcc": NO_NVCC}),
    ],
)
def test_a_python_only_build_asks_for_nothing(settings, found):
    assert plan.requirements(settings, machine(**found)) == []


def test_the_backend_adds_the_requirements_to_those_of_setuptools(monkeypatch):
    for hook in ("get_requires_for_build_wheel", "get_requires_for_build_editable"):
        monkeypatch.setattr(backend.build_meta, hook, lambda config: ["wheel"])
        monkeypatch.setattr(Machine, "here", lambda environ: COMPLETE)
        monkeypatch.delenv("FASTRNN_NATIVE", raising=False)
        assert "cmake>=3.18" in getattr(backend, hook)()
        monkeypatch.setenv("FASTRNN_NATIVE", "0")
        assert getattr(backend, hook)() == ["wheel"]
    assert backend.get_requires_for_build_sdist is backend.build_meta.get_requires_for_build_sdist


# What is built


def test_everything_found_is_built():
    decided = plan.make_plan(Settings(), COMPLETE)
    assert decided.off == {}
    assert decided.native.mxnet == COMPLETE.mxnet
    assert decided.native.cuda_architectures == ("70", "75", "80", "86", "90")
    assert decided.describe(2) == (
        "fastrnn is built with native, onednn, mxnet_operators, cuda "
        "for compute capability 70, 75, 80, 86, 90 and newer, in about 4 min on 2 processors"
    )


@pytest.mark.parametrize(
    ("settings", "found", "reason"),
    [
        (Settings("0"), {}, "FASTRNN_NATIVE=0"),
        (Settings(), {"compiler": NO_COMPILER}, NO_COMPILER.reason),
        (Settings(), {"tools": Missing("no CMake")}, "no CMake"),
        (Settings(), {"platform": "win-amd64"}, "not available for win-amd64"),
        (Settings(), {"onednn": NO_ONEDNN, "nvcc": NO_NVCC}, "oneDNN was not found; CUDA: nvcc"),
        (Settings(cuda="0"), {"onednn": NO_ONEDNN}, "oneDNN was not found; CUDA: left out by"),
    ],
)
def test_python_only_with_the_reason(settings, found, reason):
    decided = plan.make_plan(settings, machine(**found))
    assert decided.native is None
    assert all(reason in decided.off[part] for part in plan.PARTS)
    assert reason in decided.describe(2)


@pytest.mark.parametrize(
    ("settings", "found", "part", "reason"),
    [
        (Settings(), {"nvcc": NO_NVCC}, "cuda", NO_NVCC.reason),
        (Settings(cuda="0"), {}, "cuda", "left out by FASTRNN_CUDA=0"),
        (Settings(), {"onednn": NO_ONEDNN}, "onednn", NO_ONEDNN.reason),
        (Settings(), {"mxnet": NO_MXNET}, "mxnet_operators", NO_MXNET.reason),
        (Settings("1"), {"mxnet": NO_MXNET}, "mxnet_operators", NO_MXNET.reason),
        (
            Settings(),
            {"mxnet": NO_MXNET, "python": (3, 13)},
            "mxnet_operators",
            "pip install --no-deps mxnet==1.9.1",
        ),
    ],
)
def test_a_missing_part_is_left_out_alone(settings, found, part, reason):
    decided = plan.make_plan(settings, machine(**found))
    assert decided.native is not None
    assert list(decided.off) == [part]
    assert reason in decided.off[part]
    assert f"without {part}: " in decided.describe(2)
    assert "\n" not in decided.describe(2)


@pytest.mark.parametrize("decide", [plan.requirements, plan.make_plan])
@pytest.mark.parametrize(
    ("settings", "found", "message"),
    [
        (Settings("1"), {"compiler": NO_COMPILER}, "FASTRNN_NATIVE=1 asks .*no C.. compiler"),
        (Settings("1"), {"platform": "win-amd64"}, "FASTRNN_NATIVE=1 asks .*win-amd64"),
        (Settings(cuda="1"), {"nvcc": NO_NVCC}, "FASTRNN_CUDA=1 asks .*nvcc was not found"),
        (Settings(cuda="1"), {"compiler": NO_COMPILER}, "FASTRNN_CUDA=1 asks .*no C.. compiler"),
        (
            Settings(cuda_architectures=("75", "90")),
            {"nvcc": Nvcc(Path("nvcc"), (11, 2))},
            "asks for 90, which CUDA 11.2 cannot compile for",
        ),
        (
            Settings("1"),
            {"platform": "linux-aarch64", "onednn": NO_ONEDNN, "nvcc": NO_NVCC},
            "FASTRNN_NATIVE=1 asks .*oneDNN was not found",
        ),
        (
            Settings(dnnl_root="/opt/dnnl"),
            {"onednn": Missing("DNNL_ROOT=/opt/dnnl holds no oneDNN 3")},
            "cannot use the oneDNN it was given: DNNL_ROOT=/opt/dnnl holds no",
        ),
    ],
)
def test_what_was_asked_for_and_is_missing_stops_the_build(decide, settings, found, message):
    with pytest.raises(BuildError, match=message) as caught:
        decide(settings, machine(**found))
    assert "\n" not in str(caught.value)


def test_missing_tools_stop_a_build_that_was_asked_for():
    with pytest.raises(BuildError, match=r"FASTRNN_NATIVE=1 and FASTRNN_CUDA=1 ask .*no CMake"):
        plan.make_plan(Settings("1", "1"), machine(tools=Missing("no CMake")))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((11, 2), "70;75;80;86"),
        ((11, 8), "70;75;80;86"),
        ((12, 0), "70;75;80;86;90"),
        ((12, 8), "70;75;80;86;90;100;120"),
        ((13, 0), "75;80;86;90;100;120"),
    ],
)
def test_default_architectures_are_those_of_the_toolkit(version, expected):
    nvcc = Nvcc(Path("nvcc"), version)
    assert ";".join(plan.cuda_architectures(Settings(), nvcc)) == expected


@pytest.mark.parametrize(
    ("gpus", "version", "expected"),
    [
        (("80",), (13, 0), ("80",)),
        (("75", "86", "90"), (13, 0), ("75", "86", "90")),
        (("89",), (13, 0), ("86",)),  # whose machine code runs there
        (("90",), (11, 8), ("86",)),  # whose PTX does
        (("121",), (13, 0), ("120",)),
        (("61", "70"), (12, 4), ("70",)),
        (("61",), (12, 4), ("70", "75", "80", "86", "90")),  # too old for the kernels
    ],
)
def test_the_gpus_that_are_there_decide_the_architectures(gpus, version, expected):
    nvcc = Nvcc(Path("nvcc"), version)
    assert plan.cuda_architectures(Settings(), nvcc, gpus) == expected
    asked = Settings(cuda_architectures=("80",))
    assert plan.cuda_architectures(asked, nvcc, gpus) == ("80",)
    decided = plan.make_plan(Settings(), machine(nvcc=nvcc, gpus=gpus))
    assert decided.native.cuda_architectures == expected


def test_more_architectures_take_longer():
    seconds = [
        plan.make_plan(Settings(cuda_architectures=chosen), COMPLETE).native.seconds()
        for chosen in (("80",), ("80", "90"), ("75", "80", "90"))
    ]
    without = plan.make_plan(Settings(cuda="0"), COMPLETE).native.seconds()
    assert 0 < without < seconds[0] < seconds[1] < seconds[2]


def test_chosen_architectures():
    nvcc = Nvcc(Path("nvcc"), (13, 0))
    chosen = ("80", "100")
    assert plan.cuda_architectures(Settings(cuda_architectures=chosen), nvcc) == chosen
    with pytest.raises(BuildError, match=r"asks for 70, which CUDA 13\.0 .* 75;80;86;90;100;120"):
        plan.cuda_architectures(Settings(cuda_architectures=("70",)), nvcc)


def test_cmake_is_told_the_parts_of_the_plan():
    everything = plan.make_plan(Settings(cuda_architectures=("80", "90")), COMPLETE).native
    definitions = commands.cmake_definitions(everything, "1.2.3")
    assert "-DFASTRNN_VERSION=1.2.3" in definitions
    assert "-DFASTRNN_CUDA_ARCHITECTURES=80;90" in definitions
    assert "-DFASTRNN_MXNET=/site/mxnet" in definitions
    little = plan.make_plan(Settings(cuda="0"), machine(mxnet=NO_MXNET)).native
    names = " ".join(commands.cmake_definitions(little, "1.2.3"))
    assert "FASTRNN_ONEDNN_LIBRARY" in names
    assert "RPATH" not in names  # the library is shipped
    assert "CUDA" not in names
    assert "MXNET" not in names


def test_warnings_stop_the_builds_of_make_and_ci_alone():
    cmake, make, ci = ((ROOT / f).read_text() for f in ("CMakeLists.txt", "Makefile", ".ci/run"))
    assert re.search(r"^option\(FASTRNN_WERROR .* OFF\)$", cmake, re.MULTILINE)
    assert re.search(r"/\.dev-.*: export CMAKE_ARGS := .*-DFASTRNN_WERROR=ON$", make, re.MULTILINE)
    assert re.search(r"^export CMAKE_ARGS=.*-DFASTRNN_WERROR=ON", ci, re.MULTILINE)


def test_describing_the_project_looks_for_nothing():
    broken = {"FASTRNN_NATIVE": "nonsense"}
    assert commands.plan_for(["setup.py", "sdist"], broken).native is None
    with pytest.raises(BuildError):
        commands.plan_for(["setup.py", "bdist_wheel"], broken)
