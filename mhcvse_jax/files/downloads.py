"""Files that are not what their names say, such as failed downloads."""

import tarfile
from pathlib import Path

from mhcvse_jax.errors import InputError

_SNIFFED = 1024  # bytes
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def check_no_web_page(path: str | Path) -> None:
    """Raises InputError where a file holds a web page, whatever its name; a file that cannot be read is let through."""
    start = _start(path).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_PAGES):
        raise InputError(
            f"{path} is a web page: the download failed, perhaps because of a login or a quota; download it again"
        )


def check_unpacked(path: str | Path) -> None:
    """Raises InputError where a file is a web page, or an archive that is still to be unpacked."""
    check_no_web_page(path)
    start = _start(path)
    kinds = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7-Zip"}
    kind = next((kind for magic, kind in kinds.items() if start.startswith(magic)), None)
    if kind is None and start[257:262] == b"ustar" and tarfile.is_tarfile(path):
        kind = "tar"
    if kind:
        raise InputError(f"{path} is a {kind} archive; unpack it, and give the path of the file inside")


def _start(path: str | Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_SNIFFED)
    except OSError:
        return b""
