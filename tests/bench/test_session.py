"""A run of the benchmarks as a user has it: exit status, what is stored, and how it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FAST = {"fastrnn": {"mandatory": True}, "other": {}}
WRONG = {"fastrnn": {"mandatory": True, "wrong": 1}, "other": {}}


@pytest.fixture
def run(tmp_path):
    """Run the benchmarks with peers and options; the outcome has what was measured."""

    def bench(peers, *options, commit="abc"):
        seen = tmp_path / "seen"
        seen.write_text("")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
            "TINY_BENCH": json.dumps(peers),
            "TINY_SEEN": str(seen),
            "BENCH_COMMIT": commit,
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tiny_bench", "-p"]
        command += ["no:cacheprovider", str(ROOT / "bench"), "--device", "cpu", *options]
        outcome = subprocess.run(
            command,
            check=False,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        outcome.measured = seen.read_text().splitlines()
        return outcome

    return bench


def rows(path):
    return json.loads(path.read_text())["rows"]


def test_all_rows(run, tmp_path):
    path = tmp_path / "out" / "r.json"
    outcome = run(FAST, "--results", str(path))
    assert outcome.returncode == 0, outcome.stdout
    assert outcome.measured == ["2 on cpu", "3 on cpu", "4 on cpu"]
    assert "| gru 1x4 I=3 N=2 T=2 infer |" in outcome.stdout
    about = json.loads(path.read_text())["about"]
    assert about["notes"] == {"bandwidth": "made up"}
    assert about["peaks"]["float32"]["flops"] == 1e12
    again = run(FAST, "--results", str(path))
    assert again.returncode == 0
    assert again.measured == []


def test_rows_that_are_left(run, tmp_path):
    path = tmp_path / "r.json"
    outcome = run(FAST, "--results", str(path), "--limit", "0")
    assert outcome.returncode == os.EX_TEMPFAIL
    assert "3 rows are left: run it again with the same --results" in outcome.stdout


def test_a_failure_is_stored_and_stays_one(run, tmp_path):
    path = tmp_path / "r.json"
    first = run(WRONG, "--results", str(path), "-x")
    assert first.returncode == 1
    assert rows(path)[0]["failures"][0].startswith("fastrnn: wrong: output")
    # Both: one has failed before, and rows are left.
    both = run(FAST, "--results", str(path), "--limit", "0")
    assert both.returncode == 1
    assert both.measured == []
    assert "2 rows are left" in both.stdout
    rest = run(FAST, "--results", str(path))
    assert rest.returncode == 1
    assert rest.measured == ["3 on cpu", "4 on cpu"]
    assert "failed: gru 1x4 I=3 N=2 T=2 infer: fastrnn: wrong: output" in rest.stdout
    assert len(rows(path)) == 3


def test_a_gpu_that_failed_ends_the_run_and_the_next_goes_on(run, tmp_path):
    path = tmp_path / "r.json"
    outcome = run({**FAST, "bad": {"dies": True}}, "--results", str(path))
    assert outcome.returncode == 1
    assert outcome.measured == ["2 on cpu"]
    assert "the GPU fell off the bus" in outcome.stdout
    assert len(rows(path)) == 1
    assert run(FAST, "--results", str(path)).measured == ["3 on cpu", "4 on cpu"]


def test_someone_mandatory_is_missing(run):
    outcome = run({"fastrnn": {"mandatory": True, "reason": "not built"}})
    assert outcome.returncode == 2
    assert "a benchmark on the CPU needs fastrnn: not built" in outcome.stdout
    assert "Traceback" not in outcome.stdout


def test_results_of_nobody_knows_what(run, tmp_path):
    outcome = run(FAST, "--results", str(tmp_path / "r.json"), commit="unknown")
    assert outcome.returncode == 2
    assert "git cannot tell the commit here" in outcome.stdout
    assert run(FAST, commit="unknown").returncode == 0
