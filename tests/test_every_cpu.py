"""Everything that trains, once more as other CPUs would do it: a crash there is a failed test with a name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CPUS = {
    "as it is": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "SSE41": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
}
# glibc's own check of each block of memory, where it is there: it finds a write past the end at once.
DEBUG = "libc_malloc_debug.so.0"
FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu")


def environment(cpu: str) -> dict[str, str]:
    found = {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]), **CPUS[cpu]}
    if any((Path(folder) / DEBUG).exists() for folder in FOLDERS):
        found |= {"LD_PRELOAD": DEBUG, "GLIBC_TUNABLES": "glibc.malloc.check=3"}
    inherited = {k: v for k, v in os.environ.items() if k not in CPUS["AVX2"]}
    return inherited | {"OMP_NUM_THREADS": "1"} | found


def run(cpu: str, *command: str) -> tuple[list[str], int, str]:
    """The lines that a process printed, its exit code, and the end of what it said to stderr."""
    done = subprocess.run(
        [sys.executable, *command], env=environment(cpu), capture_output=True, text=True, timeout=240
    )
    return done.stdout.splitlines(), done.returncode, done.stderr[-2000:]


@pytest.mark.parametrize("cpu", CPUS)
def test_everything_trains_on_a_cpu_of_this_kind(cpu):
    lines, code, said = run(cpu, str(HERE / "every_cpu.py"))
    last = lines[-1] if lines else "the imports"
    assert code == 0, f"the process ended with {code} in: {last}\n{said}"
    assert last.startswith("done") and len(lines) > 100
    names = {"AVX2": ["DONE AVX2"], "SSE41": ["DONE DEFAULT", "DONE NO AVX"]}  # the last is torch 2.6's word
    assert last.upper() in names.get(cpu, [last.upper()]), (
        f"torch took no notice of ATEN_CPU_CAPABILITY: {last}"
    )
