"""gpu_bench.py with stand-ins for the GPU, the build and the benchmarks."""

from __future__ import annotations

import json
import os
import signal
import sys

import gpu_bench
import gpu_check
import pytest

REMEMBERS = """
import json, os, sys
facts = {"arguments": sys.argv[1:], "commit": os.environ["BENCH_COMMIT"], "cwd": os.getcwd()}
open(os.environ["REMEMBERS"], "w").write(json.dumps(facts))
sys.exit(75)
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A GPU, a build that counts itself, and benchmarks of which rows are left."""
    gpu = {"device": "H100", "driver": "580", "memory": "80", "compute capability": "9.0"}
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: gpu)
    monkeypatch.setattr(gpu_check, "expect_tools", lambda: None)
    monkeypatch.setattr(gpu_bench, "STAMP", tmp_path / "site" / "commit")
    count = f"open({str(tmp_path / 'builds')!r}, 'a').write('x')"
    step = gpu_check.Step("build", (sys.executable, "-c", count))
    monkeypatch.setattr(gpu_check, "build_step", lambda: step)
    monkeypatch.setattr(gpu_check, "PYTEST", (sys.executable, "-c", REMEMBERS))
    monkeypatch.setenv("REMEMBERS", str(tmp_path / "seen"))
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def test_calls_go_on_until_no_row_is_left(machine):
    out = machine / "out"
    for _ in range(2):
        assert gpu_bench.main([str(out), "--limit", "100", "--commit", "abc"]) == os.EX_TEMPFAIL
    assert (machine / "builds").read_text() == "x"
    seen = json.loads((machine / "seen").read_text())
    folder, full, device, kind, results, path, limit, seconds = seen["arguments"]
    assert folder == str(gpu_check.ROOT / "bench")
    assert (full, device, kind) == ("--full", "--device", "cuda")
    assert (results, path) == ("--results", str(out / "results.json"))
    assert limit == "--limit"
    assert 0 < float(seconds) <= 100
    assert seen["commit"] == "abc"
    assert seen["cwd"] == str(gpu_check.ROOT / "tests")
    gpu_bench.main([str(out), "--commit", "def"])
    assert (machine / "builds").read_text() == "xx"


def test_a_build_that_fails_is_said(machine, monkeypatch, capsys):
    step = gpu_check.Step("build", (sys.executable, "-c", "import sys; sys.exit(1)"))
    monkeypatch.setattr(gpu_check, "build_step", lambda: step)
    assert gpu_bench.main([str(machine / "out"), "--commit", "abc"]) == 2
    assert "the build failed, see" in capsys.readouterr().err
    assert not (machine / "seen").exists()


HANGS = """
import json, signal, sys
results = sys.argv[sys.argv.index("--results") + 1]
rows = {"about": {}, "rows": [], "begun": {"case": "a case", "peers": {}}}
open(results, "w").write(json.dumps(rows))
signal.pause()
"""


def test_a_row_that_hangs_is_a_failure_and_left_out(machine, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "PYTEST", (sys.executable, "-c", HANGS))
    monkeypatch.setattr(gpu_bench, "GRACE", 1.0)
    out = machine / "out"
    assert gpu_bench.main([str(out), "--limit", "1", "--commit", "abc"]) == 1
    assert "gpu-bench: a case did not end" in capsys.readouterr().err
    (row,) = json.loads((out / "results.json").read_text())["rows"]
    assert row["failures"] == ["it did not end, and was ended"]


def test_the_commit_has_to_be_known(machine, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check.machine, "commit", lambda: "unknown")
    assert gpu_bench.main([str(machine / "out")]) == 2
    assert "gpu-bench: git cannot tell the commit here" in capsys.readouterr().err


def test_no_gpu_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", "/no/such/folder")
    assert gpu_bench.main([str(tmp_path / "out")]) == 2
    assert "gpu-bench: there is no GPU here" in capsys.readouterr().err
    assert gpu_bench.main([str(tmp_path / "out"), "--limit", "0"]) == 2
    assert "--limit is 0.0, expected more than 0" in capsys.readouterr().err
