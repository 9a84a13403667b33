"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "generations",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("parameters", sa.LargeBinary(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("cut_texts", sa.Text(), nullable=False),
        sa.Column("siblings", sa.Text(), nullable=False),
        sa.Column("predicted_seconds", sa.Float(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("cancel_requested_time", sa.BigInteger(), nullable=True),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("progress", sa.LargeBinary(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.Column("video_key", sa.Text(), nullable=True),
        sa.Column("video_size", sa.BigInteger(), nullable=True),
        sa.Column("video_digest", sa.Text(), nullable=True),
        sa.Column("video_expire_time", sa.BigInteger(), nullable=True),
        sa.Column("keep_for", sa.BigInteger(), nullable=True),
        sa.Column("inputs_digest", sa.Text(), nullable=False),
        sa.Column("numerics_digest", sa.Text(), nullable=False),
        sa.Column("reused_from", sa.Text(), nullable=True),
        sa.Column("webhook_url", sa.Text(), nullable=True),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("claimed_worker", sa.Text(), nullable=True),
        sa.Column("claimed_incarnation", sa.Text(), nullable=True),
        sa.Column("claimed_attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("owner_epoch", sa.BigInteger(), nullable=False),
        sa.Column("lease_expire_time", sa.BigInteger(), nullable=True),
        sa.Column("requeue_time", sa.BigInteger(), nullable=True),
        sa.Column("restart_reason", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=True),
        sa.Column("start_by_time", sa.BigInteger(), nullable=True),
        sa.Column("charged_seconds", sa.Float(), nullable=False),
        sa.Column("economy", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("position"),
        sa.UniqueConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("generations_by_queue", "generations", ["state", "pool", "position"], unique=False)
    op.create_index("generations_by_tenant", "generations", ["tenant", "position"], unique=False)
    turn = ["state", "pool", "tenant", "priority", "position"]
    op.create_index("generations_by_turn", "generations", turn, unique=False)
    op.create_index("generations_by_start", "generations", ["state", "start_by_time"], unique=False)
    op.create_index("generations_by_inputs", "generations", ["tenant", "inputs_digest"], unique=False)
    op.create_index("generations_by_expiry", "generations", ["video_expire_time"], unique=False)
    op.create_index("generations_by_end", "generations", ["end_time"], unique=False)
    op.create_table(
        "identity",
        sa.Column("store_epoch", sa.Text(), nullable=False),
        sa.Column("page_key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("store_epoch"),
    )
    op.create_table(
        "labels",
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["generation"], ["generations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("generation", "key"),
    )
    op.create_table(
        "media",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("use_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", "tenant"),
    )
    op.create_index("media_by_use", "media", ["use_time"], unique=False)
    op.create_table(
        "media_uses",
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("media", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["generation"], ["generations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("generation", "media"),
    )
    op.create_index("media_uses_by_media", "media_uses", ["tenant", "media"], unique=False)
    op.create_table(
        "objects",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "pools",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("max_workers", sa.Integer(), nullable=False),
        sa.Column("default_for_variant", sa.Boolean(), nullable=False),
        sa.Column("distilled", sa.Boolean(), nullable=False),
        sa.Column("worker_targets", sa.Text(), nullable=False),
        sa.Column("apply_time", sa.BigInteger(), nullable=False),
        sa.Column("cost_model", sa.Text(), nullable=True),
        sa.Column("virtual_time", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "tenants",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("max_queued", sa.Integer(), nullable=True),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.Column("gpu_seconds_per_day", sa.Float(), nullable=True),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("declared", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "keys",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.Column("revoke_time", sa.BigInteger(), nullable=True),
        sa.Column("declared", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "shares",
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("tag", sa.Float(), nullable=False),
        sa.Column("priority_time", sa.Float(), nullable=False),
        sa.Column("low_tag", sa.Float(), nullable=False),
        sa.Column("normal_tag", sa.Float(), nullable=False),
        sa.Column("high_tag", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("pool", "tenant"),
    )
    op.create_table(
        "usage",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("generations", sa.Integer(), nullable=False),
        sa.Column("succeeded", sa.Integer(), nullable=False),
        sa.Column("gpu_seconds", sa.Float(), nullable=False),
        sa.Column("videos", sa.Integer(), nullable=False),
        sa.Column("video_bytes", sa.BigInteger(), nullable=False),
        sa.Column("reused", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "day", "variant"),
    )
    op.create_table(
        "requests",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("free_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "request_id"),
    )
    op.create_index("requests_by_generation", "requests", ["generation"], unique=False)
    op.create_index("requests_by_free_time", "requests", ["free_time"], unique=False)
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("uid", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("bytes_total", sa.BigInteger(), nullable=False),
        sa.Column("bytes_loaded", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("numerics_digest", sa.Text(), nullable=False),
        sa.Column("memory", sa.LargeBinary(), nullable=True),
        sa.Column("lease_expire_time", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.Boolean(), nullable=False),
        sa.Column("drain_expire_time", sa.BigInteger(), nullable=True),
        sa.Column("generation", sa.Text(), nullable=True),
        sa.Column("prepared", sa.Text(), nullable=True),
        sa.Column("refuses_beside", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("workers_by_pool", "workers", ["pool"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("worker_uid", sa.Text(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("resumed_step", sa.Integer(), nullable=False),
        sa.Column("restart_reason", sa.Text(), nullable=False),
        sa.Column("progress", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["generation"], ["generations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("generation", "number"),
    )
    op.create_table(
        "webhooks",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("include_prompt", sa.Boolean(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("secret_create_time", sa.BigInteger(), nullable=False),
        sa.Column("previous_secret", sa.Text(), nullable=True),
        sa.Column("previous_secret_expire_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("tries_left", sa.Integer(), nullable=False),
        sa.Column("next_time", sa.BigInteger(), nullable=False),
        sa.Column("lease_expire_time", sa.BigInteger(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("deliveries_by_time", "deliveries", ["state", "next_time"], unique=False)
    op.create_index("deliveries_by_tenant", "deliveries", ["tenant", "create_time"], unique=False)
    op.create_index("deliveries_by_generation", "deliveries", ["generation"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("likeness", sa.Text(), nullable=False),
        sa.Column("quarantine_time", sa.BigInteger(), nullable=False),
        sa.Column("release_time", sa.BigInteger(), nullable=True),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("generation"),
    )
    op.create_index("quarantine_by_likeness", "quarantine", ["tenant", "likeness"], unique=False)
    op.create_table(
        "checkpoints",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("numerics_digest", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["generation"], ["generations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("checkpoints_by_generation", "checkpoints", ["generation", "step"], unique=False)
    op.create_table(
        "events",
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["generation"], ["generations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("generation", "sequence"),
    )
    op.create_table(
        "commits",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("transaction_number", sa.BigInteger(), nullable=False),
        sa.Column("is_topical", sa.Boolean(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("commits_by_transaction", "commits", ["transaction_number"])


def downgrade() -> None:
    op.drop_index("commits_by_transaction", table_name="commits")
    op.drop_table("commits")
    op.drop_table("events")
    op.drop_index("checkpoints_by_generation", table_name="checkpoints")
    op.drop_table("checkpoints")
    op.drop_index("deliveries_by_generation", table_name="deliveries")
    op.drop_index("deliveries_by_tenant", table_name="deliveries")
    op.drop_index("deliveries_by_time", table_name="deliveries")
    op.drop_table("deliveries")
    op.drop_table("webhooks")
    op.drop_index("quarantine_by_likeness", table_name="quarantine")
    op.drop_table("quarantine")
    op.drop_table("attempts")
    op.drop_index("workers_by_pool", table_name="workers")
    op.drop_table("workers")
    op.drop_table("usage")
    op.drop_table("shares")
    op.drop_table("keys")
    op.drop_table("tenants")
    op.drop_index("requests_by_free_time", table_name="requests")
    op.drop_index("requests_by_generation", table_name="requests")
    op.drop_table("requests")
    op.drop_table("pools")
    op.drop_table("objects")
    op.drop_index("media_uses_by_media", table_name="media_uses")
    op.drop_table("media_uses")
    op.drop_index("media_by_use", table_name="media")
    op.drop_table("media")
    op.drop_table("labels")
    op.drop_table("identity")
    op.drop_index("generations_by_end", table_name="generations")
    op.drop_index("generations_by_expiry", table_name="generations")
    op.drop_index("generations_by_inputs", table_name="generations")
    op.drop_index("generations_by_start", table_name="generations")
    op.drop_index("generations_by_turn", table_name="generations")
    op.drop_index("generations_by_tenant", table_name="generations")
    op.drop_index("generations_by_queue", table_name="generations")
    op.drop_table("generations")
