"""What users call their things, and the pairs by which they find them again."""

import re
from typing import Annotated

from pydantic import Field, StringConstraints

from alignment_core.spec.sources import WITHOUT_NUL

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=WITHOUT_NUL)]
METADATA_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MetadataKey = Annotated[str, StringConstraints(pattern=f"^{METADATA_KEY.pattern}$")]
MetadataValue = Annotated[str, StringConstraints(max_length=512, pattern=WITHOUT_NUL)]

NameForPeople = Annotated[Text | None, Field(description="A name for people.")]
Metadata = Annotated[
    dict[MetadataKey, MetadataValue],
    Field(max_length=16, description="Up to 16 pairs to filter lists by: `?metadata[team]=design`."),
]
