"""Options, and the session that all rows share."""

from __future__ import annotations

import os
import sys
import time
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _find_sources() -> None:
    """Make these sources importable, behind an installed fastrnn unless they are built.

    ``python -m pytest`` puts the working folder first, where sources that are not built would hide
    the fastrnn that is installed.
    """
    libraries = (ROOT / "fastrnn" / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES)
    if not any(library.exists() for library in libraries):
        sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
        installed = find_spec("fastrnn")
        if installed is not None and installed.origin:  # an editable one may be on no path
            sys.path.append(str(Path(installed.origin).parents[1]))
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))


_find_sources()

from bench import machine
from bench.cases import grid
from bench.limits import roofline
from bench.peers import MissingPeerError, all_peers, present
from bench.report import table
from bench.results import OtherResultsError, Store

# Seconds to spend on timing one row: in general, and of a GPU's full grid, since a GPU may be there
# for half an hour only.
BUDGET, FULL_BUDGET = 5.0, 1.5
QUICK = 270.0  # seconds that the quick part aims at, of the 300 that it may take
MARGIN = 10.0  # seconds that it aims to end before the time after which no row begins
LEAST_BUDGET = 0.25  # of one of its rows, when these have been taken up


class Session:
    """Who takes part, what the machine reaches, and the rows so far."""

    def __init__(
        self,
        device: str,
        path: Optional[Path],
        limit: Optional[float],
        full: bool,
        names: List[str],
    ):
        self.device, self._full, self._names = device, full, names
        now = time.monotonic()
        self._ends = None if limit is None else now + limit
        self._aim = now + QUICK if limit is None else now + min(QUICK, limit - MARGIN)
        everyone = all_peers(device)
        self.peers = present(device, everyone)
        self.missing = {
            peer.name: peer.available(device) or "" for peer in everyone if peer not in self.peers
        }
        self.store = Store(path, machine.about(device, self.peers, self.missing))
        self.left = 0
        self._peaks: Optional[roofline.Found] = None
        self._given: List[float] = []  # to the rows so far, in seconds
        self._begun: List[float] = []

    @property
    def peaks(self) -> Dict[str, roofline.Peaks]:
        """Measured when the first row needs them."""
        if self._peaks is None:
            self._peaks = roofline.measure_peaks(self.device)
            about = self.store.about
            about["peaks"] = {name: p._asdict() for name, p in self._peaks.peaks.items()}
            about["notes"] = self._peaks.notes
            if self.device == "cuda":  # the products have loaded it
                about["cuBLAS"] = machine.cublas()
        return self._peaks.peaks

    def budget(self) -> float:
        """Seconds to spend on timing the next row.

        In the quick part that is a row's share of the time, less what a row takes for everything
        but timing: building, checking, measuring memory. This is the average of the rows before, or
        of the latest two where these took more.
        """
        if self._full:
            return FULL_BUDGET if self.device == "cuda" else BUDGET
        self._begun.append(time.monotonic())
        took = [end - begun for begun, end in zip(self._begun, self._begun[1:])]
        besides = [max(0.0, t - given) for t, given in zip(took, self._given)]
        each = max(sum(b) / max(1, len(b)) for b in (besides, besides[-2:]))
        rows = sum(not self.store.done(name) for name in self._names)
        share = (self._aim - self._begun[-1]) / rows - each
        self._given.append(max(LEAST_BUDGET, min(BUDGET, share)))
        return self._given[-1]

    def out_of_time(self) -> bool:
        """Whether no further row may begin."""
        return self._ends is not None and time.monotonic() > self._ends


_SESSION = pytest.StashKey[Session]()


def _measured() -> str:
    """The file of fastrnn that is measured."""
    package = find_spec("fastrnn")
    if package is None:
        return "not installed"
    return str((find_spec("fastrnn._C") or package).origin)


def _device(config: pytest.Config) -> str:
    return config.getoption("device") or ("cuda" if machine.has_gpu() else "cpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks")
    group.addoption("--full", action="store_true", help="the whole grid, not the quick part")
    group.addoption("--results", type=Path, metavar="FILE", help="JSON to write, or to go on with")
    group.addoption("--limit", type=float, metavar="SECONDS", help="begin no row after that")
    group.addoption("--device", choices=["cpu", "cuda"], help="by default cuda where there is one")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = grid(_device(metafunc.config), metafunc.config.getoption("full"))
        metafunc.parametrize("case", cases, ids=lambda case: case.name.replace(" ", "-"))


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Session:
    """What all rows share; without those who are mandatory there is none."""
    path, limit, full = (pytestconfig.getoption(name) for name in ("results", "limit", "full"))
    try:
        items: List[Any] = request.session.items
        names = [i.callspec.params["case"].name for i in items if "case" in i.fixturenames]
        made = Session(_device(pytestconfig), path, limit, full, names)
    except (MissingPeerError, OtherResultsError) as error:
        pytest.exit(str(error), returncode=2)
    pytestconfig.stash[_SESSION] = made
    return made


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    write = terminalreporter.write_line
    write(f"fastrnn: {_measured()}")
    session = config.stash.get(_SESSION, None)
    if session is None:
        return
    about = session.store.about
    write(f"{about['device']}; threads: {about['threads']}")
    for line in table(session.store.rows):
        write(line)
    for name, reason in session.missing.items():
        write(f"{name} did not take part: {reason}")
    for failure in session.store.failures():
        write(f"failed: {failure}")
    if session.left:
        write(f"{session.left} rows are left: run it again with the same --results")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    made = session.config.stash.get(_SESSION, None)
    if made is None or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return
    # Rows of earlier runs are not measured again, and still count.
    if made.store.failures():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    elif made.left:
        session.exitstatus = os.EX_TEMPFAIL
