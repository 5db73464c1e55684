"""Checks fastrnn on a machine with an NVIDIA GPU, and writes down what came of it.

    python tests/gpu/gpu_check.py OUT [--mxnet FILE] [--limit SECONDS] [--commit COMMIT]

Nothing is fetched: the package is built with what this Python has (setuptools, CMake, pybind11,
NumPy) and the machine's nvcc, into build/gpu-check, for the architecture of the first GPU unless
FASTRNN_CUDA_ARCHITECTURES says otherwise. The steps are the tests of the kernels on the GPU, the
operator inside MXNet, `fastrnn check --full`, whose verdict the benchmarks need, the comparison
with cuDNN's layers, the quick part of the benchmarks, and small layers under each tool of
compute-sanitizer, which take long. No step takes longer than SECONDS, 300 by default, but for
`fastrnn check`, which has a limit of its own: a kernel that hangs shall not keep the machine from
the other steps.

The operator needs an MXNet that sees the GPU. Where this Python has none, FILE is a shell script
that brings one: it is sourced before the build and before that step, not before the others.

OUT receives gpu-check.md (a table), gpu-check.log (everything that was printed) and
benchmarks.json. The exit status is 1 if a step failed, and 2, with one line that says why, if there
was no GPU or fastrnn saw none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, TextIO, Tuple

ROOT = Path(__file__).resolve().parents[2]
# At the end: in front of an installed fastrnn there would be one that is not built.
sys.path.append(str(ROOT))
from bench import machine

LIMIT = 300.0  # seconds of a step
CHECK_LIMIT = 660.0  # of `fastrnn check --full`, which aims at 580
SITE = ROOT / "build" / "gpu-check" / "site"
SANITIZER_TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
# A test that hangs is named by its line, which has no end, and says where it is.
PYTEST = (sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider")
PYTEST += ("-o", "faulthandler_timeout=60")
GRACE = 20.0  # of a step's seconds, what the benchmarks' last row may have
SANITIZER_STATUS = "86"  # the exit status where compute-sanitizer found something
# Lines that say how a step ended.
SUMMARY = re.compile(r"^(?:=+ )?(\d+ (?:passed|failed|error).*?|\w+ SUMMARY: .*?)(?: =+)?$")
VERSIONS = """
import json, numpy, re, torch
import fastrnn._C as library
cudnn = torch.backends.cudnn.version()
cublas = re.search(r"/\\S*/libcublas\\.so\\S*", open("/proc/self/maps").read())
versions = [numpy.__version__, torch.__version__, cudnn, cublas and cublas.group()]
print(json.dumps([library.build_info(), library.cuda_devices(), *versions]))
"""
# Ends well where MXNet loads and sees a GPU.
SEES_GPU = """
import sys
from fastrnn.mxnet import import_mxnet
sys.exit(not import_mxnet().context.num_gpus())
"""


class CannotCheckError(Exception):
    """There is no GPU, or something that every step needs is missing."""


@dataclass(frozen=True)
class Step:
    """A command, or the reason why it is not run."""

    name: str
    command: Tuple[str, ...] = ()
    reason: Optional[str] = None
    limit: Optional[float] = None  # seconds, if not those of all steps


@dataclass(frozen=True)
class Outcome:
    """What became of a step: passed, failed or not run."""

    step: str
    result: str
    details: str
    seconds: float


def find_gpu() -> Dict[str, str]:
    """Return name, driver, memory and compute capability of the first GPU.

    Raises
    ------
    CannotCheckError
        If there is none.
    """
    fields = {
        "device": "name",
        "driver": "driver_version",
        "memory": "memory.total",
        "compute capability": "compute_cap",
    }
    command = ["nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        raise CannotCheckError("there is no GPU here: nvidia-smi was not found")
    result = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    first = (result.stdout.strip().splitlines() or ["nothing"])[0]
    values = [value.strip() for value in first.split(",")]
    if result.returncode != 0 or len(values) != len(fields):
        raise CannotCheckError(f"there is no GPU here: nvidia-smi says {first!r}")
    return dict(zip(fields, values))


def beside_mxnet(script: Optional[Path], *command: str) -> Tuple[str, ...]:
    """Return the command that runs `command` once the script that brings MXNet was sourced."""
    if script is None:
        return command
    return ("bash", "-c", '. "$0" && exec "$@"', str(script), *command)


def build_step(mxnet: Optional[Path] = None) -> Step:
    """Return the step that puts the package where the others look for it."""
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--upgrade", "--target"]
    command = (sys.executable, "-m", "pip", "install", *options, str(SITE), str(ROOT))
    return Step("build", beside_mxnet(mxnet, *command))


def operator_step(mxnet: Optional[Path], pytest: Sequence[str]) -> Step:
    """Return the step that calls the operator inside MXNet, on the GPU."""
    name, test = "MXNet operator", str(ROOT / "tests" / "gpu" / "test_mxnet_operator.py")
    look = beside_mxnet(mxnet, sys.executable, "-c", SEES_GPU)
    found = subprocess.run(
        look, check=False, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if found.returncode != 0:
        said = (found.stdout.strip().splitlines() or ["MXNet sees no GPU"])[-1]
        return Step(name, reason=f"{said}; --mxnet may bring an MXNet that sees the GPU")
    return Step(name, beside_mxnet(mxnet, *pytest, test))


def test_steps(out: Path, mxnet: Optional[Path] = None, limit: float = LIMIT) -> List[Step]:
    """Return the steps after the build, of so many seconds each; those that cannot run say why."""
    tests, pytest = ROOT / "tests", PYTEST
    small = str(tests / "emulator" / "small_layers.py")
    persistent = str(tests / "emulator" / "small_persistent.py")
    names = ["kernels", "device_arrays", "persistent"]
    names += [f"kernels_{part}" for part in ("cuda", "layers", "lengths", "out")]
    suites = [str(tests / "kernels" / f"test_{name}.py") for name in names]
    graphs = str(tests / "gpu" / "test_graphs.py")
    steps = [Step("kernels", (*pytest, *suites, small, graphs))]
    stepwise = ("env", "FASTRNN_ALGORITHM=stepwise")
    steps.append(Step("kernels, stepwise", (*stepwise, *pytest, *suites[:1], *suites[3:], small)))
    steps.append(operator_step(mxnet, pytest))
    checked = beside_mxnet(mxnet, sys.executable, "-m", "fastrnn", "check", "--full")
    steps.append(Step("fastrnn check", (*checked, "--device", "gpu:0"), limit=CHECK_LIMIT))
    steps.append(Step("cuDNN", (*pytest, str(tests / "gpu" / "test_cudnn.py"))))
    waits = ("-m", "bench.limits.synchronization", "--out", str(out / "synchronization.md"))
    steps.append(Step("synchronization", ("env", f"PYTHONPATH={ROOT}", sys.executable, *waits)))
    results = ("--results", str(out / "benchmarks.json"), "--device", "cuda")
    results += ("--limit", str(max(limit - GRACE, limit / 2)))
    steps.append(Step("benchmarks", (*pytest, str(ROOT / "bench"), *results)))
    found = shutil.which("compute-sanitizer")
    reason = None if found else "compute-sanitizer was not found"
    for tool in SANITIZER_TOOLS:
        sanitizer = (str(found), "--tool", tool, "--error-exitcode", SANITIZER_STATUS)
        steps.append(Step(tool, (*stepwise, *sanitizer, *pytest, small, persistent), reason))
    return steps


def environment(gpu: Mapping[str, str]) -> Dict[str, str]:
    """Return the environment of the steps. The oracle is float64, so products are IEEE float32."""
    paths = [SITE, ROOT / "tests"]
    inherited = os.environ.get("PYTHONPATH")
    return {
        "FASTRNN_CUDA_ARCHITECTURES": gpu["compute capability"].replace(".", ""),
        **os.environ,
        "FASTRNN_CUDA": "1",
        "FASTRNN_TF32": "0",
        "PYTHONPATH": os.pathsep.join([*map(str, paths), *([inherited] if inherited else [])]),
    }


def status_within(limit: float, command: Sequence[str], **options: Any) -> Optional[int]:
    """Run a command; its exit status, or None where it was ended as it outlasted the limit.

    Ended is all that it started: a test's own processes may be what hangs.
    """
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None
        except BaseException:  # an interrupt reaches this process alone
            os.killpg(process.pid, signal.SIGKILL)
            raise


def end_with_steps() -> None:
    """Have SIGTERM end what is running as an interrupt does, and not this process alone."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def run(step: Step, variables: Mapping[str, str], log: TextIO, limit: float = LIMIT) -> Outcome:
    """Run a step; what it prints goes to the log."""
    if step.reason:
        return Outcome(step.name, "not run", step.reason, 0.0)
    log.write(f"\n== {step.name}: {' '.join(step.command)}\n")
    log.flush()
    limit = step.limit or limit
    begin, offset = time.monotonic(), log.tell()
    # In the tests' folder: the project's root holds a fastrnn that is not built.
    status = status_within(
        limit,
        step.command,
        cwd=ROOT / "tests",
        env=dict(variables),
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    seconds = time.monotonic() - begin
    with open(log.name, encoding="utf-8", errors="replace") as written:
        written.seek(offset)
        summaries = [SUMMARY.match(line.strip("= \n")) for line in written]
    details = [match.group(1) for match in summaries if match]
    if status is None:
        details.append(f"took longer than {limit:g} seconds")
    elif status != 0:
        details.append(f"exit status {status}")
    return Outcome(step.name, "passed" if status == 0 else "failed", "; ".join(details), seconds)


def facts(gpu: Mapping[str, str], commit: str) -> Dict[str, Any]:
    """Return what the table says of machine and sources; the versions come after the build.

    Raises
    ------
    CannotCheckError
        If neither git nor an option tells the commit.
    """
    commit = commit or machine.commit()
    if commit == machine.UNKNOWN:
        raise CannotCheckError("git cannot tell the commit here: say it with COMMIT= or --commit")
    return {
        **gpu,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit,
        "Python": platform.python_version(),
    }


def versions(variables: Mapping[str, str]) -> Dict[str, Any]:
    """Ask the built package, NumPy and PyTorch for their versions.

    Raises
    ------
    CannotCheckError
        If the package does not load, or sees no GPU: its tests would pass by on another device.
    """
    result = subprocess.run(
        [sys.executable, "-c", VERSIONS],
        check=False,
        cwd=ROOT / "tests",
        env=dict(variables),
        stdout=subprocess.PIPE,
        text=True,
    )
    if result.returncode != 0:
        raise CannotCheckError("fastrnn was built, but does not load: see above")
    built, devices, numpy, torch, cudnn, cublas = json.loads(result.stdout)
    if not devices["devices"]:
        raise CannotCheckError(f"fastrnn sees no GPU: {devices['error']}")
    return {
        "CUDA toolkit": built["cuda_toolkit"],
        "architectures": " ".join(built["cuda_architectures"]),
        "compiler": built["compiler"],
        "NumPy": numpy,
        "PyTorch": torch,
        "cuDNN": cudnn,
        "cuBLAS": cublas,
    }


def table(about: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    """Return the report in Markdown."""
    lines = ["# gpu-check", "", "| | |", "|---|---|"]
    lines += [
        f"| {name} | {value if value is not None else 'none'} |" for name, value in about.items()
    ]
    lines += ["", "| step | result | seconds | |", "|---|---|---|---|"]
    for o in outcomes:
        lines.append(f"| {o.step} | {o.result} | {o.seconds:.1f} | {o.details.replace('|', ' ')} |")
    return "\n".join(lines) + "\n"


def write_report(out: Path, about: Mapping[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write the report, whole or not at all."""
    unfinished = out / "gpu-check.md.part"
    unfinished.write_text(table(about, outcomes), encoding="utf-8")
    os.replace(unfinished, out / "gpu-check.md")


def check(
    out: Path,
    commit: str = "",
    mxnet: Optional[Path] = None,
    limit: float = LIMIT,
    only: Sequence[str] = (),
) -> int:
    """Do everything, writing the report after each step: the next one may outlast its machine.

    Parameters
    ----------
    only
        Names of the steps to take after the build; none: all.
    """
    gpu = find_gpu()
    about = facts(gpu, commit)
    out.mkdir(parents=True, exist_ok=True)
    steps = test_steps(out, mxnet, limit)
    unknown = set(only) - {step.name for step in steps}
    if unknown:
        known = ", ".join(step.name for step in steps)
        raise CannotCheckError(f"--only has {', '.join(sorted(unknown))}, expected of {known}")
    steps = [step for step in steps if not only or step.name in only]
    if any(step.name == "benchmarks" for step in steps):
        # They would go on with it, and this is another check.
        (out / "benchmarks.json").unlink(missing_ok=True)
    variables = {**environment(gpu), "BENCH_COMMIT": about["commit"]}
    outcomes: List[Outcome] = []
    with open(out / "gpu-check.log", "w", encoding="utf-8") as log:
        for step in [build_step(mxnet), *steps]:
            outcomes.append(run(step, variables, log, limit))
            if step.name == "build" and outcomes[-1].result == "passed":
                write_report(out, about, outcomes)  # versions may fail
                about.update(versions(variables))
                # Without PyTorch in the process there may be no other cuBLAS to find.
                if about["cuBLAS"] is not None:
                    variables.setdefault("FASTRNN_CUBLAS", about["cuBLAS"])
            write_report(out, about, outcomes)
            print(f"{step.name}: {outcomes[-1].result} {outcomes[-1].details}", flush=True)
            if step.name == "build" and outcomes[-1].result == "failed":
                break
    return 1 if any(outcome.result == "failed" for outcome in outcomes) else 0


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Check, and say in one line what stood in the way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the reports")
    parser.add_argument("--commit", default="", help="what the sources are, where git cannot tell")
    parser.add_argument("--mxnet", type=Path, metavar="FILE", help="shell script that brings MXNet")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, metavar="SECONDS", help="of a step, 300 by default"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="STEP",
        help="a step to take; may be given again",
    )
    given = parser.parse_args(arguments)
    end_with_steps()
    try:
        if not given.limit > 0:
            raise CannotCheckError(f"--limit is {given.limit}, expected more than 0 seconds")
        mxnet = given.mxnet and given.mxnet.resolve()
        if mxnet and not mxnet.is_file():
            raise CannotCheckError(f"--mxnet is {mxnet}, expected a shell script")
        return check(given.out.resolve(), given.commit, mxnet, given.limit, given.only)
    except CannotCheckError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
