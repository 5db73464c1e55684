"""The order of things in ``fastrnn check``."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from fastrnn import _native
from fastrnn.check import classes, kernels, processes, rates, threads, timing
from fastrnn.check.classes import Found, KernelClass, Sizes
from fastrnn.check.kernels import Effort
from fastrnn.check.kinds import (
    CPU,
    MATHS,
    Device,
    Kind,
    maths_of,
    optional_kinds,
    plain_kinds,
    usual_maths,
)
from fastrnn.check.processes import Job, Outcome
from fastrnn.check.report import Report, as_json, lines
from fastrnn.check.timing import Timed
from fastrnn.check.verdict import (
    FAILED,
    PASSED,
    UNFINISHED,
    Verdict,
    identity_of,
    load,
    path_of,
    processors,
    save,
)

Progress = Callable[[str], None]
Runner = Callable[[Sequence[Job]], Iterator[Outcome]]


@dataclass(frozen=True)
class Scale:
    """How much is checked, and in what time."""

    seconds: float  # for everything
    kernels_share: float  # of the time; the rest is for timing
    sizes: Sizes = field(default_factory=Sizes)
    effort: Effort = field(default_factory=Effort)
    timed: Timed = field(default_factory=Timed)
    rate_steps: int = 2000  # of a layer that measures the cost model's constants


# The numbers of repetitions hold for both: an ordering fault shows itself rarely.
SHORT = Scale(55.0, 0.6, timed=Timed(rounds=3, seconds=0.01))
FULL = Scale(
    580.0, 0.7, effort=Effort(every_kernel=True), timed=Timed(hidden=(64, 256, 512, 1024, 2048))
)
# A plan of the CPU's takes longer than one of a GPU's, and its times decide nothing.
_ON_CPU = Sizes(rows=(1, 5, 16, 32, 256), hidden=(16, 97, 160, 225, 288, 385, 512, 2048))
_TIMED_ON_CPU = Timed(steps=40, hidden=(32, 256), rounds=3, seconds=0.01)
SHORT_CPU = Scale(55.0, 0.6, _ON_CPU, timed=_TIMED_ON_CPU)
FULL_CPU = Scale(580.0, 0.6, _ON_CPU, timed=_TIMED_ON_CPU)


def scale_for(device: Device, full: bool) -> Scale:
    """Return what ``--full`` or its absence means on a device."""
    if device == CPU:
        return FULL_CPU if full else SHORT_CPU
    return FULL if full else SHORT


def devices_for(name: str) -> List[Device]:
    """Return the devices that ``--device`` names: of several GPUs of one model, the first.

    Raises
    ------
    ValueError
        It names none, or one that is not here.
    """
    library = _native.library()
    found = library.cuda_devices()
    gpus = found["devices"]
    number = name[len("gpu:") :] if name.startswith("gpu:") else ""
    if name == CPU or (name == "auto" and not gpus):
        if library.build_info()["onednn"] is None:
            raise ValueError("device: got cpu, but the native library was built without oneDNN")
        return [CPU]
    if number.isdigit() or name in ("gpu", "auto"):
        if not gpus:
            reason = found["error"] or "no GPU"
            raise ValueError(f"device: got {name}, but the native library sees none: {reason}")
        if not number:
            models = [(gpu["name"], gpu["multiprocessors"]) for gpu in gpus]
            return [models.index(model) for model in dict.fromkeys(models)]
        if int(number) < len(gpus):
            return [int(number)]
    raise ValueError(f"device: got {name}, expected cpu, gpu or gpu:0 to gpu:{len(gpus) - 1}")


def check(
    device: Device,
    scale: Scale,
    kinds: Optional[Sequence[Kind]] = None,
    run: Runner = processes.isolated,
    progress: Progress = lambda text: None,
    machine: bool = True,
) -> Report:
    """Check a device's kernels, then time its layers.

    Parameters
    ----------
    kinds
        Of layers; all by default.
    run
        How jobs are run.
    progress
        Is told what is being done.
    machine
        Whether to measure what concerns all layers: the cost model's constants, or the threads.
    """
    begin = time.monotonic()
    kinds = kinds_for(device, True) if kinds is None else list(kinds)
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    verdict = Verdict(identity_of(device), date)
    report = Report(verdict, kinds, 0.0)
    found = {kind: classes.find(kind, device, scale.sizes, scale.effort.steps) for kind in kinds}
    jobs = _Jobs(run, progress, begin)
    _check_classes(report, found, device, scale, jobs)
    _time_layers(report, device, scale, jobs)
    if machine:
        _measure_machine(report, device, scale, jobs)
    report.seconds = time.monotonic() - begin
    return report


@dataclass
class _Jobs:
    """Runs jobs until the time is up."""

    runner: Runner
    progress: Progress
    begin: float

    def run(
        self, jobs: Sequence[Job], names: Sequence[str], until: Optional[float]
    ) -> List[Optional[Outcome]]:
        """Return the outcomes; None for a job that there was no time for."""
        outcomes: List[Optional[Outcome]] = []
        running = self.runner(jobs)
        for number, name in enumerate(names):
            if until is not None and time.monotonic() - self.begin > until:
                break
            self.progress(f"{number + 1} of {len(jobs)}: {name}")
            outcomes.append(next(running))
        close = getattr(running, "close", None)
        if close is not None:
            close()
        return outcomes + [None] * (len(jobs) - len(outcomes))


def _check_classes(
    report: Report, found: Dict[Kind, Found], device: Device, scale: Scale, jobs: _Jobs
) -> None:
    every: List[Tuple[KernelClass, Any]] = [
        entry for kind in report.kinds for entry in found[kind].items()
    ]
    outcomes = jobs.run(
        [partial(kernels.check, cls, tuple(v), device, scale.effort) for cls, v in every],
        [str(cls) for cls, _ in every],
        scale.seconds * scale.kernels_share,
    )
    for (cls, _), outcome in zip(every, outcomes):
        entry = [UNFINISHED, "no time was left"] if outcome is None else _entry(outcome)
        report.verdict.classes.setdefault(str(cls.kind), {})[str(cls)] = entry


def _entry(outcome: Outcome) -> List[str]:
    return [PASSED, ""] if outcome.error is None else [FAILED, outcome.error]


def _time_layers(report: Report, device: Device, scale: Scale, jobs: _Jobs) -> None:
    """Run the layers of kinds that have passed, inside MXNet."""
    types = _operator_types(device)
    kinds = [
        kind
        for kind in report.kinds
        if MATHS[kind.math][0] in types and report.verdict.result(kind)[0] == PASSED
    ]
    work = [partial(timing.check, kind, device, scale.timed) for kind in kinds]
    names = [f"{kind}, against MXNet's" for kind in kinds]
    for kind, outcome in zip(kinds, jobs.run(work, names, scale.seconds)):
        if outcome is None:
            continue
        if outcome.error is not None:
            name = f"{kind}, MXNet's operator"
            report.verdict.classes[str(kind)][name] = [FAILED, outcome.error]
        else:
            report.verdict.times[str(kind)] = outcome.value


def _measure_machine(report: Report, device: Device, scale: Scale, jobs: _Jobs) -> None:
    if device == CPU:
        seconds, rounds = scale.timed.seconds, scale.timed.rounds
        job: Job = partial(threads.measure, processors(), seconds, rounds)
        what = "the number of threads"
    else:
        job = partial(rates.measure, int(device), scale.rate_steps)
        what = "the cost model's constants"
    (outcome,) = jobs.run([job], [what], None)
    if outcome is None or outcome.error is not None:
        return
    if device == CPU:
        report.threads = outcome.value
        report.verdict.threads = outcome.value.chosen
    else:
        report.verdict.rates.update(outcome.value)


def _operator_types(device: Device) -> Sequence[str]:
    """Return the types that MXNet's operator has here; none where there is no such operator."""
    try:
        from fastrnn.mxnet import native
    except ImportError:
        return ()
    on_device = (device != CPU) == native.ON_CUDA
    return native.STATUS.types if native.STATUS.usable and on_device else ()


