"""Fetch a weights file: bounded, hashed while it arrives, kept whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO, NoReturn
from urllib.parse import urlsplit

from ..cards import WeightsCard
from ..errors import WeightsError
from ..files import require_space, write_atomic
from ..progress import Progress
from .sources import digits_named, kept_path, known_sha256, remember_sha256, url_of

_LIMIT_BYTES = 8 << 30  # where the card states no size
_PIECE_BYTES = 1 << 20
_TIMEOUT_S = 30.0  # without any byte
_UNREACHABLE = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)
_LOCAL = ("localhost", "127.0.0.1", "::1")


def fetch(card: WeightsCard, where: str, say: Progress | None = None) -> Path:
    """Fetch the weights of a card into `MEDXFER_HOME/weights`.

    Proxies are those of the environment (`https_proxy`, `no_proxy`); `HF_ENDPOINT` replaces the hub,
    `HF_HUB_OFFLINE=1` forbids it.

    Args:
        card: With a source that is fetched.
        where: What messages begin with.
        say: Shows the bar; default: a new one.

    Returns:
        The file, whose size and hash are those on the card.

    Raises:
        WeightsError: Offline, refused by the server, or another content; nothing is kept.
        RunError: No space, or no permission to write.
    """
    url = url_of(card.source)
    assert url is not None  # `require` asks for nothing else
    target = kept_path(card)
    size = f"a file of {card.size_bytes} bytes" if card.size_bytes else "a file"
    known, digits = known_sha256(card), digits_named(card)
    if not known and digits:
        known = f"{digits}..., as its name says"
    accepted = f"{size} with sha256 {known}" if known else f"{size}; the publisher states no hash"
    digests: list[str] = []

    def write(temporary: Path) -> None:
        try:
            digests.append(_stream(url, temporary, card, say or Progress()))
        except _Refused as error:
            _refuse(where, str(error), accepted, url, target)
        except urllib.error.HTTPError as error:
            error.close()
            _refuse(where, f"cannot be fetched: HTTP {error.code} {error.reason}", accepted, url, target)
        except _UNREACHABLE as error:
            reason = getattr(error, "reason", None) or error or type(error).__name__
            _refuse(where, f"cannot be fetched: {reason}", accepted, url, target)

    if card.source[:3] == "hf:" and os.environ.get("HF_HUB_OFFLINE") == "1":
        _refuse(where, "not on this machine, and HF_HUB_OFFLINE is set", accepted, url, target)
    if card.size_bytes:
        require_space(target.parent, card.size_bytes)
    write_atomic(target, write)
    remember_sha256(target, digests[0])
    return target


class _Refused(Exception):
    """What came is not what was asked for."""


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a server's redirects, but never to an unprotected address."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """Refuse plain http, and what is neither."""
        _require_protected(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _require_protected(url: str) -> None:
    """Plain http only within this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
        raise _Refused(f"led to {parts.scheme}://{parts.hostname}, which is not protected by https")


def _stream(url: str, temporary: Path, card: WeightsCard, say: Progress) -> str:
    """Write what the server sends to `temporary`, checked while it comes; returns its hash."""
    _require_protected(url)
    opener = urllib.request.build_opener(_SafeRedirects)
    request = urllib.request.Request(url, headers={"User-Agent": "medxfer"})
    with opener.open(request, timeout=_TIMEOUT_S) as answer, temporary.open("wb") as file:
        announced = answer.headers.get("Content-Length")
        length = int(announced) if announced and announced.isdigit() else None
        if card.size_bytes and length not in (None, card.size_bytes):
            page = no_weights(answer.read(_PIECE_BYTES))
            raise _Refused(_sent(page) if page else f"the server announces {length} bytes")
        limit = card.size_bytes or _LIMIT_BYTES
        hashed, count = hashlib.sha256(), 0
        title = f"fetching {Path(urlsplit(url).path).name} (MB)"
        with say.bar(title, max((card.size_bytes or length or 0) // _PIECE_BYTES, 1)) as advance:
            while piece := answer.read(_PIECE_BYTES):
                if count == 0 and (page := no_weights(piece)):
                    raise _Refused(_sent(page))
                count += len(piece)
                if count > limit:
                    raise _Refused(f"more than {limit} bytes")
                hashed.update(piece)
                file.write(piece)
                advance()
    if count == 0 or count != (card.size_bytes or length or count):
        raise _Refused(f"the connection ended after {count} bytes of {card.size_bytes or length}")
    digest, wanted = hashed.hexdigest(), known_sha256(card)
    if not digest.startswith(wanted or digits_named(card)):
        raise _Refused(f"sha256 {digest}")
    return digest


def no_weights(begin: bytes) -> tuple[str, str] | None:
    """What a file is, and what to do about it, where its first bytes tell that it is no weights file."""
    text = begin[:64].lstrip().lower()
    if not begin:
        return "an empty file", "fetch or copy it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a page (HTML)", "open the address in a browser: it may ask for a login, or name another one"
    if text.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer", "run `git lfs pull`"
    return None


def _sent(page: tuple[str, str]) -> str:
    return f"the server sent {page[0]}, not the file"


def _refuse(where: str, seen: str, accepted: str, url: str, target: Path) -> NoReturn:
    todo = f"fetch {url} where there is a network, and put it at {target}"
    raise WeightsError(where, seen, accepted, todo)
