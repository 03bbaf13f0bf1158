"""Every error neuropil raises on purpose: one sentence that names the argument, the rule and what arrived.

NeuropilError
├── InputError        (ValueError)         an argument, array or file content breaks a rule
├── ConfigError       (ValueError)         a key or value of a configuration is wrong
├── VolumeNotFound    (FileNotFoundError)  nothing at that URI, or no such dataset in the file
├── VolumeError       (OSError)            the file is there but truncated, foreign or unreadable
├── OutputExists      (FileExistsError)    the output is there and --overwrite was not given
├── StorageFull       (OSError)            the disk is full; what was written so far is kept
├── RunMismatch       (ValueError)         unfinished work was made with other parameters
├── RunLocked         (RuntimeError)       another process works on the same output
├── BlocksFailed      (RuntimeError)       some blocks of a run could not be made; the others are done
└── MissingExtra      (ImportError)        an optional dependency is needed; the message gives the install line

Each error is also the built-in exception that a caller would expect, so `except ValueError` works.
The command line prints the message and exits with code 2.
"""


class NeuropilError(Exception):
    """Base of all errors that neuropil raises on purpose."""


class InputError(NeuropilError, ValueError):
    """An argument, array or file content breaks a rule."""


class ConfigError(NeuropilError, ValueError):
    """A key or value of a configuration is wrong."""


class VolumeNotFound(NeuropilError, FileNotFoundError):
    """There is nothing at that URI, or no such dataset in the file."""


class VolumeError(NeuropilError, OSError):
    """The file is there but truncated, foreign or unreadable."""


class OutputExists(NeuropilError, FileExistsError):
    """The output is there already and may not be overwritten."""


class StorageFull(NeuropilError, OSError):
    """The disk is full; what was written so far is kept."""


class RunMismatch(NeuropilError, ValueError):
    """Unfinished work at the output was made with other parameters."""


class RunLocked(NeuropilError, RuntimeError):
    """Another process is at work on the same output."""


class BlocksFailed(NeuropilError, RuntimeError):
    """Some blocks of a run could not be made; the others are done, and the same command tries these again."""


class BlockLost(NeuropilError, RuntimeError):
    """The process that a block was computed in ended: it was killed, took too much memory, or too long."""


class MissingExtra(NeuropilError, ImportError):
    """An optional dependency is not installed."""
