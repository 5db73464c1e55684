"""mutants.py tells a barrier that is needed from one that is not."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import mutants
import ordering
import pytest
from conftest import BUILDS

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = [
    (ROOT / "csrc/cuda/device.cuh").read_text(),
    (ROOT / "tests/emulator/cuda_names.h").read_text(),
]
PROGRAM = """
#include "cuda/device.cuh"
using namespace fastrnn::cuda;
__global__ void Reverse(int* out) {
  FASTRNN_SHARED(int, box, 64);
  box[threadIdx.x] = 1;
  __syncthreads();  // NEEDED
  out[threadIdx.x] = box[63 - threadIdx.x];
  __syncthreads();  // IDLE
  if (out == nullptr) __syncthreads();  // UNREACHED
}
int main() {
  int out[64];
  return Launch(Reverse, 1, 64, 0, nullptr, out) != cudaSuccess;
}
"""


def sites(text, vocabulary=()):
    return ordering.find_sites("a.cu", text, ordering.primitives([*VOCABULARY, *vocabulary]))


def names(text, vocabulary=()):
    return [site.primitive.name for site in sites(text, vocabulary)]


# ---- what is found ------------------------------------------------------------------------------


def test_everything_that_orders_memory_is_known():
    known = ordering.primitives(VOCABULARY)
    blocks = {"__syncthreads", "__syncthreads_or", "__syncwarp", "ClusterBarrier"}
    grids = {"sync", "LoadAcquire", "StoreRelease"}
    assert blocks | grids | {"__threadfence"} <= set(known)
    assert not {"atomicAdd", "__shfl_sync", "__ballot_sync", "Launch"} & set(known)


def test_the_emulators_functions_are_named_after_what_they_do():
    # StaticShared tells ThreadSanitizer only of an allocation.
    code = ordering.blank((ROOT / "tests/emulator/emulator.cc").read_text())
    telling = {f.name for f in ordering.functions(code) if "Tsan" in code[slice(*f.body)]}
    assert "WaitAtBarrier" in telling
    for name in telling - {"StaticShared"}:
        assert ordering.ORDERING_CALL.search(name + "("), name


def test_a_new_primitive_is_known_without_a_list():
    vocabulary = """
      struct Cluster { void Meet() { ::emulator::WaitForCluster(); } };
      inline void StoreRemote(int* p) { __atomic_store_n(p, 1, __ATOMIC_RELEASE); }
    """
    text = "void Kernel() { cluster(1).Meet(); StoreRemote(p); Meet(); Cluster->Meet(); }"
    assert names(text, [vocabulary]) == ["Meet", "StoreRemote", "Meet"]
    first, second, _ = sites(text, [vocabulary])
    assert text[first.begin : first.end] == "cluster(1).Meet()"
    assert "? StoreRemoteRelaxed(p) :" in ordering.instrument(text, [second], 0)
    twins = ordering.with_relaxed_twins(vocabulary)
    assert "StoreRemoteRelaxed(int* p) { __atomic_store_n(p, 1, __ATOMIC_RELAXED); }" in twins


def test_only_calls_are_sites():
    text = """
      // __syncthreads();
      const char* text = "__syncthreads()";
      void ClusterBarrier();
      #if defined(FASTRNN_EMULATE)
      void Other() { __syncthreads(); }
      #endif
      void Kernel() { return __syncwarp(); }
    """
    assert names(text) == ["__syncwarp"]


def test_a_site_within_another_stays_whole():
    text = "void K() { int n = __syncthreads_or(LoadAcquire(p) == f(1, 2), 0); }"
    changed = ordering.instrument(text, sites(text), 7)
    inner = "(::mutant::Chosen(8) ? LoadAcquireRelaxed(p) : LoadAcquire(p)) == f(1, 2)"
    outer = "(::mutant::Chosen(7) ? (LoadAcquire(p) == f(1, 2)) : "
    assert changed == f"void K() {{ int n = {outer}__syncthreads_or({inner}, 0)); }}"


# ---- what is said about it -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def baselines(tmp_path_factory):
    """The small program, compiled as the self-test is, with and without ThreadSanitizer."""
    folder, commands = tmp_path_factory.mktemp("mutants"), Path(BUILDS, "compile_commands.json")
    (folder / "mutant.h").write_text(mutants.CHOSEN % {"count": 3})
    source = folder / "program.cc"
    source.write_text(ordering.instrument(PROGRAM, sites(PROGRAM), 0))
    tests = []
    for build, schedule in [("plain", "lifo"), ("thread", "random:3")]:
        emulator = Path(BUILDS, f"tests/emulator/CMakeFiles/emulator_{build}.dir")
        compile_selftest = next(
            shlex.split(entry["command"])
            for entry in json.loads(commands.read_text())
            if entry["file"].endswith("selftest.cc") and f"selftest_{build}" in entry["command"]
        )
        flags = compile_selftest[: compile_selftest.index("-o")]
        extra = ["-include", str(folder / "mutant.h"), "-o", str(folder / build), str(source)]
        objects = [str(path) for path in emulator.glob("*.o")]
        subprocess.run([*flags, *extra, *objects], cwd=BUILDS, check=True)
        tests.append(mutants.Test("program", (str(folder / build),), build, schedule, {}))
    return mutants.baselines(tests, 1)


REASON = "No mutant: nothing follows"


@pytest.mark.parametrize(
    "comments, good, said",
    [
        ({}, False, "not noticed by any of 2 tests"),
        ({"IDLE": REASON, "UNREACHED": REASON}, True, "not noticed: nothing follows"),
        ({"IDLE": REASON}, False, "no test reaches it"),
        ({"IDLE": "No mutant:", "UNREACHED": REASON}, False, "the comment gives no reason"),
        ({"IDLE": REASON, "UNREACHED": REASON, "NEEDED": REASON}, False, "although the comment"),
    ],
)
def test_verdicts(baselines, capsys, comments, good, said):
    text = PROGRAM
    for word, comment in comments.items():
        text = text.replace(word, comment)
    found = list(enumerate(sites(text)))
    assert mutants.judge(found, baselines, 1, everything=True) == good
    output = capsys.readouterr().out
    assert "a.cu:7 __syncthreads: noticed by" in output
    assert "program (thread, random:3)" in output
    assert said in output


def test_a_test_that_fails_by_itself_is_an_error(tmp_path):
    test = mutants.Test("broken", ("false",), "plain", "lifo", {})
    with pytest.raises(SystemExit, match="broken .* fails with nothing left out"):
        mutants.baselines([test], 1)


def test_a_test_that_does_not_end_has_noticed():
    test = mutants.Test("stuck", ("sleep", "60"), "plain", "lifo", {})
    assert mutants.run(test, timeout=0.1).noticed
