"""Where a mistake in gpu_check.py or gpu_bench.py would hide a failure; the GPU is a stand-in."""

from __future__ import annotations

import json
import sys

import gpu_bench
import gpu_check
import pytest

GPU = {"device": "H100", "driver": "580", "memory": "80", "compute capability": "9.0"}


def program(text, name="step"):
    return gpu_check.Step(name, (sys.executable, "-c", text))


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Check with these steps, and with what fastrnn sees; return the exit status and the report."""
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: GPU)
    monkeypatch.setattr(gpu_check, "build_step", lambda mxnet: program("", "build"))

    def run(*steps, devices=(0,), limit="60"):
        answer = json.dumps(
            [
                {"cuda_toolkit": "13.0", "cuda_architectures": [], "compiler": "g++"},
                {"devices": list(devices), "error": "no driver"},
                *["1"] * 4,
            ]
        )
        monkeypatch.setattr(gpu_check, "VERSIONS", f"print({answer!r})")
        monkeypatch.setattr(gpu_check, "test_steps", lambda out, mxnet, limit: list(steps))
        arguments = [str(tmp_path), "--commit", "abc", "--limit", limit]
        return gpu_check.main(arguments), (tmp_path / "gpu-check.md").read_text()

    return run


def test_steps_that_pass_are_a_success(check):
    status, report = check(program("print('=== 2 passed in 1.0s ===')"))
    assert status == 0
    assert "| step | passed |" in report
    assert "2 passed" in report


def test_a_step_that_fails_is_a_failure_and_the_others_run(check):
    # So does compute-sanitizer end where it found something.
    status, report = check(program("raise SystemExit(86)"), program(""))
    assert status == 1
    assert "exit status 86" in report
    assert report.count("| step | failed |") == report.count("| step | passed |") == 1


def test_a_step_that_hangs_is_ended_and_a_failure(check):
    status, report = check(program("import signal; signal.pause()"), limit="1")
    assert status == 1
    assert "took longer than 1 seconds" in report


def test_a_gpu_that_fastrnn_does_not_see_is_no_success(check, capsys):
    # Its tests would run on the CPU, or be skipped, and pass.
    status, _ = check(program(""), devices=())
    assert status == 2
    assert "fastrnn sees no GPU: no driver" in capsys.readouterr().err


def test_the_sanitizer_says_by_its_status_that_it_found_something(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(gpu_check, "operator_step", lambda mxnet, pytest: program(""))
    steps = {step.name: step.command for step in gpu_check.test_steps(tmp_path)}
    for tool in gpu_check.SANITIZER_TOOLS:
        assert "--error-exitcode" in steps[tool]


HANGS = """
import json, signal, sys
results = sys.argv[sys.argv.index("--results") + 1]
rows = {"about": {}, "rows": [], "begun": {"case": "a case", "peers": {}}}
open(results, "w").write(json.dumps(rows))
signal.pause()
"""


def test_a_row_that_hangs_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: GPU)
    monkeypatch.setattr(gpu_bench, "build", lambda *arguments: None)
    monkeypatch.setattr(gpu_check, "PYTEST", (sys.executable, "-c", HANGS))
    monkeypatch.setattr(gpu_bench, "GRACE", 1.0)
    assert gpu_bench.main([str(tmp_path), "--limit", "1", "--commit", "abc"]) == 1
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert row["failures"] == ["it did not end, and was ended"]
