"""The errors that the commands turn into one clear line and an exit code."""


class InputError(ValueError):
    """What the user gave cannot be used: a file, a directory, a configuration value.

    The message names the file or key, what was found and what was expected. The commands
    print it as one line on stderr and exit with code 2.
    """


class RunFailedError(RuntimeError):
    """The run itself went wrong, for example with a loss that is not finite. Exit code 3."""


class PeerLostError(RunFailedError):
    """Another process of the run has ended, so this one cannot continue. Exit code 75: the same command resumes."""


class Interrupted(Exception):  # noqa: N818 (a request, not an error)
    """The run was asked to stop and has saved itself. Exit code 75."""
