"""The build: its switches, its decisions, and what it asks pip for."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fastrnn_build import backend, commands, detect, plan
from fastrnn_build.detect import Compiler, Machine, Missing, MxNet, Nvcc, OneDnn, Tools
from fastrnn_build.settings import BuildError, Settings

ROOT = Path(__file__).resolve().parents[1]
SWITCHES = ("FASTRNN_NATIVE", "FASTRNN_CUDA", "FASTRNN_CUDA_ARCHITECTURES", "DNNL_ROOT")
COMPLETE = Machine(
    python=(3, 11),
    platform="linux-x86_64",
    compiler=Compiler("g++"),
    nvcc=Nvcc(Path("/cuda/bin/nvcc"), (12, 4)),
    onednn=OneDnn(Path("/include"), Path("/lib/libdnnl.so.3"), (Path("/doc/LICENSE"),)),
    mxnet=MxNet(Path("/site/mxnet"), "1.9.1"),
    tools=Tools(Path("/bin/cmake"), Path("/bin/ninja"), Path("/pybind11")),
)
NO_COMPILER = Missing("no C++ compiler was found")
NO_NVCC = Missing("nvcc was not found")
NO_ONEDNN = Missing("oneDNN was not found")
NO_MXNET = Missing("MXNet was not found")
ONEDNN_WHEELS = ["onednn-cpu-gomp==2023.2.0", "onednn-devel-cpu-gomp==2023.2.0"]


def machine(**found):
    return dataclasses.replace(COMPLETE, **found)


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


class FakeDriver:
    """libcuda, for a machine with these GPUs."""

    def __init__(self, capabilities, status=0):
        self.capabilities = capabilities
        self.status = status

    def cuInit(self, flags):  # noqa: N802  # the driver's names
        return self.status

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.capabilities)
        return 0

    def cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = 10 + index
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        value._obj.value = self.capabilities[device.value - 10][{75: 0, 76: 1}[attribute]]
        return 0


def test_gpus_are_those_that_the_driver_shows(monkeypatch):
    def find(driver):
        monkeypatch.setattr(detect.ctypes, "CDLL", lambda name: driver)
        return detect.find_gpus()

    assert find(FakeDriver([(9, 0), (8, 6), (9, 0), (12, 0)])) == ("86", "90", "120")
    assert find(FakeDriver([])) == ()
    assert find(FakeDriver([(9, 0)], status=100)) == ()  # as where there is a driver and no GPU

    def absent(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(detect.ctypes, "CDLL", absent)
    assert detect.find_gpus() == ()


def test_chosen_architectures():
    nvcc = Nvcc(Path("nvcc"), (13, 0))
    chosen = ("80", "100")
    assert plan.cuda_architectures(Settings(cuda_architectures=chosen), nvcc) == chosen
    with pytest.raises(BuildError, match=r"asks for 70, which CUDA 13\.0 .* 75;80;86;90;100;120"):
        plan.cuda_architectures(Settings(cuda_architectures=("70",)), nvcc)


def test_programs_are_found_on_the_path_and_beside_this_python(tmp_path, monkeypatch):
    first, second = tmp_path / "path", tmp_path / "scripts"
    monkeypatch.setenv("PATH", str(first))
    monkeypatch.setattr(detect.sysconfig, "get_path", lambda name: str(second))
    assert "CMake was not found" in detect.find_tools().reason
    own = executable(second / "cmake", "exit 0")
    assert detect._find_program("cmake") == own
    isolated = executable(first / "cmake", "exit 0")
    assert detect._find_program("cmake") == isolated


# Detection


def install_fake_mxnet(folder: Path, version="1.9.1", operators=True) -> Path:
    package = folder / "mxnet"
    (package / "src").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('the build must not import it')\n")
    (package / "libinfo.py").write_text(f'import os\n__version__ = "{version}"\n')
    if operators:
        (package / "src" / "lib_api.cc").touch()
    return package


def test_mxnet_is_found_in_the_first_folder_that_has_a_usable_one(tmp_path):
    old, plain, good, later = (tmp_path / name for name in ("old", "plain", "good", "later"))
    install_fake_mxnet(old, version="1.6.0")
    install_fake_mxnet(plain, operators=False)
    expected = install_fake_mxnet(good)
    install_fake_mxnet(later, version="1.9.0")
    paths = [[str(old)], [str(plain)], [str(tmp_path), str(good)], [str(later)]]
    assert detect.find_mxnet(paths) == MxNet(expected, "1.9.1")


def test_an_unusable_mxnet_is_named(tmp_path):
    install_fake_mxnet(tmp_path, version="1.6.0")
    assert "MXNet 1.6.0 in" in detect.find_mxnet([[str(tmp_path)]]).reason
    assert "MXNet was not found" in detect.find_mxnet([[]]).reason


def test_mxnet_is_found_in_the_environment_that_build_isolation_hides(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    packages = next(tmp_path.glob("lib/python*/site-packages"))
    install_fake_mxnet(packages)
    script = f"""
        import sys
        sys.path[:] = [p for p in sys.path if "site-packages" not in p]
        sys.path.insert(0, {str(ROOT / "build_backend")!r})
        from fastrnn_build import detect
        print(detect.find_mxnet([detect.target_site_packages()]).folder)
    """
    environ = {**os.environ, "PYTHONNOUSERSITE": "1"}
    result = subprocess.run(
        [str(tmp_path / "bin" / "python"), "-c", textwrap.dedent(script)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    assert Path(result.stdout.strip()).resolve() == (packages / "mxnet").resolve()


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_nvcc_is_found_by_cuda_home_and_tells_its_version(tmp_path):
    nvcc = executable(tmp_path / "bin/nvcc", "echo 'Cuda compilation tools, release 11.2, V11.2'")
    assert detect.find_nvcc({"CUDA_HOME": str(tmp_path)}) == Nvcc(nvcc, (11, 2))
    executable(nvcc, "echo nonsense")
    assert "does not name a CUDA release" in detect.find_nvcc({"CUDACXX": str(nvcc)}).reason


def test_a_compiler_that_cannot_compile_is_missing(tmp_path):
    broken = str(executable(tmp_path / "c++", "echo 'x.cc:1: error: no such header' >&2; exit 1"))
    assert "error: no such header" in detect.probe_compiler(Compiler(broken)).reason
    assert "error: no such header" in detect.probe_nvcc(Nvcc(Path(broken), (12, 0))).reason
    working = Compiler(str(executable(tmp_path / "g++", "exit 0")))
    assert detect.probe_compiler(working) is working


def test_the_compiler_of_cxx_comes_first(tmp_path):
    compiler = executable(tmp_path / "mine", "exit 0")
    headers = detect.find_compiler({})
    if isinstance(headers, Missing):
        assert "Python.h" in headers.reason or "no C++ compiler" in headers.reason
    else:
        assert detect.find_compiler({"CXX": f"{compiler} -m64"}).command == f"{compiler} -m64"
        assert "looked for nowhere/c++" in detect.find_compiler({"CXX": "nowhere/c++"}).reason


def install_fake_onednn_wheels(folder: Path) -> None:
    files = {
        "onednn_cpu_gomp": ["lib/libdnnl.so.3", "share/doc/onednn/LICENSE"],
        "onednn_devel_cpu_gomp": ["include/oneapi/dnnl/dnnl.hpp", "share/doc/onednn/LICENSE"],
    }
    for name, paths in files.items():
        info = folder / f"lib/site-packages/{name}-2023.2.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2023.2.0\n")
        (info / "RECORD").write_text("".join(f"../../{path},,\n" for path in paths))
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()


def test_onednn_wheels_bring_their_licence(tmp_path, monkeypatch):
    install_fake_onednn_wheels(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "lib/site-packages"))
    onednn = detect.find_onednn({})
    licence = tmp_path / "share/doc/onednn/LICENSE"
    assert onednn == OneDnn(tmp_path / "include", tmp_path / "lib/libdnnl.so.3", (licence,))
    assert dict(commands.bundled_files(onednn)) == {
        tmp_path / "lib/libdnnl.so.3": Path("libdnnl.so.3"),
        licence: Path("third_party/onednn/LICENSE"),
    }


def test_the_onednn_of_dnnl_root_comes_first_and_is_used_where_it_is(tmp_path, monkeypatch):
    install_fake_onednn_wheels(tmp_path / "wheels")
    monkeypatch.syspath_prepend(str(tmp_path / "wheels/lib/site-packages"))
    own = tmp_path / "own"
    missing = detect.find_onednn({"DNNL_ROOT": str(own)})
    assert missing.reason.startswith(f"DNNL_ROOT={own} holds no oneDNN 3 (")
    for path in ("include/oneapi/dnnl/dnnl.hpp", "lib64/libdnnl.so.3"):
        (own / path).parent.mkdir(parents=True)
        (own / path).touch()
    onednn = detect.find_onednn({"DNNL_ROOT": str(own)})
    assert onednn == OneDnn(own / "include", own / "lib64/libdnnl.so.3")
    assert commands.bundled_files(onednn) == []
    assert commands.bundled_files(None) == []
    native = plan.make_plan(Settings(dnnl_root=str(own)), machine(onednn=onednn)).native
    definitions = commands.cmake_definitions(native, "1.2.3")
    assert f"-DFASTRNN_ONEDNN_RPATH={own / 'lib64'}" in definitions


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
