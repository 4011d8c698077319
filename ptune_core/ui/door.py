"""Who may enter where gradio's own login does not look: downloads, and the tools for language models."""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ptune_core.app import texts

GUARDED = ("/adapters/", "/downloads/", "/gradio_api/mcp")
"""Parts of a path. They are looked for anywhere in it, so that no prefix or doubled slash leads around them."""


class Door:
    """Middleware that asks for gradio's login, or for name and password in the request, where gradio asks for nothing.

    Gradio covers its page, its endpoints and its files; routes of ours and its MCP server are open to everybody.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and any(part in scope["path"] for part in GUARDED) and not _may_enter(scope):
            app = PlainTextResponse(texts.LOG_IN, 401, headers={"WWW-Authenticate": 'Basic realm="PTune"'})
        await app(scope, receive, send)


def _may_enter(scope: Scope) -> bool:
    page: Any = scope["app"]  # gradio's App
    if page.auth is None:
        return True
    request = Request(scope)
    cookies = (f"access-token-{page.cookie_id}", f"access-token-unsecure-{page.cookie_id}")
    if any(request.cookies.get(name) in page.tokens for name in cookies):
        return True
    name, password = _basic(request.headers.get("Authorization", ""))
    known = page.auth.get(name)
    return known is not None and secrets.compare_digest(password.encode(), known.encode())


def _basic(header: str) -> tuple[str, str]:
    """Name and password of an `Authorization: Basic` header; empty ones if it is none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password
