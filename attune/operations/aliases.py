"""Names of checkpoints, and how they came by them."""

from collections.abc import Iterator

from attune.connection import Connected, segment
from attune.requests import given, key_headers
from attune.resources.promotions import Alias, Promotion


def promote(
    client: Connected,
    checkpoint_id: str,
    alias: str = "champion",
    *,
    evaluation_id: str | None = None,
    force: bool = False,
    reason: str | None = None,
    idempotency_key: str | None = None,
) -> Promotion:
    """Point a name at a checkpoint; jobs then name it as their model, `"@champion"`.

    Its job's own report has to show that it is better, or that of `evaluation_id`, in which it competes.
    Raises `AttuneError` with the code `promotion_unproven` where no report shows that it is better; `force` with a `reason` promotes anyhow.
    """
    told = {"evaluation_id": evaluation_id, "force": force or None, "reason": reason}
    body = given({"checkpoint_id": checkpoint_id, "alias": alias, **told})
    answer = client.connection.request("POST", "/v1/promotions", json=body, headers=key_headers(idempotency_key))
    return Promotion.model_validate(answer)


def aliases(client: Connected) -> list[Alias]:
    """The project's names, in their order."""
    return [Alias.model_validate(entry) for entry in client.connection.pages("/v1/aliases", [])]


def get_alias(client: Connected, alias: str) -> Alias:
    """What the name points at, with the report that earned it."""
    return Alias.model_validate(client.connection.request("GET", f"/v1/aliases/{segment(alias)}"))


def promotions(client: Connected, alias: str | None = None) -> Iterator[Promotion]:
    """The history of a name, or of all of them, newest first, page by page as they are needed."""
    only = [] if alias is None else [("alias", alias)]
    return (Promotion.model_validate(entry) for entry in client.connection.pages("/v1/promotions", only))


def get_promotion(client: Connected, promotion_id: str) -> Promotion:
    return Promotion.model_validate(client.connection.request("GET", f"/v1/promotions/{segment(promotion_id)}"))


def delete_alias(client: Connected, alias: str) -> None:
    """Take a name away; its history stays, and so does the checkpoint."""
    client.connection.request("DELETE", f"/v1/aliases/{segment(alias)}")
