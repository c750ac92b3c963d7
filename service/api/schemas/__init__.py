"""What the API answers, as pydantic models with an example each; one file a resource."""
