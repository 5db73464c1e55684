"""Compiles the kernels for every architecture, and looks at what came out.

    python tests/gpu/objects.py            with this machine's nvcc
    python tests/gpu/objects.py --cuda-11  as CUDA 11 does, for sm_86 and sm_70

With nvcc: no kernel may spill registers or use a stack frame (from what ptxas says). Where nvdisasm
is found (on the PATH, or from PyPI's nvidia-cuda-nvdisasm), the machine code is read, too: a step
of a persistent kernel must have nothing that is known to be slow or wrong there (machine_code.py's
lint), and for sm_90 be as long as the cost model's table says (step_counts.py); and no kernel that
polls other blocks may read through the cache that is not kept coherent with their writes. The last
holds for all that such a kernel reads: which of it the others write, machine code does not tell.

For CUDA 11, whose nvcc needs an old host compiler, clang compiles with the headers, libdevice and
ptxas of CUDA 11.8 that PyPI has. $CLANG names another clang than the one found.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

sys.path.insert(0, str(Path(__file__).parent))

from machine_code import find_nvdisasm, kernels, lint
from nvcc import FLAGS, ROOT, SOURCES, Resources, compiled, parse_resources
from step_counts import ARCHITECTURE, differences

from fastrnn_build.detect import Missing, find_nvcc
from fastrnn_build.plan import cuda_architectures
from fastrnn_build.settings import Settings

# Have no kernel: for CUDA 11 the host's compiler looks at them.
HOST_ONLY = ("memory.cu",)
CLANGS = ("clang-16", "clang-17", "clang-18", "clang-19", "clang")
# Architectures between two of these share PTX: see CMakeLists.txt.
VIRTUAL_ARCHITECTURES = ("75", "80", "90")
CUDA_11_ARCHITECTURES = ("86", "70")  # what takes longest comes first
# What sm_86 has and sm_70 has not is the same for all cells: one is enough there.
CUDA_11_ONE_CELL = ("persistent_gru.cu", "persistent_rnn.cu")
CUDA_11_PACKAGES = (
    "nvidia-cuda-nvcc-cu11==11.8.89",
    "nvidia-cuda-runtime-cu11==11.8.89",
    "nvidia-curand-cu11==10.3.0.86",
)


def stale_reads(machine_code: str) -> Iterator[str]:
    """Yield a complaint for each kernel that polls memory and reads through the constant cache.

    A kernel that polls is known by what follows an acquire: the L1 cache is emptied. One of tagged
    words (`LNS0_6SignalE1E` in its name) loads them with LDG.STRONG.GPU.
    """
    for part in re.split(r"(?=^\.text\.)", machine_code, flags=re.MULTILINE)[1:]:
        name = part[len(".text.") : part.index(":")]
        tagged = "6SignalE1E" in name and re.search(r"\bLDG\S*\.STRONG\.GPU", part)
        polls = "CCTL.IVALL" in part or tagged
        if polls and re.search(r"\bLDG\S*\.CONSTANT", part):
            yield f"{name} polls other blocks and has LDG.CONSTANT, which may read stale data"
        if not polls and "PersistentForwardKernel" in name and "BAR.SYNC" in part:
            yield f"{name} has no CCTL.IVALL, by which kernels that poll other blocks are known"


def virtual_of(architecture: str) -> str:
    """Return the virtual architecture whose PTX becomes this architecture's machine code."""
    older = [v for v in VIRTUAL_ARCHITECTURES if int(v) <= int(architecture)]
    return older[-1] if older else architecture


def check_with_nvcc(
    nvcc: Path, source: Path, virtual: str, architectures: Sequence[str], nvdisasm: Optional[str]
) -> Tuple[List[Resources], List[str]]:
    """Compile a source as the build does: PTX once, and of that each architecture's machine code.

    Returns what the kernels take, and the complaints.
    """
    resources: List[Resources] = []
    complaints: List[str] = []
    with tempfile.TemporaryDirectory() as folder:
        ptx, cubin = Path(folder, "kernels.ptx"), Path(folder, "kernels.cubin")
        compiled([nvcc, *FLAGS, "-ptx", f"-arch=compute_{virtual}", "-o", ptx, source])
        for architecture in architectures:
            command = [nvcc.with_name("ptxas"), "-v", f"-arch=sm_{architecture}", ptx, "-o", cubin]
            resources += parse_resources(compiled(command))
            if nvdisasm is not None:
                machine_code = compiled([nvdisasm, "-c", cubin])
                complaints += stale_reads(machine_code)
                found = list(kernels(machine_code))
                complaints += [
                    f"{complaint}, for sm_{architecture}"
                    for kernel in found
                    for complaint in lint(kernel)
                ]
                if architecture == ARCHITECTURE:
                    complaints += differences(found)
    complaints += [complaint for r in resources for complaint in [r.complaint()] if complaint]
    return resources, complaints


