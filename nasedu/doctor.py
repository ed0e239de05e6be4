"""What this machine is, whether the course runs on it, and what to do about each finding: `nasedu doctor`.

Every line is a `Finding`: "ok", "note" (works, but you may want to know) or "problem" (something of the
course will not run), with what was seen and what to do. The operations are tried in a process of their own,
so that a crash of a CPU library is reported and not suffered.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from packaging.requirements import Requirement

from nasedu.data import download
from nasedu.data.images import is_image_folder
from nasedu.space.ops import known, make_op
from nasedu.study.record import processor

SECONDS = 120.0  # after which a process that tries the operations counts as hanging
MIN_MEMORY, MIN_DISK = 4.0, 2.0  # GiB


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `state` is "ok", "note" or "problem"; `todo` is empty where all is ok."""

    state: str
    what: str
    seen: str
    todo: str = ""

    def __str__(self) -> str:
        line = f"{self.state:8}{self.what:14}{self.seen}"
        return f"{line}\n{'':8}{'':14}-> {self.todo}" if self.todo else line


def examine(operations: bool = True) -> Iterator[Finding]:
    """Look at everything, one finding after the other; with `operations` try each one (some five seconds)."""
    yield from versions()
    yield cpu()
    yield gpu()
    yield memory()
    yield disk(download.cache_folder())
    yield graphviz()
    yield dataset()
    if operations:
        yield tried_operations()


def versions() -> Iterator[Finding]:
    """Python, and each package that nasedu asks for: is it there, and new enough?"""
    state = "ok" if sys.version_info >= (3, 11) else "problem"
    yield Finding(state, "python", platform.python_version(), "" if state == "ok" else "install Python 3.11")
    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires("nasedu") or []]
    except importlib.metadata.PackageNotFoundError:
        yield Finding("note", "nasedu", "runs from its folder, not installed", "pip install --editable .")
        return
    yield Finding("ok", "nasedu", importlib.metadata.version("nasedu"))
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        yield package(requirement)


def package(requirement: Requirement) -> Finding:
    """Is this package installed in a version that fits?"""
    install = f'pip install "{requirement}"'
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("problem", requirement.name, "is not installed", install)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding("problem", requirement.name, f"{version}, wanted {requirement.specifier}", install)
    return Finding("ok", requirement.name, version)


