"""What the build finds on a machine: compilers, GPUs, MXNet, oneDNN."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from build_machines import machine

from fastrnn_build import commands, detect, plan
from fastrnn_build.detect import Compiler, Missing, MxNet, Nvcc, OneDnn
from fastrnn_build.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


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


def test_programs_are_found_on_the_path_and_beside_this_python(tmp_path, monkeypatch):
    first, second = tmp_path / "path", tmp_path / "scripts"
    monkeypatch.setenv("PATH", str(first))
    monkeypatch.setattr(detect.sysconfig, "get_path", lambda name: str(second))
    assert "CMake was not found" in detect.find_tools().reason
    own = executable(second / "cmake", "exit 0")
    assert detect._find_program("cmake") == own
    isolated = executable(first / "cmake", "exit 0")
    assert detect._find_program("cmake") == isolated


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
