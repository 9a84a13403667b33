"""Workers of several model versions in one pool, while they are replaced."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("pools", sa.Column("earlier_versions", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("model_version", sa.Text(), nullable=True))
