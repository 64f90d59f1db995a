"""The exceptions that are addressed to the user."""

from pathlib import Path


class UserError(ValueError):
    """One plain sentence: what is wrong, where (file, row, key), what to do.

    The command line prints the sentence and exits with code 2; in a library call it is an
    ordinary exception, and a ValueError, as torch raises. What else is raised is a defect of ours.
    """


class Interrupted(Exception):
    """Training was asked to stop and has saved; `signal` is what asked, and exit code 128 + signal."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class Diverged(RuntimeError):
    """Loss or gradients were not finite again and again; the command line exits with code 3."""

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder
