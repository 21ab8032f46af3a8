"""Completion of commands and options in the shell, by argcomplete.

eval "$(register-python-argcomplete mhcvse)"
"""

import argparse
import os

ASKED = "_ARGCOMPLETE"  # which word of the line is the command, from 1; set where a shell asks for completions


def is_asked() -> bool:
    """Returns whether a shell started this process to ask for completions."""
    return ASKED in os.environ


def words() -> list[str]:
    """Returns the words of the shell's line up to the one to complete."""
    before = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    return before.split() if before.endswith(" ") else before.split()[:-1]


def of_subcommand() -> None:
    """Makes the next `answer` start at the word after the command."""
    os.environ[ASKED] = "2"


def answer(parser: argparse.ArgumentParser) -> None:
    """Tells the shell what the parser takes next and ends the process; does nothing if no shell asks."""
    if is_asked():
        import argcomplete

        argcomplete.autocomplete(parser)
