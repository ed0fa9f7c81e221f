"""What can go wrong with AWS, in words for whoever asked."""

from __future__ import annotations


class AwsError(Exception):
    """AWS did not do what it was asked; the message says what, why and what to do.

    Attributes:
        code: AWS's name of the error, "AccessDenied"; empty when AWS was not reached.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code
