"""Text files with one caption, id or name per line, with any line endings."""

import codecs
import pathlib

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_no_web_page

MAX_CAPTION = 4096  # characters: a batch is as wide as its longest caption


def read_captions(path: pathlib.Path) -> list[str]:
    """Returns the captions of a file, one per line.

    Raises:
      InputError: the file is missing, a line is empty, not UTF-8, or too long for a caption.
    """
    captions, problems = decode_captions(path)
    if problems:
        raise InputError(problems[0])
    return captions


def decode_captions(path: pathlib.Path) -> tuple[list[str], list[str]]:
    """Returns the captions of a file, one per line, and what is wrong with any of them.

    Raises:
      InputError: the file is missing.
    """
    captions, problems = [], []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            caption = line.strip().decode("utf-8")
        except UnicodeDecodeError as error:
            problems.append(f"{path} line {number}: not UTF-8 ({error.reason} at byte {error.start})")
            caption = line.strip().decode("utf-8", errors="replace")
        if not caption.strip():
            problems.append(f"{path} line {number}: an empty caption")
        elif len(caption) > MAX_CAPTION:
            problems.append(f"{path} line {number}: {len(caption):,} characters; expected {MAX_CAPTION:,} at most")
        captions.append(caption)
    return captions, problems


def read_text_lines(path: pathlib.Path) -> list[str]:
    """Returns the lines of a file of ids or names, without white space around them.

    Raises:
      InputError: the file is missing, or not UTF-8.
    """
    try:
        return [line.decode("utf-8").strip() for line in read_lines(path)]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason})") from error


def read_lines(path: pathlib.Path) -> list[bytes]:
    """Returns the lines of a text file, without line endings, byte order mark, and blank lines at the end.

    Raises:
      InputError: the file is missing, cannot be read, or is a web page.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    check_no_web_page(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
