"""Checks that the tests notice when a barrier, fence, wait, acquire or release is missing.

    python tests/emulator/mutants.py [--jobs N] [--only TEXT] [--all]

ordering.py finds the sites in the kernels and in the emulator's own correct examples. A copy of
the sources in which each site can be left out is built once, plain and with ThreadSanitizer. Then
each site is left out in turn while the tests that reach it run, the quickest first, until one
fails. The exit status is 1 if a site can go unnoticed, unless a comment there says why it has to,
and also where such a comment is wrong. Python needs what run.sh needs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import ordering

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("tests", "emulator")
SCHEDULES = ("lifo", "random:1", "random:2", "fifo")
THREAD = ("thread", "random:3")
PLAIN = [("plain", schedule) for schedule in SCHEDULES]
SUITES: Mapping[Path, Sequence[Tuple[str, str]]] = {
    HERE / "small_layers.py": [THREAD, *PLAIN],
    HERE / "small_persistent.py": [THREAD, *PLAIN],
    Path("tests", "test_kernels.py"): PLAIN,
    Path("tests", "test_kernels_cuda.py"): PLAIN,
    Path("tests", "test_kernels_lengths.py"): PLAIN,
    Path("tests", "test_kernels_layers.py"): PLAIN,
}
CHOSEN = """// Which of the numbered sites is left out: FASTRNN_MUTANT. Those that a run reaches are
// written to the file FASTRNN_MUTANTS_REACHED.
#pragma once
#include <cstdio>
#include <cstdlib>

