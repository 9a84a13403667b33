"""The one error of this package."""

from __future__ import annotations


class MalformedFile(ValueError):
    """A file that is not what its name says; the text tells why and fits after "it is damaged:".

    Callers know whose file it is: what a client sends is an InvalidRequest, what a volume gives back is DataLoss.
    """
