"""How many threads the kernels take, and that they wait for none that a fork left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from fastrnn import _threads

pytest.importorskip("fastrnn._C", reason="installed without the native library")

LAYER = """
import os, signal
import numpy as np
from fastrnn import kernels

H = 256
x = np.ones((4, 32, 64), "f4")
weights = [np.full(shape, 0.01, "f4") for shape in ((4 * H, 64), (4 * H, H), (4 * H,), (4 * H,))]

def run():
    return kernels.forward("lstm", x, weights).output

def threads():
    return len(os.listdir("/proc/self/task"))
"""
COUNT = """
before = threads()
run()
print(1 + threads() - before)
"""
PROCESSORS = """
before = set(os.listdir("/proc/self/task"))
run()
(helper,) = set(os.listdir("/proc/self/task")) - before
print(len(os.sched_getaffinity(int(helper))))
"""
FORK = """
output = run()
child = os.fork()
if child == 0:
    signal.alarm(20)  # ends a process that hangs
    before = threads()
    same = np.allclose(run(), output)
    os._exit(0 if same and threads() == before else 1)
print(os.waitpid(child, 0)[1])
"""
FORK_MXNET = """
import os, signal
import fastrnn
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
layer = fastrnn.LSTM(256, input_size=64, backend="native")
layer.initialize()
x = mx.nd.ones((4, 32, 64))
output = layer(x).asnumpy()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if abs(layer(x).asnumpy() - output).max() < 1e-5 else 1)
print(os.waitpid(child, 0)[1])
"""


def run(code, **environment):
    """Run the code without what this process's environment says of threads."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MXNET_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, **environment},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


def result_of(code, **environment):
    return int(run(code, **environment).stdout.splitlines()[-1])


def test_threads_that_are_bound_to_processors_are_as_many_as_others():
    assert result_of(LAYER + COUNT, OMP_PROC_BIND="true") == result_of(LAYER + COUNT)


def test_helpers_may_run_on_all_processors():
    environment = {"OMP_PROC_BIND": "true", "OMP_NUM_THREADS": "2"}
    assert result_of(LAYER + PROCESSORS, **environment) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_environment_decides(threads):
    assert result_of(LAYER + COUNT, OMP_NUM_THREADS=str(threads)) == threads


def test_a_processor_of_its_own_gets_one_thread():
    alone = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    assert result_of(alone + LAYER + COUNT) == 1


def test_a_forked_child_computes_on_one_thread():
    assert result_of(LAYER + FORK, OMP_NUM_THREADS="2") == 0


# With the naive engine the layers run on the thread that forks.
@pytest.mark.parametrize("engine", ["NaiveEngine", "ThreadedEnginePerDevice"])
def test_layers_in_a_forked_child(engine):
    native = pytest.importorskip("fastrnn.mxnet.native")
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    assert result_of(FORK_MXNET, OMP_NUM_THREADS="2", MXNET_ENGINE_TYPE=engine) == 0


def test_a_fork_during_a_first_call():
    code = """
import os, signal, threading, fastrnn, mxnet as mx
from fastrnn.mxnet.threads import first_call
held, done = threading.Event(), threading.Event()

def hold():
    with first_call():
        held.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    net = fastrnn.LSTM(4)
    net.initialize()
    os._exit(int(net(mx.nd.ones((2, 3, 5))).asnumpy().shape != (2, 3, 4)))
done.set()
print(os.waitpid(child, 0)[1])
"""
    assert result_of(code) == 0


# What the command prints of threads is what its process then has.
COMMAND = """
import os, sys
from pathlib import Path

sys.argv = ["/usr/bin/fastrnn"]
import fastrnn

print(os.environ.get("MXNET_OMP_MAX_THREADS", "-1"))
"""
IMPORT = COMMAND.replace('sys.argv = ["/usr/bin/fastrnn"]\n', "")
ALONE = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"


def test_the_command_gives_mxnet_the_cores():
    wanted = _threads.physical_cores()
    assert 1 <= wanted <= len(os.sched_getaffinity(0))
    assert result_of(COMMAND) == wanted
    assert result_of(ALONE + COMMAND) == 1


def test_an_import_leaves_mxnets_threads_alone():
    assert result_of(IMPORT) == -1


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MXNET_CPU_WORKER_NTHREADS"])
def test_the_command_leaves_threads_to_the_environment(name):
    assert result_of(COMMAND, **{name: "2"}) == -1


def test_the_command_keeps_the_users_limit():
    assert result_of(COMMAND, MXNET_OMP_MAX_THREADS="7") == 7


