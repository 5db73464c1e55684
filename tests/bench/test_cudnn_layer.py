"""cuDNN's interface: its prototypes and values, and what a status means."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from bench.peers import cudnn_api as api
from fastrnn_build import detect

HEADERS = ("cudnn.h", "cuda_runtime.h")
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


def include_folders():
    """Return the folders of cuDNN's and CUDA's headers, or None."""
    spec = importlib.util.find_spec("nvidia")
    packages = list(spec.submodule_search_locations or []) if spec else []
    places = [os.environ.get("CUDNN_HOME"), os.environ.get("CUDA_HOME"), "/usr/local/cuda", "/usr"]
    places += [str(path) for package in packages for path in Path(package).glob("*")]
    folders = [Path(place) / "include" for place in places if place]
    found = [[str(f) for f in folders if (f / header).exists()] for header in HEADERS]
    return [f"-I{each[0]}" for each in found] if all(found) else None


def test_headers(tmp_path):
    folders, compiler = include_folders(), detect.find_compiler(os.environ)
    if folders is None or isinstance(compiler, detect.Missing):
        pytest.skip(f"needs a compiler and {' and '.join(HEADERS)}; CUDNN_HOME says where")
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
    command = [*shlex.split(compiler.command), "-std=c++17", "-fsyntax-only"]
    command += ["-Wno-deprecated-declarations", *folders, str(source)]
    run = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 0, run.stderr


def library(major, status):
    """A cuDNN all of whose calls return one status."""
    made = api.Cudnn.__new__(api.Cudnn)
    made.major, made._last_error = major, None
    made._functions = {name: lambda *arguments: status for name in api.PROTOTYPES}
    made._error_string = lambda status: b"a reason"
    return made


@pytest.mark.parametrize(
    ("major", "status", "unsupported"),
    [
        *[(8, 9, True), (8, 6, True), (8, 3, False), (8, 8, False), (8, 3000, False)],
        *[(9, 3000, True), (9, 3002, True), (9, 3007, True), (9, 3010, True)],
        *[(9, 9, False), (9, 2000, False), (9, 3008, False), (9, 5000, False)],
    ],
)
def test_a_refusal_is_no_failure(major, status, unsupported):
    with pytest.raises(api.CudnnError, match=f"^cudnnCreate failed with status {status}: a reas"):
        library(major, status).call("cudnnCreate", None)
    with pytest.raises(NotImplementedError if unsupported else api.CudnnError) as caught:
        library(major, status).call("cudnnCreate", None)
    assert isinstance(caught.value, api.UnsupportedError) == unsupported
