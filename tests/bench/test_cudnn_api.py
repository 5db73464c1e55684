"""How cuDNN is found, and that prototypes and values are those of its headers."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sources

from bench import cudnn_api as api

HEADERS = ("cudnn.h", "cuda_runtime.h")


@pytest.fixture
def nowhere(monkeypatch):
    """No cuDNN is anywhere, whatever this machine has."""
    monkeypatch.delenv("FASTRNN_CUDNN", raising=False)
    monkeypatch.setattr(api, "LIBRARIES", ("libfastrnn_absent.so.9", "libfastrnn_absent.so.8"))
    monkeypatch.setattr(api, "PACKAGES", ("fastrnn_absent.cudnn", "fastrnn_absent"))


def test_named_library(fake, monkeypatch):
    monkeypatch.setenv("FASTRNN_CUDNN", fake.path)
    library = api.load()
    assert (library.path, library.version) == (fake.path, fake.version)
    assert library.major == {8906: 8, 90100: 9}[fake.version]


def test_named_library_that_is_not_there(nowhere, monkeypatch, tmp_path):
    path = str(tmp_path / "libcudnn.so")
    monkeypatch.setenv("FASTRNN_CUDNN", path)
    with pytest.raises(
        api.MissingLibraryError, match="FASTRNN_CUDNN names no usable cuDNN"
    ) as caught:
        api.load()
    assert path in str(caught.value)
    assert "absent" not in str(caught.value)


def test_named_library_that_is_another(nowhere, monkeypatch):
    monkeypatch.setenv("FASTRNN_CUDNN", "libm.so.6")
    with pytest.raises(
        api.MissingLibraryError, match="libm.so.6: lacks a function of cuDNN: .*cudnn"
    ):
        api.load()


@pytest.mark.parametrize("version", [7605, 100000])
def test_other_versions(fake, nowhere, monkeypatch, version):
    ctypes.CDLL(fake.path).fakeSetVersion(ctypes.c_size_t(version))
    monkeypatch.setenv("FASTRNN_CUDNN", fake.path)
    with pytest.raises(api.MissingLibraryError, match=f"version is {version}, expected 8 or 9"):
        api.load()


def test_no_library(nowhere):
    with pytest.raises(
        api.MissingLibraryError, match="no usable cuDNN was found; tried:"
    ) as caught:
        api.load()
    message = str(caught.value)
    for name in api.LIBRARIES:
        assert f"{name}: not in this process" in message
        assert f"{name}: {name}: cannot open" in message
    for package in api.PACKAGES:
        assert f"Python package {package}: not installed" in message


def install(monkeypatch, folder, fake, inside="lib"):
    """Put a library into a package of a package, as pip does."""
    library = folder / "fastrnn_present" / "cudnn" / inside / api.LIBRARIES[1]
    library.parent.mkdir(parents=True)
    shutil.copy(fake.path, library)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(api, "PACKAGES", (*api.PACKAGES, "fastrnn_present.cudnn"))
    # A copy is another library, whose version is its own.
    ctypes.CDLL(str(library)).fakeSetVersion(ctypes.c_size_t(fake.version))
    return str(library)


@pytest.mark.parametrize("inside", ["lib", "."])
def test_library_of_a_package(fake, nowhere, monkeypatch, tmp_path, inside):
    path = install(monkeypatch, tmp_path, fake, inside)
    assert api.load().path == path


def test_every_package_that_brings_cudnn_is_looked_into():
    assert set(api.PACKAGES) == {"nvidia.cudnn", "torch", "mxnet"}


def test_library_in_the_process_comes_first(fake, nowhere, monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, fake)
    monkeypatch.setattr(api, "LIBRARIES", (*api.LIBRARIES, fake.path))
    assert api.load().path == fake.path


def test_newest_system_library(tmp_path, fake_path):
    # The loader reads its path once, so this takes a process.
    for name in api.LIBRARIES:
        shutil.copy(fake_path, tmp_path / name)
    program = "from bench import cudnn_api; cudnn_api.PACKAGES = (); print(cudnn_api.load().path)"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "FASTRNN_CUDNN": ""}
    environment["PYTHONPATH"] = str(sources.ROOT)
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, text=True)
    assert run.stdout.strip() == "libcudnn.so.9"


def include_folders():
    """Return the folders of cuDNN's and CUDA's headers, or None."""
    spec = importlib.util.find_spec("nvidia")
    packages = list(spec.submodule_search_locations or []) if spec else []
    places = [os.environ.get("CUDNN_HOME"), os.environ.get("CUDA_HOME"), "/usr/local/cuda", "/usr"]
    places += [str(path) for package in packages for path in Path(package).glob("*")]
    folders = [Path(place) / "include" for place in places if place]
    found = [[str(f) for f in folders if (f / header).exists()] for header in HEADERS]
    return [f"-I{each[0]}" for each in found] if all(found) else None


# Kinds of parameters that a prototype of ctypes' tells apart; an enumeration is an int.
LETTERS = {"c_int": "i", "c_uint": "u", "c_ulong": "z", "c_float": "f", "c_void_p": "p"}
CHECK = """
#include <cudnn.h>
#include <type_traits>

template <class T>
constexpr char Letter() {
  return std::is_pointer_v<T>                                 ? 'p'
         : std::is_same_v<T, float>                           ? 'f'
         : std::is_same_v<T, unsigned>                        ? 'u'
         : std::is_integral_v<T> && sizeof(T) == 8            ? 'z'
         : std::is_enum_v<T> || std::is_same_v<T, int>        ? 'i'
                                                              : '?';
}
template <class... Arguments>
constexpr bool Is(cudnnStatus_t (*)(Arguments...), const char* letters) {
  const char actual[] = {Letter<Arguments>()..., 0};
  int i = 0;
  while (actual[i] && actual[i] == letters[i]) ++i;
  return actual[i] == letters[i];
}
"""


def test_headers(compiler, tmp_path):
    folders = include_folders()
    if folders is None:
        pytest.skip(f"needs {' and '.join(HEADERS)}; CUDNN_HOME and CUDA_HOME say where")
    lines = [CHECK]
    for name, parameters in api.PROTOTYPES.items():
        letters = "".join(LETTERS.get(kind.__name__, "p") for kind in parameters)
        lines.append(f'static_assert(Is({name}, "{letters}"), "{name}");')
    values = {name: value for name, value in vars(api).items() if name.startswith("CUDNN_")}
    values.update((f"CUDNN_RNN_ALGO_{one.name}", int(one)) for one in api.Algorithm)
    lines += [f"static_assert({name} == {value});" for name, value in values.items()]
    lines.append(f"static_assert(CUDNN_RNN_ALGO_COUNT == {len(api.Algorithm)});")
    for name, new, old in [("NOT_SUPPORTED", 3000, 9), ("ARCH_MISMATCH", 3007, 6)]:
        lines.append(f"static_assert(CUDNN_STATUS_{name} == (CUDNN_MAJOR == 9 ? {new} : {old}));")
    source = tmp_path / "check.cc"
    source.write_text("\n".join(lines))
    command = [*compiler, "-std=c++17", "-fsyntax-only", "-Wno-deprecated-declarations", *folders]
    run = subprocess.run([*command, str(source)], check=False, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 0, run.stderr