def main_nvcc() -> int:
    """Check every architecture of this machine's nvcc."""
    nvcc = find_nvcc(os.environ)
    if isinstance(nvcc, Missing):
        print(f"skipped: {nvcc.reason}")
        return 0
    nvdisasm = find_nvdisasm()
    if nvdisasm is None:
        print("nvdisasm was not found: the machine code is not looked at")
    sharing: Dict[str, List[str]] = {}
    for architecture in cuda_architectures(Settings(), nvcc):
        sharing.setdefault(virtual_of(architecture), []).append(architecture)
    tasks = [(source, *group) for source in SOURCES for group in sharing.items()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda task: check_with_nvcc(nvcc.path, *task, nvdisasm), tasks))
    resources = [r for of_task, _ in found for r in of_task]
    complaints = [complaint for _, of_task in found for complaint in of_task]
    for architecture in sorted({r.architecture for r in resources}):
        registers = [r.registers for r in resources if r.architecture == architecture]
        print(f"{architecture}: {len(registers)} kernels, at most {max(registers)} registers")
    print(
        "\n".join(complaints)
        or "no spills, no stack frames, no stale reads; the steps of persistent kernels are clean"
    )
    return 1 if complaints else 0


def make_cuda_11(folder: Path) -> Path:
    """Put together what clang looks for in a toolkit of CUDA 11.8, and return where it is."""
    toolkit, packages = folder / "toolkit", folder / "packages"
    if (toolkit / "version.json").is_file():
        return toolkit
    for old in (toolkit, packages):
        shutil.rmtree(old, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(packages), *CUDA_11_PACKAGES], check=True)
    for part in sorted((packages / "nvidia").iterdir()):
        for name in ("bin", "include", "nvvm"):
            if (part / name).is_dir():
                shutil.copytree(part / name, toolkit / name, dirs_exist_ok=True)
    # As a macro the name breaks the C++ library, which writes __attribute__((__noinline__)).
    defines = toolkit / "include" / "crt" / "host_defines.h"
    lines = defines.read_text().replace("__attribute__((noinline))", "noinline")
    defines.write_text(lines)
    (toolkit / "bin" / "ptxas").chmod(0o755)
    (toolkit / "version.json").write_text('{"cuda": {"version": "11.8.0"}}\n')
    return toolkit


def main_cuda_11() -> int:
    """Compile every source for the architectures of CUDA 11."""
    candidates = [os.environ["CLANG"]] if os.environ.get("CLANG") else CLANGS
    clang = next((found for found in map(shutil.which, candidates) if found), None)
    if clang is None:
        print(f"skipped: no clang was found (looked for {', '.join(candidates)})")
        return 1 if os.environ.get("CI") == "true" else 0
    toolkit = make_cuda_11(ROOT / "build" / "cuda-11")
    flags = [*FLAGS, "-x", "cuda", "--cuda-device-only", f"--cuda-path={toolkit}"]
    flags += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-cuda-version"]
    flags += ["-O0"]  # Whether it compiles does not take optimization.
    with tempfile.TemporaryDirectory() as folder:
        host_only = [source for source in SOURCES if source.name in HOST_ONLY]
        with_kernels = [source for source in SOURCES if source not in host_only]
        host = ["c++", "-fsyntax-only", *FLAGS, "-Wall", "-Wextra", "-Werror", "-x", "c++"]
        compiled([*host, "-isystem", toolkit / "include", *host_only])
        commands: List[List[object]] = [
            [
                *(clang, *flags, f"--cuda-gpu-arch=sm_{architecture}", "-c", source),
                *("-o", Path(folder, f"{source.stem}.{architecture}.cubin")),
            ]
            for architecture in CUDA_11_ARCHITECTURES
            for source in with_kernels
            if architecture != "86" or source.name not in CUDA_11_ONE_CELL
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compiled, commands))
    names = ", ".join(f"sm_{architecture}" for architecture in CUDA_11_ARCHITECTURES)
    print(f"{names} of CUDA 11.8: {len(commands)} objects by {clang}")
    return 0


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cuda-11", action="store_true", help="compile as CUDA 11 does")
    return main_cuda_11() if parser.parse_args().cuda_11 else main_nvcc()


if __name__ == "__main__":
    sys.exit(main())