def cpu() -> Finding:
    """The processor, how many cores this process may use, and the instruction set that torch takes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [f"{name}={os.environ[name]}" for name in CPU_LIMITS if name in os.environ]
    isa = torch.backends.cpu.get_cpu_capability()
    seen = f"{processor()}, {cores} core{'s' if cores > 1 else ''}, torch uses {isa}"
    if limits:
        return Finding("note", "cpu", f"{seen}, limited by {' '.join(limits)}", "unset these for full speed")
    return Finding("ok", "cpu", seen)


CPU_LIMITS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS")


def gpu() -> Finding:
    """The first CUDA device and its memory; a CPU is enough for the course."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info(0)
        name = torch.cuda.get_device_name(0)
        return Finding("ok", "gpu", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    return Finding("ok", "gpu", "none that torch can use: the notebooks take the laptop profile")


def memory() -> Finding:
    """The memory that is left for this process."""
    info = Path("/proc/meminfo")
    if not info.is_file():
        return Finding("ok", "memory", "not known on this system")
    sizes = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
    free, total = (int(sizes[key].split()[0]) / 2**20 for key in ("MemAvailable", "MemTotal"))
    seen = f"{free:.1f} of {total:.1f} GiB free"
    if free < MIN_MEMORY:
        return Finding("note", "memory", seen, "close other programs, or use smaller batches")
    return Finding("ok", "memory", seen)


def disk(folder: Path) -> Finding:
    """The room for CIFAR-10 (0.4 GiB with its archive) and checkpoints."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free / 2**30
    seen = f"{free:.1f} GiB free at {place}"
    if not os.access(place, os.W_OK):
        return Finding(
            "problem", "disk", f"{place} can't be written", "set XDG_CACHE_HOME to a folder of yours"
        )
    if free < MIN_DISK:
        return Finding(
            "note", "disk", seen, "make room, or keep CIFAR-10 elsewhere and set NASEDU_DATA to it"
        )
    return Finding("ok", "disk", seen)


def graphviz() -> Finding:
    """What draws the cells: the `dot` program where there is one, else pygraphviz; tried with a real cell."""
    from nasedu.show import draw_cell  # here, since drawing takes a second to import
    from nasedu.space.genotype import PUBLISHED

    dot = shutil.which("dot")
    by = f"the program {dot}" if dot else "pygraphviz"
    try:
        size = len(draw_cell(PUBLISHED["DARTS_V2"]).svg)
    except Exception as error:  # whatever it is, the lines below it are wanted
        todo = 'pip install "pygraphviz>=2", or install Graphviz (apt, brew, conda)'
        return Finding("problem", "graphviz", f"{by}: {type(error).__name__}: {error}", todo)
    return Finding("ok", "graphviz", f"drawn by {by}, {size / 1000:.0f} kB")


def dataset() -> Finding:
    """Where `get_dataset("auto")` would take its images from; nothing is downloaded here."""
    if place := os.environ.get("NASEDU_DATA"):
        path = Path(place).expanduser()
        if is_image_folder(path) or (path / download.CIFAR10_FOLDER).is_dir():
            return Finding("ok", "data", f"NASEDU_DATA={path}")
        todo = "it wants train/<class>/*.jpg, or CIFAR-10's official folder; correct it or unset it"
        return Finding("problem", "data", f"NASEDU_DATA={path} holds no images", todo)
    cache = download.cache_folder()
    if (cache / download.CIFAR10_FOLDER).is_dir():
        return Finding("ok", "data", f"CIFAR-10 in {cache}")
    todo = "`get_dataset('cifar10')` downloads 170 MB; without a network the notebooks use shapes10"
    return Finding("note", "data", f"no CIFAR-10 in {cache}", todo)


# ---- the operations, in a process of their own


def exercise(layer: torch.nn.Module, channels: int, times: int = 8) -> None:
    """Forward and backward with what a trainer gives: channels-last weights and maps of so many channels.

    Several times: a write past a block of memory is found when that block is freed, if what it hit mattered.
    Raises ArithmeticError if an output or a gradient is not finite.
    """
    layer = layer.to(memory_format=torch.channels_last)
    for _ in range(times):
        x = torch.randn(8, channels, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
        y = layer(x)
        (y.square().sum() + 0.0 * x.sum()).backward()  # "none" gives nothing back
        for found in (y, x.grad, *(weight.grad for weight in layer.parameters())):
            if found is not None and not bool(torch.isfinite(found).all()):
                raise ArithmeticError("an output or a gradient is not finite")


def try_operations(names: Sequence[str]) -> None:
    """Forward and backward of each operation at stride 1 and 2, in the memory formats that training uses.

    Prints the operation before it starts, so that whoever started this process knows where it died.
    """
    torch.manual_seed(0)
    for name in names:
        for stride in (1, 2):
            for search in (True, False):
                print(f"{name} stride {stride}", flush=True)
                exercise(make_op(name, 4, stride, search), 4)
    print("done", flush=True)


def tried_operations(
    environment: Mapping[str, str] | None = None, names: Sequence[str] = (), seconds: float = SECONDS
) -> Finding:
    """Run `try_operations` in a process of its own, by default of all; `environment` adds to this one's."""
    names = list(names) or sorted(known())
    code = f"from nasedu.doctor import try_operations; try_operations({names!r})"
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **(environment or {})},
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        printed, end = done.stdout, _ending(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as error:
        out = error.stdout or b""
        printed = out.decode() if isinstance(out, bytes) else out
        end = f"no answer after {seconds:.0f} s"
    last = (printed.splitlines() or ["the start"])[-1]
    if last == "done" and not end:
        took = time.perf_counter() - started
        seen = f"{len(names)} operations, forward and backward, in {took:.0f} s"
        return Finding("ok", "operations", seen)
    todo = (
        "another version of torch may help (pip install --upgrade torch torchvision); please report this "
        "line with the cpu line above"
    )
    where = last if last != "done" else "after the last one"
    return Finding("problem", "operations", f"{where}: {end or 'it ended too early'}", todo)


def _ending(code: int, errors: str) -> str:
    if code == 0:
        return ""
    last = (errors.strip().splitlines() or ["no message"])[-1]
    return f"killed by signal {-code} ({last})" if code < 0 else f"ended with {code} ({last})"


def main(write: Callable[[str], object] = print) -> int:
    """Write every finding as it comes; 1 if one is a problem, else 0."""
    states = []
    for finding in examine():
        write(str(finding))
        states.append(finding.state)
    problems = states.count("problem")
    write(
        f"\n{problems} problem{'s' if problems != 1 else ''}"
        if problems
        else "\nready: begin with notebook 00"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
