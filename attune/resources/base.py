"""What all answers have in common."""

from pydantic import BaseModel, ConfigDict


class Resource(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ResourceError(Resource):
    """Why a job or a dataset failed."""

    code: str
    message: str
    category: str
    retryable: bool
    hint: str | None = None
