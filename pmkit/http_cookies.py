"""The cookie jar of a session. Imported by `http_pool` when a session opens: httpx is loaded then anyway."""

from __future__ import annotations

import httpx


class Cookies(httpx.Cookies):
    """Looking for cookies in an answer that sets none takes 0.1 ms a request: httpx makes objects of urllib for it."""

    def extract_cookies(self, response: httpx.Response) -> None:
        if "set-cookie" in response.headers:
            super().extract_cookies(response)
