"""The exceptions that sqlib raises on purpose.

Every message says what was given, what was expected and what to do; the command line prints it on one
line and exits with status 1. Each class also derives from the builtin exception that a caller would
expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations


class SqlibError(Exception):
    """Base class of every error that sqlib raises on purpose."""


class InputError(SqlibError, ValueError):
    """An argument, image, network or recipe that cannot give a right answer."""


class DataError(SqlibError, FileNotFoundError):
    """A dataset, weights file or image folder that is not where it was looked for."""


class RecordError(SqlibError, RuntimeError):
    """A stored record that is damaged or disagrees with what was asked for."""


class StoreError(SqlibError, OSError):
    """A store of records that cannot be written: a full disk, a quota, a folder without permission."""
