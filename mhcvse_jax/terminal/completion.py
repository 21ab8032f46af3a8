"""Completion of commands and options in the shell, by argcomplete.

eval "$(register-python-argcomplete mhcvse)"
"""

import argparse
import os

ASKED = "_ARGCOMPLETE"  # which word of the line is the command, from 1; set where a shell asks for completions


def is_asked() -> bool:
    """Returns whether a shell started this process to be told what may come next on its line."""
    return ASKED in os.environ


def words() -> list[str]:
    """Returns the words of that line up to the one that is to be completed."""
    before = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    return before.split() if before.endswith(" ") else before.split()[:-1]


def of_subcommand() -> None:
    """Makes the next `answer` one about the word after the command and what follows it."""
    os.environ[ASKED] = "2"


def answer(parser: argparse.ArgumentParser) -> None:
    """Tells the shell what the parser takes next and ends the process; does nothing where no shell asks."""
    if is_asked():
        import argcomplete

        argcomplete.autocomplete(parser)
