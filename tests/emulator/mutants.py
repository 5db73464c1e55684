"""Checks that the tests notice when a barrier, fence, wait, acquire or release is missing.

    python tests/emulator/mutants.py [--jobs N] [--only TEXT] [--all]

The tests run once with nothing left out, and say which of these primitives they reach (mutant.cc):
their names are known from that. Every call by such a name in the kernels, their host code and the
emulator's own correct examples is then left out in turn, while the tests that reach it run, one
after the other, until one fails. The exit status is 1 if a call can go unnoticed, unless a comment
`No mutant: REASON` there says why it has to, and also where such a comment is wrong.
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
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import builds

TARGETS = [f"{what}_{kind}" for kind in ("plain", "thread") for what in ("module", "selftest")]
# What orders memory; more is found by what the tests reach.
PRIMITIVES = {
    "ClusterBarrier",
    "ExpectBytes",
    "HasArrived",
    "InitByteBarrier",
    "LoadAcquire",
    "StoreRelease",
    "StoreToCluster",
    "WaitForBytes",
    "__syncthreads",
    "__syncwarp",
    "cudaStreamWaitEvent",
}
VOCABULARY = "csrc/cuda/runtime/device.cuh"  # what it has of these primitives is nvcc's
THREAD = ("thread", "random:3")
PLAIN = [("plain", schedule) for schedule in ("lifo", "random:1", "random:2", "fifo")]
# ThreadSanitizer comes first: a few cases are enough for it to see almost all of them.
SUITES: Sequence[Tuple[Tuple[str, ...], Sequence[Tuple[str, str]]]] = [
    (("small_persistent.py", "-k", "numbers0 or numbers4 or tagged"), [THREAD]),
    (("small_layers.py", "-k", "layer_norm and float32"), [THREAD]),
    (("calls.py",), [("plain", "fifo"), ("plain", "lifo")]),
    (("small_persistent.py",), [("plain", "random:1"), ("plain", "fifo")]),
    (("small_persistent.py", "-k", "clusters and lstm"), [THREAD]),
]


class Test(NamedTuple):
    """A program that exits with 0 if it notices nothing, in one build and schedule."""

    name: str
    command: Tuple[str, ...]
    build: str
    schedule: str

    def __str__(self) -> str:
        return f"{self.name} ({self.build}, {self.schedule})"


class Outcome(NamedTuple):
    """What became of a test; `at` is what it was at when it noticed something."""

    noticed: bool
    at: str
    seconds: float
    output: str


class Baseline(NamedTuple):
    """A test that passes as long as nothing is left out, and the names by place that it reaches."""

    test: Test
    seconds: float
    reached: Mapping[str, str]


class Site(NamedTuple):
    """A call of a primitive; `place` is FILE:LINE."""

    place: str
    name: str
    exception: Optional[str]

    def __str__(self) -> str:
        return f"{self.place} {self.name}"


def run(test: Test, timeout: Optional[float] = None, **variables: str) -> Outcome:
    """Run a test. One that does not end in time has noticed something."""
    begin = time.monotonic()
    environment = builds.environment(test.build, test.schedule)
    try:
        result = subprocess.run(
            test.command,
            cwd=builds.ROOT,
            env={**environment, "FASTRNN_ALGORITHM": "stepwise", **variables},
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
    """Run the tests with nothing left out, and learn which primitives each of them reaches.

    Raises
    ------
    SystemExit
        If one fails.
    """

    def measure(test: Test) -> Baseline:
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder, "reached")
            trace.touch()
            # Nor does it fail because there is a mutant: this one is nowhere.
            outcome = run(test, FASTRNN_MUTANTS_REACHED=str(trace), FASTRNN_MUTANT="nowhere:1")
            if outcome.noticed:
                sys.exit(f"{outcome.at} fails with nothing left out:\n{outcome.output}")
            lines = (line.split() for line in trace.read_text().splitlines())
            return Baseline(test, outcome.seconds, {place: name for name, place in lines})

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(measure, tests))


def find_sites(path: str, text: str, names: Set[str]) -> List[Site]:
    """Return the calls by these names in a source file."""
    call = re.compile(rf"\b({'|'.join(names)})\(")
    sites, lines = [], text.splitlines()
    for number, line in enumerate(lines, 1):
        for name in call.findall(line.partition("//")[0]):
            near = f"{lines[number - 2] if number > 1 else ''}\n{line}"
            exception = re.search(r"// No mutant: *(.*)", near)
            sites.append(Site(f"{path}:{number}", name, exception and exception.group(1)))
    return sites


def all_sites(passing: Sequence[Baseline]) -> List[Site]:
    """Return all calls of the primitives that the tests reach.

    Raises
    ------
    SystemExit
        If a test reaches a call that was not found, or a line has two, which one mutant would be.
    """
    reached = {place: name for baseline in passing for place, name in baseline.reached.items()}
    names = {name.split(".")[-1] for name in reached.values()}
    if PRIMITIVES - names:
        sys.exit(f"no test reaches {', '.join(sorted(PRIMITIVES - names))}")
    patterns = [f"csrc/cuda/**/*.{suffix}" for suffix in ("cu", "cuh", "h")]
    patterns.append("tests/emulator/selftest/selftest_[!m]*.cc")  # not those with mistakes
    files = [path for pattern in patterns for path in builds.ROOT.glob(pattern)]
    sites: Dict[str, Site] = {}
    for file in sorted(files):
        path = str(file.relative_to(builds.ROOT))
        if path == VOCABULARY:
            continue
        for site in find_sites(path, file.read_text(), names):
            if site.place in sites:
                sys.exit(f"{site.place} calls two primitives: write them on two lines")
            sites[site.place] = site
    unknown = set(reached) - set(sites)
    if unknown:
        sys.exit(f"tests reach what was not found in the sources: {sorted(unknown)}")
    return list(sites.values())


def judge(
    sites: Sequence[Site], passing: Sequence[Baseline], jobs: int, everything: bool = False
) -> bool:
    """Leave out each site in turn, and return whether every verdict is good."""

    def examine(site: Site) -> Tuple[bool, str]:
        reaching = [baseline for baseline in passing if site.place in baseline.reached]
        noticed: List[str] = []
        for baseline in reaching:
            outcome = run(baseline.test, 60 + 20 * baseline.seconds, FASTRNN_MUTANT=site.place)
            if outcome.noticed:
                noticed.append(outcome.at)
                if not everything:
                    break
        return verdict(site, len(reaching), noticed)

    all_good = True
    with ThreadPoolExecutor(jobs) as pool:
        for site, (good, text) in zip(sites, pool.map(examine, sites)):
            print(f"{'' if good else 'BAD: '}{site}: {text}", flush=True)
            all_good = all_good and good
    return all_good


def verdict(site: Site, reaching: int, noticed: Sequence[str]) -> Tuple[bool, str]:
    """Judge a site from how many tests reach it and which of them noticed that it was missing."""
    if noticed:
        wrong = "" if site.exception is None else ", although the comment there says that none does"
        return not wrong, f"noticed by {', '.join(noticed)}{wrong}"
    if site.exception:
        return True, f"not noticed: {site.exception}"
    if site.exception == "":
        return False, "the comment gives no reason"
    return False, f"not noticed by any of {reaching} tests" if reaching else "no test reaches it"


def all_tests() -> List[Test]:
    """Return the tests: the correct examples one by one, and the suites."""
    selftest = {kind: str(builds.BUILDS / kind / "selftest") for kind in ("plain", "thread")}
    listing = subprocess.check_output([selftest["plain"]], text=True)
    tests = [
        Test(case, (selftest[kind], case), kind, schedule)
        for case in (line.split()[0] for line in listing.splitlines() if line.endswith(" pass"))
        for kind, schedule in [THREAD, *PLAIN]
    ]
    for (name, *options), runs in SUITES:
        command = builds.pytest("-x", "-v", "--capture=no", str(builds.HERE / name), *options)
        tests += [Test(name, tuple(command), kind, schedule) for kind, schedule in runs]
    return tests


def main() -> int:
    """Build, run, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="sites whose 'path:line name' contains this")
    parser.add_argument("--all", action="store_true", help="name every test that notices")
    arguments = parser.parse_args()
    builds.build(arguments.jobs, TARGETS)
    passing = baselines(all_tests(), arguments.jobs)
    sites = all_sites(passing)
    chosen = [site for site in sites if arguments.only in str(site)]
    if not chosen:
        sys.exit(f"none of {len(sites)} sites contains '{arguments.only}'")
    good = judge(chosen, passing, arguments.jobs, arguments.all)
    print(f"{len(chosen)} sites: {'every one is accounted for' if good else 'see BAD above'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