def kept(verdict: Verdict, device: Device) -> Verdict:
    """Return what to keep after a check: with what an earlier one found, and this did not reach."""
    before = load(device).verdict
    return verdict if before is None else before.merged(verdict)


def kinds_for(device: Device, full: bool, text: str = "") -> List[Kind]:
    """Return the kinds of layers to check.

    Parameters
    ----------
    full
        All; otherwise the plain ones that MXNet's layers use, which come first.
    text
        Is in the names of all of them.

    Raises
    ------
    ValueError
        There is none.
    """
    usual = usual_maths(device)
    others = [math for math in maths_of(device) if math not in usual]
    found = plain_kinds(usual)
    first = found[0]
    if full or text:
        found += optional_kinds(usual)
        found += plain_kinds(others) + optional_kinds(others)
    found = [kind for kind in found if text in str(kind)]
    if not found:
        raise ValueError(f"only: got {text!r}, expected a part of a name such as '{first}'")
    return found


def main(options: Any) -> bool:
    """Run the command line's ``check``, and return whether a class failed.

    Raises
    ------
    ValueError
        An option that this machine cannot serve.
    fastrnn.lm.errors.FileError
        The verdict could not be kept; the report has been printed.
    """
    from fastrnn.lm.errors import FileError

    failed, documents = False, []
    unsaved: Optional[Exception] = None
    for device in devices_for(options.device):
        with _bar() as progress:
            kinds = kinds_for(device, options.full, options.only)
            scale = scale_for(device, options.full)
            report = check(
                device, scale, kinds, processes.isolated, progress, machine=not options.only
            )
        path: Optional[Path] = path_of(report.verdict.identity)
        try:
            save(kept(report.verdict, device))
        except FileError as error:
            unsaved, path = error, None
        failed = failed or report.failed
        if options.json:
            documents.append(as_json(report, device, path))
        else:
            print(*lines(report, device, path), sep="\n", flush=True)
    if options.json:
        print(json.dumps({"checks": documents}))
    if unsaved is not None:
        raise unsaved
    return failed


@contextmanager
def _bar() -> Iterator[Progress]:
    """Show on a terminal, in one line of stderr, what is being done."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    try:
        yield lambda text: print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
