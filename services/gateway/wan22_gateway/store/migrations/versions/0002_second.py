"""What came after release 0.1.0, whose code can ignore it: versions of workers in one pool, texts before a hook."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("pools", sa.Column("earlier_versions", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("model_version", sa.Text(), nullable=True))
    op.add_column("generations", sa.Column("asked_texts", sa.LargeBinary(), nullable=True))
