"""Self-checks for the exercises: `check.mixed_op(mine)` says what passed, or what was expected and what came.

The checks of one notebook live in one module here (`notebook_04.py`, ...); `contract.py` says how
to write one.
"""

from nasedu.check.contract import equal, exercise

__all__ = ["equal", "exercise"]
