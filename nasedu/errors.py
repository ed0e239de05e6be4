"""The base of every error that this package raises on purpose."""


class NaseduError(Exception):
    """What was given can't be used: the message names the value, what was wanted, and what to do.

    `ArchError`, `GenotypeError`, `DatasetError`, `CheckpointError` and the others derive from it, and from
    the built-in they always were: ValueError, RuntimeError, OSError.
    """
