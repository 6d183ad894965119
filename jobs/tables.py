"""The tables, as the newest migration leaves them. A test compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("owner", String(200), nullable=False),
    Column("state", String(10), nullable=False, index=True),
    Column("plan", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("search_text", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("alone", Boolean, nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Column("priority", String(10), nullable=False, server_default="normal"),
    Column("start_by", Float(53)),
    Column("created_at", Float(53), nullable=False),
    Column("started_at", Float(53)),
    Column("ended_at", Float(53)),
    Index("ix_jobs_owner_number", "owner", "number"),
    sqlite_autoincrement=True,
)
"""`number` orders jobs by submission; `alone`: a worker died while it ran this one; times are Unix times;
`start_by`: a job that still waits then fails."""

images = Table(
    "images",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("job_id", String(36), ForeignKey("jobs.id"), nullable=False),
    Column("place", Integer, nullable=False),
    Column("path", String(200), nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("content_type", String(40), nullable=False),
    Column("plan", Text),
    Column("extras", Text),
    Column("created_at", Float(53), nullable=False),
    Column("deleted_at", Float(53), index=True),
    UniqueConstraint("job_id", "place", name="uq_images_job_id_place"),
    sqlite_autoincrement=True,
)
"""`place` is the image's index in the job's plan; `path` is below the output folder; `plan` is the image's own as it was
painted, null where that is the job's; `extras`: JSON, paths of further files by what they are."""

events = Table(
    "events",
    metadata,
    Column("job_id", String(36), ForeignKey("jobs.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
)
"""The part of each story that is kept; `body` is what `jobs.record` writes."""

calls = Table(
    "calls",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("endpoint", String(100), nullable=False),
    Column("has_job", Boolean, nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("webhook", Text),
    Column("sync_mode", Boolean, nullable=False),
    Column("cdn", Text, nullable=False),
    Column("log", Text),
    Column("created_at", Float(53), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_try_at", Float(53), index=True),
)
"""Calls of programs, by the id of their jobs; `status` and `error` where one became no job; `log` is written when the job
ends; `next_try_at` is null where no webhook is to be called."""

lives = Table(
    "lives",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("started_at", Float(53), nullable=False),
    sqlite_autoincrement=True,
)
"""One row for each start of the server."""
