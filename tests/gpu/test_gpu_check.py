"""gpu_check.py with stand-ins for the GPU: programs on the PATH, and a PyTorch without a device."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import gpu_check
import pytest

pytest.importorskip("fastrnn._C", reason="installed without the native library")

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"
NVIDIA_SMI = "echo 'NVIDIA H100 80GB HBM3, 580.159.04, 81559 MiB, 9.0'"
# Runs the program behind its own six words.
SANITIZER = 'echo "========= ERROR SUMMARY: 0 errors"; shift 4; exec "$@"'
FAKE_TORCH = """
import os, sys, types

if sys.argv[0] == "-c" and "FASTRNN_SEES_NO_GPU" not in os.environ:
    import fastrnn._C

    fastrnn._C.cuda_devices = lambda: {"devices": [{}], "error": None}

__version__ = "2.11.0"
cuda = types.SimpleNamespace(is_available=lambda: True)
backends = types.SimpleNamespace(cudnn=types.SimpleNamespace(version=lambda: 91300))
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with a GPU, and a package that is built already."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "torch.py").write_text(FAKE_TORCH)
    programs = {"nvidia-smi": NVIDIA_SMI, "compute-sanitizer": SANITIZER}
    programs["nvcc"] = "echo 'Cuda compilation tools, release 13.0, V13.0.88'"
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    # What the build needs is not there in every environment that runs this test.
    monkeypatch.setattr(gpu_check, "NEEDED_PACKAGES", ("numpy", "torch", "pytest"))
    from fastrnn_build import detect

    monkeypatch.setattr(detect, "find_tools", lambda: None)
    monkeypatch.setattr(detect, "find_compiler", lambda environ: None)
    built = gpu_check.Step("build", (sys.executable, "-c", "print('Successfully built fastrnn')"))
    monkeypatch.setattr(gpu_check, "build_step", lambda mxnet: built)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k 'test_tiny_values or gru-1-sizes1'")
    monkeypatch.setenv("BENCH_COMMIT", "of the test")
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def results(out):
    return {s["step"]: s for s in json.loads((out / "gpu-check.json").read_text())["steps"]}


def test_a_whole_run(machine, capsys):
    out = machine / "new" / "out"
    # The stand-in has no layers to compare with: that step fails, which the others outlive.
    assert gpu_check.main([str(out), "--commit", "abc123"]) == 1
    steps = results(out)
    names = ["build", "kernels", "kernels, stepwise"]
    between = ["MXNet operator", "cuDNN", "synchronization", "benchmarks"]
    assert list(steps) == [*names, *between, *gpu_check.SANITIZER_TOOLS]
    passed = [*names, *gpu_check.SANITIZER_TOOLS]
    assert [steps[name]["result"] for name in passed] == ["passed"] * 7
    assert steps["MXNet operator"]["result"] == "not run"
    assert steps["MXNet operator"]["details"].endswith("may bring an MXNet that sees the GPU")
    assert steps["cuDNN"]["result"] == "failed"
    assert "2 passed" in steps["kernels"]["details"]
    assert "ERROR SUMMARY: 0 errors" in steps["memcheck"]["details"]
    assert "1 passed" in steps["memcheck"]["details"]
    assert "exit status" in steps["cuDNN"]["details"]
    text = (out / "gpu-check.md").read_text()
    assert "| device | NVIDIA H100 80GB HBM3 |" in text
    assert "| commit | abc123 |" in text
    assert "| cuDNN | 91300 |" in text
    assert "| memcheck | passed |" in text
    assert "Successfully built" in (out / "gpu-check.log").read_text()
    assert sorted(path.name for path in out.iterdir()) == [
        "gpu-check.json",
        "gpu-check.log",
        "gpu-check.md",
    ]
    assert "kernels: passed 2 passed" in capsys.readouterr().out


def test_a_gpu_that_fastrnn_does_not_see_is_no_success(machine, monkeypatch, capsys):
    # Its tests would run on the CPU, or be skipped, and pass.
    monkeypatch.setenv("FASTRNN_SEES_NO_GPU", "1")
    assert gpu_check.main([str(machine / "out"), "--commit", "abc123"]) == 2
    assert "gpu-check: fastrnn sees no GPU: " in capsys.readouterr().err
    assert list(results(machine / "out")) == ["build"]


def test_a_finding_of_the_sanitizer_fails(machine, monkeypatch):
    finding = machine / "bin" / "compute-sanitizer"
    finding.write_text('#!/bin/sh\necho "========= RACECHECK SUMMARY: 1 hazard"; exit $4\n')
    steps = [step for step in gpu_check.test_steps(machine) if step.name == "racecheck"]
    monkeypatch.setattr(gpu_check, "test_steps", lambda out, mxnet, limit: steps)
    assert gpu_check.main([str(machine / "out")]) == 1
    step = results(machine / "out")["racecheck"]
    assert step["result"] == "failed"
    assert step["details"] == "RACECHECK SUMMARY: 1 hazard; exit status 86"


