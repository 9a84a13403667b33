"""How a registry wants to be told who asks: basic (RFC 7617), or a bearer token of its token server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import httpx

from wan22.errors import FailedPrecondition, PermissionDenied, Unavailable
from wan22.oci.credentials import Credentials, stored_credentials

_PARAMETER = re.compile(r'([a-zA-Z]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')
CLIENT_ID = "wan22"


class Authorization:
    """Answers the challenges of one registry, for one repository.

    Basic credentials and tokens go over plain HTTP only where the registry itself is asked so.
    """

    def __init__(self, http: httpx.AsyncClient, host: str, scope: str, *, plain_http: bool) -> None:
        """`scope` is that of tokens where a challenge names none: `repository:NAME:pull,push`."""
        self._http = http
        self._host = host
        self._scope = scope
        self._plain_http = plain_http
        self.header: str | None = None
        """The value of the Authorization header that the last challenge asked for."""

    async def answer(self, challenges: Sequence[str]) -> None:
        """Sets the header by the WWW-Authenticate headers of a 401.

        Raises PermissionDenied where there are no credentials or they are refused, FailedPrecondition for a way of
        asking that this client does not know.
        """
        credentials = await asyncio.to_thread(stored_credentials, self._host)
        for challenge in challenges:
            scheme, _, rest = challenge.strip().partition(" ")
            if scheme.lower() == "bearer":
                parameters = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(rest)}
                self.header = "Bearer " + await self._token(parameters, credentials)
                return
        if any(challenge.strip().lower().startswith("basic") for challenge in challenges):
            if credentials is None:
                raise self._unknown()
            self.header = credentials.basic
            return
        text = f"{self._host} asks for {'; '.join(challenges) or 'nothing'}, and this program knows Basic and Bearer."
        raise FailedPrecondition(text)

    def _unknown(self) -> PermissionDenied:
        return PermissionDenied(f"{self._host} wants to know who asks: log in by `docker login {self._host}`.")

    async def _token(self, parameters: dict[str, str], credentials: Credentials | None) -> str:
        """A token, by https://distribution.github.io/distribution/spec/auth/token/ and, of an identity token, oauth."""
        realm = parameters.get("realm", "")
        if not realm.startswith("https://") and not (self._plain_http and realm.startswith("http://")):
            raise FailedPrecondition(f"{self._host} names the token server {realm!r}, which is not https: not asked.")
        query = {"service": parameters.get("service", ""), "scope": parameters.get("scope", self._scope)}
        try:
            if credentials and credentials.identity_token:
                form = query | {
                    "grant_type": "refresh_token",
                    "refresh_token": credentials.identity_token,
                    "client_id": CLIENT_ID,
                }
                answer = await self._http.post(realm, data=form)
            else:
                headers = {"Authorization": credentials.basic} if credentials else {}
                answer = await self._http.get(realm, params=query, headers=headers)
        except httpx.TransportError as error:
            raise Unavailable(f"The token server {realm} of {self._host} does not answer: {error}.") from error
        if answer.status_code in {401, 403}:
            if credentials is None:
                raise self._unknown()
            raise PermissionDenied(f"{self._host} refuses the stored credentials: `docker login {self._host}` again.")
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Unavailable(f"The token server {realm} of {self._host} answers {answer.status_code}.")
        try:
            body = answer.raise_for_status().json()
            token = body.get("token") or body["access_token"]
        except (httpx.HTTPStatusError, ValueError, KeyError, AttributeError) as error:
            text = f"The token server {realm} of {self._host} answers {answer.status_code} without a token."
            raise FailedPrecondition(text) from error
        return str(token)
