"""What a spec may name."""

from attune.resources.base import Resource


class CatalogEntry(Resource):
    """A model, a method or a reward that a spec may name; of a model also what its files say, once they have been read."""

    id: str
    description: str
    family: str | None = None
    resolution: int | None = None
    num_parameters: int | None = None
    problem: str | None = None