HANGS = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
open(sys.argv[1], "w").write(str(child.pid))
child.wait()
"""


def test_a_step_that_hangs_is_ended_with_all_that_it_started(machine, monkeypatch):
    pid = machine / "pid"
    hanging = gpu_check.Step("hanging", (sys.executable, "-c", HANGS, str(pid)))
    after = gpu_check.Step("after", (sys.executable, "-c", ""))
    monkeypatch.setattr(gpu_check, "test_steps", lambda out, mxnet, limit: [hanging, after])
    arguments = [str(machine / "out"), "--commit", "abc", "--limit", "2"]
    assert gpu_check.main(arguments) == 1
    steps = results(machine / "out")
    assert steps["hanging"]["result"] == "failed"
    assert steps["hanging"]["details"] == "took longer than 2 seconds"
    assert steps["after"]["result"] == "passed"
    state = Path(f"/proc/{pid.read_text()}/stat")
    assert not state.exists() or ") Z " in state.read_text()


def test_benchmarks_begin_anew(machine, monkeypatch):
    nothing = (sys.executable, "-c", "")
    steps = [gpu_check.Step("kernels", nothing), gpu_check.Step("benchmarks", nothing)]
    monkeypatch.setattr(gpu_check, "test_steps", lambda out, mxnet, limit: steps)
    out = machine / "out"
    out.mkdir()
    (out / "benchmarks.json").write_text("of another commit")
    arguments = [str(out), "--commit", "abc"]
    assert gpu_check.main([*arguments, "--only", "kernels"]) == 0
    assert list(results(out)) == ["build", "kernels"]
    assert (out / "benchmarks.json").exists()  # it is not to be measured again
    assert gpu_check.main(arguments) == 0
    assert list(results(out)) == ["build", "kernels", "benchmarks"]
    assert not (out / "benchmarks.json").exists()


def test_a_step_that_is_none_is_named(machine, capsys):
    arguments = [str(machine / "out"), "--commit", "abc", "--only", "kernels", "--only", "memchek"]
    assert gpu_check.main(arguments) == 2
    assert "--only has memchek, expected of kernels, kernels, stepwise," in capsys.readouterr().err


def test_the_benchmarks_begin_no_row_that_the_step_has_no_time_for(machine):
    steps = {step.name: step.command for step in gpu_check.test_steps(machine, limit=120)}
    command = steps["benchmarks"]
    assert command[command.index("--limit") + 1] == "100.0"
    assert command[command.index("--device") + 1] == "cuda"


def test_what_ends_the_check_ends_its_step(machine):
    gpu_check.end_with_steps()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


def test_the_commit_has_to_be_known(machine, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check.machine, "commit", lambda: "unknown")
    assert gpu_check.main([str(machine / "out")]) == 2
    assert "git cannot tell the commit here: say it with COMMIT=" in capsys.readouterr().err
    assert gpu_check.main([str(machine / "out"), "--limit", "0"]) == 2
    assert "--limit is 0.0, expected more than 0 seconds" in capsys.readouterr().err


def test_without_the_sanitizer_its_steps_are_not_run(machine, monkeypatch):
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: None)
    steps = {step.name: step.reason for step in gpu_check.test_steps(machine)}
    assert steps["memcheck"] == "compute-sanitizer was not found"
    assert steps["kernels"] is None


def test_the_operator_runs_in_the_mxnet_that_a_script_brings(machine, monkeypatch):
    pytest.importorskip("fastrnn.native")
    monkeypatch.setattr(gpu_check, "SEES_GPU", "import os; os.environ['SCRIPT_RAN']")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k gru-float32-1-sizes0")
    every = gpu_check.test_steps
    only = [step.name for step in every(machine)].index("MXNet operator")
    monkeypatch.setattr(
        gpu_check, "test_steps", lambda out, mxnet, limit: [every(out, mxnet)[only]]
    )
    assert gpu_check.main([str(machine / "without")]) == 0
    step = results(machine / "without")["MXNet operator"]
    assert step["result"] == "not run"
    assert "'SCRIPT_RAN'; --mxnet may" in step["details"]
    script = machine / "mx net.sh"
    script.write_text("export SCRIPT_RAN=1\n")
    assert gpu_check.main([str(machine / "with"), "--mxnet", str(script)]) == 0
    step = results(machine / "with")["MXNet operator"]
    assert step["result"] == "passed"
    assert "2 passed" in step["details"]


def test_a_script_that_is_not_there_is_named(machine, capsys):
    assert gpu_check.main([str(machine / "out"), "--mxnet", "no/such.sh"]) == 2
    assert "no/such.sh, expected a shell script" in capsys.readouterr().err


def test_a_build_that_fails_is_the_end(machine, monkeypatch):
    step = gpu_check.Step("build", (sys.executable, "-c", "import sys; sys.exit(3)"))
    monkeypatch.setattr(gpu_check, "build_step", lambda mxnet: step)
    assert gpu_check.main([str(machine / "out")]) == 1
    assert list(results(machine / "out")) == ["build"]


@pytest.mark.parametrize(
    "smi, said",
    [
        (None, "there is no GPU here: nvidia-smi was not found"),
        ("echo 'No devices were found'; exit 6", "nvidia-smi says 'No devices were found'"),
    ],
)
def test_no_gpu_is_one_line(machine, monkeypatch, capsys, smi, said):
    if smi is None:
        monkeypatch.setenv("PATH", "/no/such/folder")
    else:
        (machine / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\n{smi}\n")
    assert gpu_check.main([str(machine / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (machine / "out").exists()


def test_everything_that_is_missing_is_named(machine, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "NEEDED_PACKAGES", ("numpy", "no_such_package"))
    monkeypatch.setenv("CUDACXX", str(machine / "bin" / "nvidia-smi"))
    assert gpu_check.main([str(machine / "out")]) == 2
    error = capsys.readouterr().err
    assert f"{sys.executable} has no no_such_package" in error
    assert "does not name a CUDA release" in error


def test_make_wants_a_folder():
    result = subprocess.run(
        ["make", "-f", str(MAKEFILE), "gpu-check"],
        cwd=MAKEFILE.parent,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode != 0
    assert "make gpu-check OUT=folder" in result.stdout
