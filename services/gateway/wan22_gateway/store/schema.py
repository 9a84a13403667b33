"""The tables. Times are microseconds since 1970 by the store's clock; messages are serialized protobuf."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()
POSITION = BigInteger().with_variant(Integer(), "sqlite")  # which numbers rows by itself in an INTEGER alone

identity = Table(
    "identity",
    metadata,
    Column("store_epoch", Text, primary_key=True),  # another one after a restore
    Column("page_key", LargeBinary, nullable=False),  # signs page tokens
)

generations = Table(
    "generations",
    metadata,
    Column("position", POSITION, primary_key=True, autoincrement=True),  # order of acceptance
    Column("id", Text, nullable=False, unique=True),
    Column("tenant", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("parameters", LargeBinary, nullable=False),  # generation_pb2.Parameters, complete
    Column("labels", JSON, nullable=False),  # an object of strings
    Column("cut_texts", Text, nullable=False, default="{}"),  # JSON: tokens that a text had before it was cut
    Column("siblings", Text, nullable=False, default="[]"),  # JSON: ids of the request's generations, by seed
    Column("predicted_seconds", Float, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger),
    Column("cancel_requested_time", BigInteger),
    Column("attempt_count", Integer, nullable=False, default=0),
    Column("progress", LargeBinary),  # generation_pb2.Progress
    Column("error", LargeBinary),  # google.rpc.Status
    Column("video_key", Text),
    Column("video_size", BigInteger),
    Column("video_digest", Text),
    Column("video_expire_time", BigInteger),  # null: kept as long as the row
    Column("keep_for", BigInteger),  # microseconds from the video's making to that; null likewise
    # Reuse: what the request decides of the video, what the worker does, and whose video answered it.
    Column("inputs_digest", Text, nullable=False, default=""),
    Column("numerics_digest", Text, nullable=False, default=""),  # empty until there is a video
    Column("reused_from", Text),
    Column("webhook_url", Text),  # of the request, in place of its tenant's
    Column("last_sequence", BigInteger, nullable=False, default=0),
    # The claim: which worker runs or is about to run it, and which gateway process speaks for it.
    Column("claimed_worker", Text),
    Column("claimed_incarnation", Text),
    Column("claimed_attempt", Integer, nullable=False, default=0),
    Column("owner", Text),
    Column("owner_epoch", BigInteger, nullable=False, default=0),
    Column("lease_expire_time", BigInteger),
    # Since when it waits again, and why its next attempt starts at step 0 although there was a checkpoint.
    Column("requeue_time", BigInteger),
    Column("restart_reason", Text, nullable=False, default=""),
    # Scheduling.
    Column("priority", Integer, nullable=False, default=2),  # generation_pb2.Generation.Priority
    Column("deadline", BigInteger),
    Column("start_by_time", BigInteger),  # the latest start that makes the deadline, as far as speed is known
    Column(
        "charged_seconds", Float, nullable=False, default=0.0
    ),  # what its tenant was charged; in the end what it used
    Column("asked_texts", LargeBinary),  # generation_pb2.AskedTexts, where the prompt hook has changed them
    Column("economy", LargeBinary),  # generation_pb2.Economy: what an attempt had to do to need less memory
    Column("preview_interval", Integer),  # steps from one preview to the next; null: none
    Index("generations_by_queue", "state", "pool", "position"),
    Index("generations_by_tenant", "tenant", "position"),
    Index("generations_by_turn", "state", "pool", "tenant", "priority", "position"),
    Index("generations_by_start", "state", "start_by_time"),
    Index("generations_by_inputs", "tenant", "inputs_digest"),
    Index("generations_by_expiry", "video_expire_time"),
    Index("generations_by_end", "end_time"),
    sqlite_autoincrement=True,
)

requests = Table(
    "requests",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("generation", Text, nullable=False),
    Column("digest", Text, nullable=False),  # SHA-256 of the request as it came
    Column("create_time", BigInteger, nullable=False),
    Column("free_time", BigInteger),  # when it may be used anew; null while its generation is there
    Index("requests_by_generation", "generation"),
    Index("requests_by_free_time", "free_time"),
)

events = Table(
    "events",
    metadata,
    Column("generation", Text, ForeignKey("generations.id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("message", LargeBinary, nullable=False),  # generation_pb2.GenerationEvent
)

previews = Table(  # the newest of a running generation, by which watchers at all replicas have it
    "previews",
    metadata,
    Column("generation", Text, ForeignKey("generations.id", ondelete="CASCADE"), primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("message", LargeBinary, nullable=False),  # generation_pb2.Preview
)

attempts = Table(
    "attempts",
    metadata,
    Column("generation", Text, ForeignKey("generations.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("worker", Text, nullable=False),
    Column("worker_uid", Text, nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
    Column("outcome", Text),  # succeeded, failed, cancelled, died, silent (it may have died) or lost otherwise
    Column("resumed_step", Integer, nullable=False),  # of the checkpoint that it went on from; 0 without one
    Column("restart_reason", Text, nullable=False),  # why without one although there was one
    Column("progress", LargeBinary),  # generation_pb2.Progress, as far as it had come when its worker was lost
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("url", Text, nullable=False),  # empty: only what requests name
    Column("include_prompt", Boolean, nullable=False),
    Column("secret", Text, nullable=False),  # it signs, so that a digest would not do
    Column("secret_create_time", BigInteger, nullable=False),
    Column("previous_secret", Text),
    Column("previous_secret_expire_time", BigInteger),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),  # the header webhook-id
    Column("tenant", Text, nullable=False),
    Column("generation", Text, nullable=False),  # which may have been deleted since
    Column("url", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # as it is signed and sent
    Column("state", Text, nullable=False),  # webhook_pb2.Delivery.State, by name
    Column("create_time", BigInteger, nullable=False),
    Column("attempt_count", Integer, nullable=False, default=0),
    Column("tries_left", Integer, nullable=False),
    Column("next_time", BigInteger, nullable=False),
    Column("lease_expire_time", BigInteger, nullable=False, default=0),  # of the try under way
    Column("last_error", Text, nullable=False, default=""),
    Column("end_time", BigInteger),
    Index("deliveries_by_time", "state", "next_time"),
    Index("deliveries_by_tenant", "tenant", "create_time"),
    Index("deliveries_by_generation", "generation"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("generation", Text, primary_key=True),  # which may have been deleted since
    Column("tenant", Text, nullable=False),
    Column("likeness", Text, nullable=False),  # digest of all that determines it but the seed
    Column("quarantine_time", BigInteger, nullable=False),
    Column("release_time", BigInteger),
    Column("evidence", LargeBinary, nullable=False),  # admin_pb2.Quarantined
    Index("quarantine_by_likeness", "tenant", "likeness"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("key", Text, primary_key=True),  # of its object
    Column("generation", Text, ForeignKey("generations.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("numerics_digest", Text, nullable=False),
    Index("checkpoints_by_generation", "generation", "step"),
)

pools = Table(
    "pools",
    metadata,
    Column("name", Text, primary_key=True),
    Column("variant", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("max_workers", Integer, nullable=False),
    Column("default_for_variant", Boolean, nullable=False),
    Column("distilled", Boolean, nullable=False),
    Column("worker_targets", Text, nullable=False),  # a JSON list of host:port
    Column("apply_time", BigInteger, nullable=False),
    Column("cost_model", Text),  # JSON, see cost.py; null before the first generation
    Column("virtual_time", Float, nullable=False, default=0.0),  # of fair shares, see scheduling/shares.py
    Column("earlier_versions", Text),  # a JSON list, of some workers still; null from an older gateway
    Column("obstacle", Text),  # why no worker comes; null when nothing is in its way
)

tenants = Table(
    "tenants",
    metadata,
    Column("name", Text, primary_key=True),
    Column("weight", Float, nullable=False),
    Column("max_queued", Integer),
    Column("max_running", Integer),
    Column("gpu_seconds_per_day", Float),
    Column("create_time", BigInteger, nullable=False),
    Column("declared", Boolean, nullable=False, default=False),  # by the file of tenants and keys
    Column("max_media_bytes", BigInteger),
)

keys = Table(
    "keys",
    metadata,
    Column("digest", Text, primary_key=True),  # SHA-256 of the whole key, hex: 256 random bits need no slow hash
    Column("id", Text, nullable=False, unique=True),
    Column("tenant", Text, nullable=False),
    Column("roles", Text, nullable=False),  # a JSON list
    Column("description", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger),
    Column("revoke_time", BigInteger),
    Column("declared", Boolean, nullable=False, default=False),  # by the file of tenants and keys
)

shares = Table(
    "shares",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("tenant", Text, primary_key=True),
    Column("tag", Float, nullable=False),
    Column("priority_time", Float, nullable=False),
    Column("low_tag", Float, nullable=False),
    Column("normal_tag", Float, nullable=False),
    Column("high_tag", Float, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("day", Integer, primary_key=True),  # days since 1970, UTC
    Column("variant", Text, primary_key=True),
    Column("generations", Integer, nullable=False),  # that ended on the day
    Column("succeeded", Integer, nullable=False),
    Column("gpu_seconds", Float, nullable=False),
    Column("videos", Integer, nullable=False, default=0),  # that were made
    Column("video_bytes", BigInteger, nullable=False, default=0),  # of these
    Column("reused", Integer, nullable=False, default=0),  # that were answered by an earlier video
)

workers = Table(
    "workers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("uid", Text, nullable=False),
    Column("incarnation", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("state", Text, nullable=False),  # inference_pb2.Worker.State, by name
    Column("bytes_total", BigInteger, nullable=False),
    Column("bytes_loaded", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
    Column("numerics_digest", Text, nullable=False),  # empty while it loads
    Column("memory", LargeBinary),  # inference_pb2.Worker.Memory; null while unknown or unbounded
    Column("lease_expire_time", BigInteger, nullable=False),
    Column("lost", Boolean, nullable=False),  # it was asked after its lease had lapsed, and did not answer
    Column("drain_expire_time", BigInteger),
    Column("generation", Text),  # claimed for it
    Column("prepared", Text),  # claimed for it beside that one, to start after it
    Column("refuses_beside", Text),  # the generation beside which it prepares none: it said so
    Column("model_version", Text),  # null until it has said so to a gateway that asks: then its pool's
    Index("workers_by_pool", "pool"),
)

media = Table(
    "media",
    metadata,
    Column("id", Text, primary_key=True),  # SHA-256 of the normalised PNG, hex
    Column("tenant", Text, primary_key=True),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("key", Text, nullable=False),  # of its object
    Column("create_time", BigInteger, nullable=False),
    Column("use_time", BigInteger, nullable=False),  # when it was last uploaded, or last referred to
    Column("size_bytes", BigInteger),  # of the PNG; null from an older gateway
    Index("media_by_use", "use_time"),
)

labels = Table(  # beside the column of generations, for filters: a key's text may be anything
    "labels",
    metadata,
    Column("generation", Text, ForeignKey("generations.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

media_uses = Table(
    "media_uses",
    metadata,
    Column("generation", Text, ForeignKey("generations.id", ondelete="CASCADE"), primary_key=True),
    Column("media", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Index("media_uses_by_media", "tenant", "media"),
)

objects = Table(
    "objects",
    metadata,
    Column("key", Text, primary_key=True),
    Column("state", Text, nullable=False),  # pending (being written), live, garbage (to be deleted)
    Column("create_time", BigInteger, nullable=False),
)

# In PostgreSQL, where several processes write: one row a transaction, kept for minutes. SQLite needs none.
commits = Table(
    "commits",
    metadata,
    Column("id", Text, primary_key=True),
    Column("transaction_number", BigInteger, nullable=False),  # pg_current_xact_id()
    Column("is_topical", Boolean, nullable=False),  # it notified a topic that reads remember something of
    Column("time", BigInteger, nullable=False),
    Index("commits_by_transaction", "transaction_number"),
)
