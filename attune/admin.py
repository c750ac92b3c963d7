"""What the admins of a project do over HTTP. `client.admin` is one of these; it asks for a key with the scope `admin`.

secret = client.admin.create_key("build server", scope="submit", expires_in_days=90).key
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from attune.connection import Connection, segment
from attune.requests import given
from attune.resources.access import ApiKey, AuditEntry, BrowserSession, NewKey, Quota, Usage

Scope = Literal["read", "submit", "admin"]
Outcome = Literal["done", "refused", "failed"]


class Admin:
    """Keys, the audit log and the quotas of the project. Every method raises `AttuneError` when the server says no or does not answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create_key(self, name: str, *, scope: Scope | None = None, expires_in_days: int | None = None) -> NewKey:
        """A new key; its secret is in this answer alone."""
        body = given({"name": name, "scope": scope, "expires_in_days": expires_in_days})
        return NewKey.model_validate(self._connection.request("POST", "/v1/keys", json=body))

    def list_keys(self) -> Iterator[ApiKey]:
        """Keys, newest first, revoked and expired ones too."""
        return (ApiKey.model_validate(entry) for entry in self._connection.pages("/v1/keys", []))

    def get_key(self, key_id: str) -> ApiKey:
        return ApiKey.model_validate(self._connection.request("GET", f"/v1/keys/{segment(key_id)}"))

    def rotate_key(self, key_id: str, *, grace_seconds: int | None = None) -> NewKey:
        """A new key in place of one that goes on for `grace_seconds`, a day when left out."""
        body = given({"grace_seconds": grace_seconds})
        return NewKey.model_validate(self._connection.request("POST", f"/v1/keys/{segment(key_id)}/rotate", json=body))

    def revoke_key(self, key_id: str) -> ApiKey:
        """Have the key refused from now on; asking twice is no error."""
        return ApiKey.model_validate(self._connection.request("POST", f"/v1/keys/{segment(key_id)}/revoke"))

    def sessions(self) -> Iterator[BrowserSession]:
        """Browsers that are signed in, newest first: with any key of the project, for who is no admin with the own one."""
        return (BrowserSession.model_validate(entry) for entry in self._connection.pages("/v1/sessions", []))

    def end_session(self, session_id: str) -> None:
        """Sign a browser out."""
        self._connection.request("DELETE", f"/v1/sessions/{segment(session_id)}")

    def audit(
        self,
        *,
        key_id: str | None = None,
        object_id: str | None = None,
        action: str | None = None,
        outcome: Outcome | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[AuditEntry]:
        """Who did what, newest first, page by page as they are needed; every filter that is given must hold."""
        times = {"since": since and since.isoformat(), "until": until and until.isoformat()}
        filters = given({"key_id": key_id, "object_id": object_id, "action": action, "outcome": outcome, **times})
        return (AuditEntry.model_validate(one) for one in self._connection.pages("/v1/audit", list(filters.items())))

    def usage(self, *, since: datetime | None = None, until: datetime | None = None) -> Usage:
        """What the attempts took that ended at `since` or later and before `until`."""
        times = given({"since": since and since.isoformat(), "until": until and until.isoformat()})
        return Usage.model_validate(self._connection.request("GET", "/v1/usage", params=times))

    def quotas(self) -> list[Quota]:
        """What the project may take and has taken; every key may ask."""
        return [Quota.model_validate(one) for one in self._connection.request("GET", "/v1/quotas")["data"]]
