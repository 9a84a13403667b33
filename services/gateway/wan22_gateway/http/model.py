"""What requests and answers are declared by: it validates them, and the OpenAPI document is made from it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Refuses fields that it does not know; an attribute's docstring is its description in the document."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, strict=True, allow_inf_nan=False)


class Query(BaseModel):
    """What comes in a query: texts, which are read as the type that is declared."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
