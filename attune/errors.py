"""What the client raises: the server's problem (RFC 9457) as an exception."""

from typing import Any

import httpx


class AttuneError(Exception):
    """A request that did not succeed. `status` is None when no server answered.

    `code` is stable; `errors` names the fields that are wrong, each `{pointer, code, message}`.
    """

    def __init__(self, problem: dict[str, Any]) -> None:
        self.problem = problem
        self.status: int | None = problem.get("status")
        self.code: str = problem.get("code", "unknown")
        self.detail: str = problem.get("detail") or problem.get("title") or "no detail was given"
        self.request_id: str | None = problem.get("request_id")
        self.errors: list[dict[str, Any]] = problem.get("errors") or []
        super().__init__(self._text())

    @classmethod
    def of_response(cls, response: httpx.Response) -> "AttuneError":
        """The problem of an answer whose body has been read."""
        try:
            problem = response.json()
        except ValueError:
            problem = None
        if not isinstance(problem, dict):
            problem = {"code": "no_problem_document", "detail": f"the server answered {response.reason_phrase}"}
        return cls({"status": response.status_code, **problem})

    @classmethod
    def unreachable(cls, base_url: object, error: httpx.HTTPError) -> "AttuneError":
        detail = f"{base_url} did not answer: {str(error) or type(error).__name__}"
        return cls({"status": None, "code": "unreachable", "detail": detail})

    @classmethod
    def not_attune(cls, base_url: object) -> "AttuneError":
        detail = f"{base_url} answered with something that is not JSON; is it the address of an Attune server?"
        return cls({"status": None, "code": "not_json", "detail": detail})

    def _text(self) -> str:
        lines = [f"{entry.get('pointer') or 'body'}: {entry.get('message', '')}" for entry in self.errors]
        match lines:
            case []:
                return f"{self.detail} [{self.code}]"
            case [line] if line in self.detail:
                return f"{self.detail} [{self.code}]"
            case [first, *_] if first in self.detail:  # the detail only says the first of them once more
                headline = f"{len(lines)} things are wrong"
            case _:
                headline = self.detail
        return "\n  ".join([f"{headline} [{self.code}]", *lines])