@pytest.mark.parametrize(
    ("code", "environment", "turns"),
    [
        (COMMAND, {}, {0}),
        (COMMAND, {"GOMP_SPINCOUNT": "77"}, {77}),
        (COMMAND, {"OMP_WAIT_POLICY": "active"}, range(10**6, 10**12)),
        (IMPORT, {}, range(1, 10**6)),
    ],
    ids=["the command", "the user's count", "the user's policy", "an import"],
)
def test_openmps_idle_threads_sleep_in_the_command(code, environment, turns):
    told = run(code, OMP_DISPLAY_ENV="verbose", **environment).stderr
    (read,) = set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", told))  # by OpenMP, as it was loaded
    assert int(read) in turns


def test_mxnets_operators_have_the_cores():
    work = """
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
mx.nd.log_softmax(mx.nd.ones((1000, 1000))).wait_to_read()
print(len(os.listdir("/proc/self/task")))
"""
    alone = result_of(COMMAND + work, MXNET_OMP_MAX_THREADS="1")
    assert result_of(COMMAND + work) == alone - 1 + _threads.physical_cores()


# A layer after an operator of MXNet's: how many threads it starts, and a digest of its results.
AFTER_MXNET = """
import hashlib
import fastrnn
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
layer = fastrnn.LSTM({units}, input_size=64, backend="native")
layer.initialize(mx.init.Uniform(0.05))
for parameter in layer.collect_params().values():
    parameter.set_data(mx.nd.arange(parameter.data().size).reshape(parameter.shape).sin())
x = mx.nd.arange(8 * 32 * 64).reshape((8, 32, 64)).cos()
x.attach_grad()
mx.nd.log_softmax(mx.nd.ones((1000, 1000))).wait_to_read()
before = len(os.listdir("/proc/self/task"))
with mx.autograd.record():
    output = layer(x)
output.wait_to_read()
started = len(os.listdir("/proc/self/task")) - before
output.backward()
results = [output, x.grad, *(p.grad() for p in layer.collect_params().values())]
digest = hashlib.sha1(b"".join(a.asnumpy().tobytes() for a in results)).hexdigest()
print(digest, started)
"""


def after_mxnet(units=128, **environment):
    native = pytest.importorskip("fastrnn.mxnet.native")
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    code = "import os\n" + AFTER_MXNET.format(units=units)
    digest, started = run(code, OMP_NUM_THREADS="2", **environment).stdout.split()
    return digest, int(started)


@pytest.mark.parametrize("units", [128, 400], ids=["rows of their own", "parts of each step"])
def test_layers_run_on_threads_of_mxnet_that_spin(units):
    digest, started = after_mxnet(units)
    assert started == 0
    assert after_mxnet(units, OMP_WAIT_POLICY="passive") == (digest, 1)


def test_layers_leave_threads_of_mxnet_that_sleep_alone():
    assert after_mxnet(GOMP_SPINCOUNT="0")[1] == 1
    assert after_mxnet(OMP_WAIT_POLICY="PASSIVE")[1] == 1


def test_layers_have_the_same_bits_without_the_threads_that_openmp_refuses():
    assert after_mxnet(OMP_THREAD_LIMIT="1") == (after_mxnet()[0], 1)


# Layers beside a process on their only processor, until they have started a thread of their own.
# The other process ends with this one.
BESIDE_A_BUSY_PROCESS = """
import os, subprocess, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import fastrnn
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
layer = fastrnn.LSTM(128, input_size=64, backend="native")
layer.initialize(mx.init.Uniform(0.05))
x = mx.nd.random.uniform(shape=(8, 32, 64))
first = layer(x).asnumpy()
spin = f"import os\\nwhile os.getppid() == {os.getpid()}: pass"
busy = subprocess.Popen([sys.executable, "-c", spin])
before, started, same = len(os.listdir("/proc/self/task")), 0, True
end = time.monotonic() + 20
try:
    while same and not started and time.monotonic() < end:
        same = (layer(x).asnumpy() == first).all()
        started = len(os.listdir("/proc/self/task")) - before
    same = same and (layer(x).asnumpy() == first).all()
finally:
    busy.kill()
print(int(same), started)
"""


def test_layers_leave_threads_of_mxnet_that_have_no_processor():
    native = pytest.importorskip("fastrnn.mxnet.native")
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    told = run(BESIDE_A_BUSY_PROCESS, OMP_NUM_THREADS="2").stdout.split()
    assert told == ["1", "1"]
