"""Options, and the session that all rows share."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

# At the end: in front of an installed fastrnn there would be one that is not built.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import machine
from bench.budget import BUDGET, FULL_BUDGET, QuickBudget
from bench.cases import grid
from bench.peers import MissingPeerError, all_peers, present
from bench.results import OtherResultsError, Store


class Session:
    """Who takes part, what the machine reaches, and the rows so far."""

    def __init__(self, device, path, limit, full, names):
        self.device, self._full, self._names = device, full, names
        self.ends = None if limit is None else time.monotonic() + limit
        self._quick = QuickBudget(limit)
        everyone = all_peers(device)
        self.peers = present(device, everyone)
        self.missing = {
            peer.name: peer.available(device) for peer in everyone if peer not in self.peers
        }
        about = machine.about(device, self.peers, self.missing)
        self.store = Store(path, about)
        self.left = 0
        self._peaks = None

    @property
    def peaks(self):
        """Measured when the first row needs them."""
        if self._peaks is None:
            from bench import peaks

            found = peaks.measure(self.device)
            self._peaks = found.peaks
            self.store.about["peaks"] = {k: v._asdict() for k, v in found.peaks.items()}
            self.store.about["notes"] = found.notes
            if self.device == "cuda":  # the products have loaded it
                self.store.about["cuBLAS"] = machine.cublas()
        return self._peaks

    def budget(self):
        """Seconds to spend on timing the next row."""
        if self._full:
            return FULL_BUDGET if self.device == "cuda" else BUDGET
        rows = sum(not self.store.done(name) for name in self._names)
        return self._quick.next(rows)

    def out_of_time(self):
        return self.ends is not None and time.monotonic() > self.ends


_SESSION = pytest.StashKey[Session]()


def _device(config):
    return config.getoption("device") or ("cuda" if machine.has_gpu() else "cpu")


def pytest_addoption(parser):
    group = parser.getgroup("benchmarks")
    group.addoption("--full", action="store_true", help="the whole grid, not the quick part")
    group.addoption("--results", type=Path, metavar="FILE", help="JSON to write, or to go on with")
    group.addoption("--limit", type=float, metavar="SECONDS", help="begin no row after that")
    group.addoption("--device", choices=["cpu", "cuda"], help="by default cuda where there is one")


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        cases = grid(_device(metafunc.config), metafunc.config.getoption("full"))
        metafunc.parametrize("case", cases, ids=lambda case: case.name.replace(" ", "-"))


@pytest.fixture(scope="session")
def session(request, pytestconfig):
    """What all rows share; without those who are mandatory there is none."""
    options = [pytestconfig.getoption(name) for name in ("results", "limit", "full")]
    try:
        items = [item for item in request.session.items if "case" in item.fixturenames]
        names = [item.callspec.params["case"].name for item in items]
        made = Session(_device(pytestconfig), *options, names)
    except (MissingPeerError, OtherResultsError) as error:
        pytest.exit(str(error), returncode=2)
    pytestconfig.stash[_SESSION] = made
    return made


def pytest_terminal_summary(terminalreporter, config):
    session = config.stash.get(_SESSION, None)
    if session is None:
        return
    from bench.report import table

    write = terminalreporter.write_line
    write("")
    write(f"{session.store.about['device']}; threads: {session.store.about['threads']}")
    for line in table(session.store.rows):
        write(line)
    for name, reason in session.missing.items():
        write(f"{name} did not take part: {reason}")
    for failure in session.store.failures():
        write(f"failed: {failure}")
    if session.left:
        write(f"{session.left} rows are left: run it again with the same --results")


def pytest_sessionfinish(session, exitstatus):
    made = session.config.stash.get(_SESSION, None)
    if made is None or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return
    # Rows of earlier runs are not measured again, and still count.
    if made.store.failures():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    elif made.left:
        session.exitstatus = os.EX_TEMPFAIL
