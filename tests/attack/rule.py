"""The one rule by which every attack is judged, and the tally of what came.

A generated input is either *told* (a NaseduError, or a ValueError that this package raises, with a message
that says something) or *right* (accepted, and the result is what it must be). All else is a *finding*:
another exception, a silent wrong result, a hang over 10 s.

    for seed in inputs("genotype"):               # this kind's share of NASEDU_ATTACK (1,000) inputs
        text = mutated(random.Random(seed))
        judge("genotype", lambda: Genotype.from_json(text), right=is_sound, what=text)
"""

import os
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nasedu
from nasedu import NaseduError

TOTAL = int(os.environ.get("NASEDU_ATTACK", "1000"))
# Of 1,000 inputs so many are of each kind.
SHARES = {
    "checkpoint": 250,
    "genotype": 150,
    "arch": 150,
    "argument": 150,
    "json file": 150,
    "dataset": 100,
    "command line": 50,
}
assert sum(SHARES.values()) == 1000
SECONDS = 10.0
PACKAGE = str(Path(nasedu.__file__).parent)

tally: Counter[tuple[str, str]] = Counter()


def inputs(kind: str, part: float = 1.0) -> range:
    """The seeds of this kind's inputs, or of a part of them where several tests share a kind."""
    return range(max(1, round(TOTAL * SHARES[kind] * part / 1000)))


class Hang(BaseException):
    """Time is up; not an Exception, so that no `except Exception` of the package swallows it."""


@contextmanager
def time_limit(seconds: float = SECONDS) -> Iterator[None]:
    """Raise Hang in the block after so many seconds (on POSIX, in the main thread)."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum: int, frame: object) -> None:
        raise Hang(f"more than {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


def is_told(error: BaseException) -> bool:
    """Is this how the package says no: an error of its own, or a ValueError raised by its own lines?

    The message must be more than a word or two. A ValueError from inside torch or json that merely passes
    through is none.
    """
    if len(str(error).split()) < 4:
        return False
    if isinstance(error, NaseduError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, ValueError) and bool(frames) and frames[-1].filename.startswith(PACKAGE)


def judge(
    kind: str,
    call: Callable[[], Any],
    right: Callable[[Any], object] = lambda result: True,
    what: object = "",
    seconds: float = SECONDS,
) -> str:
    """Call it, count what came, and fail the test for a finding. Answers "told" or "right".

    `right(result)` says whether what was accepted is what it must be (False, or an AssertionError, is a
    finding); `what` describes the input in the message of a finding.
    """
    try:
        with time_limit(seconds):
            result = call()
            verdict = "right" if right(result) is not False else "finding: a wrong result"
    except (Exception, Hang, SystemExit) as error:
        if is_told(error):
            verdict = "told"
        else:
            verdict = f"finding: {type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}"
    tally[kind, verdict.split(":")[0]] += 1
    assert verdict in ("told", "right"), f"{kind}: {str(what):.500}\n{verdict}"
    return verdict


def attack(kind: str, one: Callable[[int], object], part: float = 1.0) -> None:
    """`one(seed)`, which judges an input, for all of this kind; fails at the end, with the first findings."""
    findings = []
    for seed in inputs(kind, part):
        try:
            one(seed)
        except AssertionError as finding:
            findings.append(f"seed {seed}: {finding}")
    assert not findings, f"{len(findings)} findings\n" + "\n\n".join(findings[:8])


def table() -> list[str]:
    """The tally in lines: told, right and findings for each kind."""
    kinds = sorted({kind for kind, _ in tally})
    columns = ("told", "right", "finding")
    rows = [(kind, *(tally[kind, column] for column in columns)) for kind in kinds]
    rows.append(("together", *(sum(row[i] for row in rows) for i in (1, 2, 3))))
    lines = [f"{'inputs of':20}{'told':>8}{'accepted, right':>17}{'findings':>10}"]
    return lines + [f"{kind:20}{told:8}{right:17}{found:10}" for kind, told, right, found in rows]