namespace mutant {

struct Choice {
  Choice() : path(std::getenv("FASTRNN_MUTANTS_REACHED")) {
    const char* text = std::getenv("FASTRNN_MUTANT");
    number = text == nullptr ? -1 : std::atoi(text);
  }
  ~Choice() {
    std::FILE* file = path == nullptr ? nullptr : std::fopen(path, "w");
    if (file == nullptr) return;
    for (int i = 0; i < %(count)d; ++i) {
      if (reached[i]) std::fprintf(file, "%%d\\n", i);
    }
    std::fclose(file);
  }
  const char* path;
  int number;
  bool reached[%(count)d + 1] = {};
};
inline Choice choice;

__attribute__((noinline, no_sanitize_thread)) inline bool Chosen(int number) {
  if (choice.path != nullptr) choice.reached[number] = true;
  return number == choice.number;
}

}  // namespace mutant
"""


class Test(NamedTuple):
    """A program that exits with 0 if it notices nothing, in one build and schedule."""

    name: str
    command: Tuple[str, ...]
    build: str
    schedule: str
    environment: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} ({self.build}, {self.schedule})"


class Outcome(NamedTuple):
    """What became of a test; `at` is what it was at when it noticed something."""

    noticed: bool
    at: str
    seconds: float
    output: str


@dataclass(frozen=True)
class Baseline:
    """A test that passes as long as nothing is left out."""

    test: Test
    seconds: float
    reached: Set[int]


class Verdict(NamedTuple):
    """What is said about a site, and whether that is as it should be."""

    good: bool
    text: str


def run(test: Test, timeout: Optional[float] = None, **variables: str) -> Outcome:
    """Run a test. One that does not end in time has noticed something."""
    begin = time.monotonic()
    environment = {
        **os.environ,
        **test.environment,
        **variables,
        "FASTRNN_EMULATOR_SCHEDULE": test.schedule,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TSAN_OPTIONS": "halt_on_error=1",
    }
    try:
        result = subprocess.run(
            test.command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(True, f"{test}: no end after {timeout:.0f} s", timeout or 0.0, "")
    output = result.stdout.decode(errors="replace")
    started = re.findall(r"^\S+(::\S+)", output, re.MULTILINE)
    at = str(test._replace(name=test.name + started[-1])) if started else str(test)
    return Outcome(result.returncode != 0, at, time.monotonic() - begin, output)


def baselines(tests: Sequence[Test], jobs: int) -> List[Baseline]:
    """Run the tests with nothing left out, and learn which sites each of them reaches.

    Raises
    ------
    SystemExit
        If one fails.
    """

    def measure(test: Test) -> Baseline:
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder, "reached")
            outcome = run(test, FASTRNN_MUTANTS_REACHED=str(trace))
            if outcome.noticed:
                sys.exit(f"{outcome.at} fails with nothing left out:\n{outcome.output}")
            return Baseline(test, outcome.seconds, set(map(int, trace.read_text().split())))

    with ThreadPoolExecutor(jobs) as pool:
        return sorted(pool.map(measure, tests), key=lambda baseline: baseline.seconds)


def judge(
    sites: Sequence[Tuple[int, ordering.Site]],
    passing: Sequence[Baseline],
    jobs: int,
    everything: bool = False,
) -> bool:
    """Leave out each numbered site in turn, and return whether every verdict is good."""

    def examine(numbered: Tuple[int, ordering.Site]) -> Verdict:
        number, site = numbered
        reaching = [baseline for baseline in passing if number in baseline.reached]
        noticed: List[str] = []
        for baseline in reaching:
            outcome = run(baseline.test, 60 + 20 * baseline.seconds, FASTRNN_MUTANT=str(number))
            if outcome.noticed:
                noticed.append(outcome.at)
                if not everything:
                    break
        return verdict(site, len(reaching), noticed)

    good = True
    with ThreadPoolExecutor(jobs) as pool:
        for (_, site), result in zip(sites, pool.map(examine, sites)):
            print(f"{'' if result.good else 'BAD: '}{site}: {result.text}", flush=True)
            good = good and result.good
    return good


def verdict(site: ordering.Site, reaching: int, noticed: Sequence[str]) -> Verdict:
    """Judge a site from how many tests reach it and which of them noticed that it was missing."""
    if noticed:
        wrong = "" if site.exception is None else ", although the comment there says that none does"
        return Verdict(not wrong, f"noticed by {', '.join(noticed)}{wrong}")
    if site.exception:
        return Verdict(True, f"not noticed: {site.exception}")
    if site.exception == "":
        return Verdict(False, "the comment gives no reason")
    reached = f"not noticed by any of {reaching} tests" if reaching else "no test reaches it"
    return Verdict(False, reached)


def copy_instrumented(target: Path) -> List[ordering.Site]:
    """Bring `target` up to date with the sources, instrumented, and return the sites.

    A file that stays as it was is not written, so that it need not be compiled again.
    """
    kernels = sorted([*ROOT.glob("csrc/cuda/*.cu"), *ROOT.glob("csrc/cuda/*.cuh")])
    examples = [ROOT / HERE / f"selftest_{part}.cc" for part in ("clear", "fragments")]
    vocabulary = [ROOT / "csrc/cuda/device.cuh", ROOT / HERE / "cuda_names.h"]
    known = ordering.primitives([path.read_text() for path in vocabulary])
    sites: List[ordering.Site] = []
    copied = [*ROOT.glob("csrc/**/*"), *(ROOT / HERE).glob("*"), *ROOT.glob("bench/*.cu")]
    for path in [*copied, ROOT / "CMakeLists.txt"]:
        if path.suffix not in (".cc", ".cu", ".cuh", ".h", ".txt"):
            continue
        text = path.read_text()
        if path in kernels or path in examples:
            found = ordering.find_sites(str(path.relative_to(ROOT)), text, known)
            text = ordering.instrument(text, found, len(sites))
            sites += found
        if path in vocabulary:
            text = ordering.with_relaxed_twins(text)
        _write_if_changed(target / path.relative_to(ROOT), text)
    _write_if_changed(target / "mutant.h", CHOSEN % {"count": len(sites)})
    return sites


def _write_if_changed(path: Path, text: str) -> None:
    if path.is_file() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def build(folder: Path, jobs: int) -> None:
    """Compile the copy in `folder`/source, plain and with ThreadSanitizer."""
    import pybind11

    definitions = {
        "FASTRNN_EMULATE": "ON",
        "FASTRNN_WERROR": "OFF",
        "FASTRNN_VERSION": "mutants",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "CMAKE_CXX_FLAGS": f"-w -include {folder / 'source/mutant.h'}",
    }
    arguments = [f"-D{name}={value}" for name, value in definitions.items()]
    configure = ["cmake", "-S", str(folder / "source"), "-B", str(folder), "-G", "Ninja"]
    configure += ["--log-level=WARNING", *arguments]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    targets = [f"{what}_{kind}" for kind in ("plain", "thread") for what in ("module", "selftest")]
    compile_all = ["cmake", "--build", str(folder), "--parallel", str(jobs), "--target", *targets]
    subprocess.run([*compile_all, "--", "--quiet"], check=True)


def tests_of(folder: Path) -> List[Test]:
    """Return the tests of a build: the correct examples one by one, and the suites."""
    selftest = folder / "plain" / "selftest"
    listing = subprocess.run([str(selftest)], check=True, stdout=subprocess.PIPE, text=True).stdout
    cases = [line.split()[0] for line in listing.splitlines() if line.endswith(" pass")]
    tests = [
        Test(case, (str(folder / kind / "selftest"), case), kind, schedule, {})
        for case in cases
        for kind, schedule in [THREAD, *PLAIN]
    ]
    for path, runs in SUITES.items():
        pytest = [sys.executable, "-m", "pytest", "-x", "-v", "--tb=short", "--capture=no"]
        plugins = ["-p", "emulated_library", "-p", "no:cacheprovider"]
        command = (*pytest, *plugins, str(path))
        for kind, schedule in runs:
            environment = {**_library(folder / kind), "FASTRNN_ALGORITHM": "stepwise"}
            tests.append(Test(path.name, command, kind, schedule, environment))
    return tests


def _library(folder: Path) -> Dict[str, str]:
    (library,) = folder.glob("_C*.so")
    environment = {
        "FASTRNN_EMULATED_LIBRARY": str(library),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT / HERE)]),
    }
    if folder.name == "thread":  # its runtime has to be in the process before Python is
        compiler = os.environ.get("CXX", "g++")
        find = [compiler, "-print-file-name=libtsan.so"]
        result = subprocess.run(find, check=True, stdout=subprocess.PIPE, text=True)
        environment["LD_PRELOAD"] = result.stdout.strip()
    return environment


def main() -> int:
    """Build, run, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="sites whose 'path:line name' contains this")
    parser.add_argument("--all", action="store_true", help="name every test that notices")
    arguments = parser.parse_args()
    folder = ROOT / "build" / "mutants"
    sites = copy_instrumented(folder / "source")
    build(folder, arguments.jobs)
    chosen = [(k, site) for k, site in enumerate(sites) if arguments.only in str(site)]
    if not chosen:
        sys.exit(f"none of {len(sites)} sites contains '{arguments.only}'")
    passing = baselines(tests_of(folder), arguments.jobs)
    good = judge(chosen, passing, arguments.jobs, arguments.all)
    print(f"{len(chosen)} sites: {'every one is accounted for' if good else 'see BAD above'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
