"""S3 and its relatives, by boto3 or obstore."""

from __future__ import annotations

from .backend import S3Backend

__all__ = ["S3Backend"]
