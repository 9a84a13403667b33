"""What came after release 0.1.0, whose code can ignore it and serves this schema, but none beyond it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("pools", sa.Column("earlier_versions", sa.Text(), nullable=True))
    op.add_column("pools", sa.Column("obstacle", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("model_version", sa.Text(), nullable=True))
    op.add_column("generations", sa.Column("asked_texts", sa.LargeBinary(), nullable=True))
    op.add_column("generations", sa.Column("preview_interval", sa.Integer(), nullable=True))
    op.add_column("tenants", sa.Column("max_media_bytes", sa.BigInteger(), nullable=True))
    op.add_column("media", sa.Column("size_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "previews",
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["generation"], ["generations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("generation"),
    )
