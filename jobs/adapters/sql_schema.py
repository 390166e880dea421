"""The tables. Times are seconds since 1970 in UTC, by the store's clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    false,
)
from sqlalchemy import Text as PlainText


class Text(TypeDecorator[str]):
    """Text that any branch may have written: PostgreSQL takes neither NUL nor half of a surrogate pair."""

    impl = PlainText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        """Put the replacement character where a character cannot be stored."""
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"})

# SQLite's rowid alias must be INTEGER; PostgreSQL gets 64 bits.
Id = BigInteger().with_variant(Integer(), "sqlite")

runs = Table(
    "runs",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("project", String(64), nullable=False),
    Column("ref", Text, nullable=False),
    Column("commit", String(64), nullable=False),
    Column("baseline_ref", Text),
    Column("baseline_commit", String(64)),
    Column("user", String(255), nullable=False),
    Column("note", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("units_filter", Text),
    Column("database", String(64)),
    Column("pool", String(64), nullable=False),
    Column("options", JSON, nullable=False),
    Column("parent", Id),
    Column("state", String(16), nullable=False),
    Column("verdict", String(16)),
    Column("reason_code", String(64)),
    Column("reason_text", Text),
    Column("units_total", Integer),
    Column("units_done", Integer, nullable=False, default=0),
    Column("units_failed", Integer, nullable=False, default=0),
    Column("units_different", Integer, nullable=False, default=0, server_default="0"),
    Column("units_accepted", Integer, nullable=False, default=0, server_default="0"),  # of those that differ
    Column("groups_accepted", Integer, nullable=False, default=0, server_default="0"),
    Column("compared_at", Float),  # when nothing of a compare run was left to compare
    Column("stop_code", String(64)),  # why a compare run was stopped before its end
    Column("stop_text", Text),
    Column("attempts", Integer, nullable=False, default=0),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("cleaning_until", Float),  # what is cleaned up now is not claimed before
    Column("cleaning_token", String(32)),  # of the clean-up that goes on; none once the run has ended anew
    Column("cleaned_at", Float),
    Column("search", Text, nullable=False),
    Column("outputs_removed_at", Float),  # from then on its outputs and its log are nobody's
    Column("outputs_removed_why", Text),
    Index("ix_runs_state_id", "state", "id"),
    Index("ix_runs_project_id", "project", "id"),
    Index("ix_runs_user_id", "user", "id"),
    Index("ix_runs_ref_id", "ref", "id"),
    Index("ix_runs_verdict_id", "verdict", "id"),
    Index("ix_runs_cleaned_at_id", "cleaned_at", "id"),
    sqlite_autoincrement=True,
)

legs = Table(
    "legs",
    metadata,
    Column("run", Id, primary_key=True),
    Column("name", String(16), primary_key=True),
    Column("ref", Text, nullable=False),
    Column("commit", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("spec_source", Text, nullable=False),
    Column("spec_text", Text, nullable=False),
    Column("spec_digest", String(64), nullable=False),
    Column("image", Text),
    Column("image_digest", Text),
    Column("data_id", Text),
    Column("template", JSON(none_as_null=True)),
    Column("prepared", Boolean, nullable=False, default=False),
    Column("reused", JSON(none_as_null=True)),  # the earlier leg that was looked at, see jobs.reusing.Reuse.record
    Column("database", Text),
    Column("snapshot", Text),
    Column("disk_limit", BigInteger),  # its limits.disk
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("run", Id, nullable=False),
    Column("leg", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("batch", Integer, nullable=False),
    Column("pool", String(64), nullable=False),
    Column("user", String(255), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("execution", Integer, nullable=False, default=0),
    Column("host", Text),
    Column("worker", Text),
    Column("lease_until", Float),
    Column("renewals", Integer, nullable=False, default=0),
    Column("progress", Boolean, nullable=False, default=False),
    Column("fruitless", Integer, nullable=False, default=0),
    Column("resume_token", Text),
    Column("resume_output", JSON(none_as_null=True)),
    Column("units_total", Integer, nullable=False, default=0),
    Column("units_done", Integer, nullable=False, default=0),
    Column("units_failed", Integer, nullable=False, default=0),
    Column("log_size", BigInteger, nullable=False, default=0),
    Column("need_bytes", BigInteger),  # what its workspace is expected to take, see jobs.adapters.sql_room
    Column("need_files", BigInteger),
    Column("reason_code", String(64)),
    Column("reason_text", Text),
    Column("created_at", Float, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("rung_at", Float),
    Column("started_at", Float),
    Column("finished_at", Float),
    Index("ix_tasks_run", "run"),
    Index("ix_tasks_state_pool", "state", "pool"),
    sqlite_autoincrement=True,
)

attempts = Table(
    "attempts",
    metadata,
    Column("task", Id, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("run", Id, nullable=False),
    Column("worker", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("outcome", String(16)),
    Column("reason_code", String(64)),
    Column("reason_text", Text),
    Column("log_offset", BigInteger, nullable=False),
    Index("ix_attempts_run", "run"),
    Index("ix_attempts_host_ended_at", "host", "ended_at"),  # since when a machine is idle
)

executions = Table(
    "executions",
    metadata,
    Column("task", Id, primary_key=True),
    Column("execution", Integer, primary_key=True),
    Column("run", Id, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("container", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("exit_code", Integer),
    Column("reason_code", String(64)),  # the branch's fault that it ended with
    Column("reason_text", Text),
    Column("peak_bytes", BigInteger),  # what its workspace took at most
    Column("peak_files", BigInteger),
    Column("log_offset", BigInteger, nullable=False, default=0),
    Column("mark_offset", BigInteger, nullable=False, default=0),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("kept_until", Float),  # workers of other hosts leave the task alone until then
    Index("ix_executions_host_state", "host", "state"),
)

steps = Table(
    "steps",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("run", Id, nullable=False),
    Column("task", Id, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seconds", Float),
    Column("detail", Text, nullable=False),
    Index("ix_steps_run", "run"),
    Index("ix_steps_task", "task"),
)

units = Table(
    "units",
    metadata,
    Column("run", Id, primary_key=True),
    Column("leg", String(16), primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("task", Id),
    Column("state", String(8), nullable=False),
    Column("text", Text, nullable=False, default=""),
    Column("output_name", Text),
    Column("output_digest", String(64)),
    Column("output_size", BigInteger),
    Column("output_tree", Boolean),
    Column("seconds", Float),
    Column("attempt", Integer),
    Index("ix_units_run_position", "run", "position"),
    Index("ix_units_run_state_position", "run", "state", "position"),
    Index("ix_units_task_state", "task", "state"),
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("task", Id, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("size", Integer, nullable=False),
    Column("data", LargeBinary),  # small chunks stand here,
    Column("object", String(64)),  # larger ones in the object store
)


def _tenant_of(context: Any) -> str:
    return str(context.get_current_parameters()["unit"]).rpartition("/")[0]


def _report_of(context: Any) -> str:
    return str(context.get_current_parameters()["unit"]).rpartition("/")[2]


comparisons = Table(
    "comparisons",
    metadata,
    Column("run", Id, primary_key=True, autoincrement=False),
    Column("unit", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("kind", String(20), nullable=False),  # a jobs.comparing.UnitClass
    Column("changed", BigInteger, nullable=False),  # rows
    Column("largest", Float),
    Column("summary", JSON, nullable=False),
    Column("rows", String(64)),  # the object that holds the stored differences
    Column("seconds", Float, nullable=False),
    Column("at", Float, nullable=False),
    # The two halves of a unit's name, parted at its last slash, so that a map of both is read from an index alone.
    Column("tenant", Text, nullable=False, default=_tenant_of, server_default=""),
    Column("report", Text, nullable=False, default=_report_of, server_default=""),
    Column("accepted", Boolean, nullable=False, default=False, server_default=false()),  # see jobs.accepting.explained
    Column("noisy", Boolean, nullable=False, default=False, server_default=false()),  # differs as its baseline does
    Index("ix_comparisons_run_position", "run", "position"),
    Index("ix_comparisons_run_kind_position", "run", "kind", "position"),
    Index("ix_comparisons_run_kind_tenant", "run", "kind", "tenant", "report"),
    Index("ix_comparisons_run_kind_accepted_position", "run", "kind", "accepted", "position"),
    Index("ix_comparisons_run_largest", "run", "largest", "position"),
)

causes = Table(  # why a unit differs, see jobs.causes
    "causes",
    metadata,
    Column("run", Id, primary_key=True, autoincrement=False),
    Column("key", String(16), primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("pattern", Text, nullable=False),
    Column("what", String(20), nullable=False),
    Column("column", Text),
    Column("sign", String(8)),
    Column("count", BigInteger, nullable=False),
    Column("ratio_low", Float),
    Column("ratio_high", Float),
    Column("offset_low", Float),
    Column("offset_high", Float),
    Index("ix_causes_run_unit", "run", "unit"),
)

acceptances = Table(  # groups of differences that a project lives with; never deleted, see jobs.accepting
    "acceptances",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("project", String(64), nullable=False),
    Column("key", String(16), nullable=False),  # that of its cause
    Column("pattern", Text, nullable=False),
    Column("what", String(20), nullable=False),
    Column("column", Text),
    Column("sign", String(8)),
    Column("ratio", Float),
    Column("offset", Float),
    Column("name", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("run", Id, nullable=False),
    Column("made_by", String(255), nullable=False),
    Column("made_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("withdrawn_at", Float),
    Column("withdrawn_by", String(255)),
    Index("ix_acceptances_project_key", "project", "key"),
    sqlite_autoincrement=True,
)

accepted = Table(  # which of them hold for a run, so that a run that has ended does not change by itself
    "accepted",
    metadata,
    Column("run", Id, primary_key=True, autoincrement=False),
    Column("key", String(16), primary_key=True),
    Column("acceptance", Id, primary_key=True, autoincrement=False),
)

markings = Table(  # units that have to be held against what their run holds now, see jobs.adapters.sql_marking
    "markings",
    metadata,
    Column("run", Id, primary_key=True, autoincrement=False),
    Column("causes", JSON, nullable=False),  # those whose units are left, by key
    Column("key", String(16)),  # the last one that was marked: its cause
    Column("unit", Text),  # and its name
    Column("at", Float, nullable=False),
    Column("event", JSON(none_as_null=True)),  # what somebody did, told when all are marked
)

noise = Table(  # what moves in a unit between two runs of the baseline, see jobs.noise
    "noise",
    metadata,
    Column("run", Id, primary_key=True, autoincrement=False),
    Column("unit", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("moves", JSON, nullable=False),
    Index("ix_noise_run_position", "run", "position"),
)

events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("run", Id, nullable=False),
    Column("task", Id),
    Column("attempt", Integer),
    Column("at", Float, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("data", JSON, nullable=False),
    Index("ix_events_run_id", "run", "id"),
    sqlite_autoincrement=True,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("user", String(255), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body", String(64), nullable=False),
    Column("run", Id, nullable=False),
    Column("created_at", Float, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("host", Text, nullable=False),
    Column("pool", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("task", Id),
    Column("draining", Boolean, nullable=False, default=False),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("shortage", Text),
)

removals = Table(  # what was removed of whom; of a whole run this is all that is left
    "removals",
    metadata,
    Column("run", Id, primary_key=True, autoincrement=False),
    Column("what", String(8), nullable=False),  # outputs or run
    Column("at", Float, nullable=False),
    Column("why", Text, nullable=False),
    Column("left", Boolean, nullable=False),  # rows of it that still have to be deleted
)

housekeeping = Table(  # what sweepers removed that was of no run; the newest ones, see SqlKeeping.note
    "housekeeping",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("host", Text, nullable=False),
    Column("what", String(32), nullable=False),
    Column("name", Text, nullable=False),
    Column("why", Text, nullable=False),
    sqlite_autoincrement=True,
)

archive = Table(
    "archive",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # one row: 1
    Column("name", String(32), nullable=False),  # of these records, made by chance: no others have it
)

installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # one row: 1
    Column("mark", String(16), nullable=False),
)

machines = Table(  # those of pools that are started and stopped, see jobs.machines
    "machines",
    metadata,
    Column("instance", String(32), primary_key=True),
    Column("pool", String(64), nullable=False),
    Column("region", String(32), nullable=False, default="", server_default=""),
    Column("account", String(16), nullable=False, default="", server_default=""),
    Column("kind", String(64), nullable=False, default="", server_default=""),
    Column("state", String(16), nullable=False),
    Column("state_since", Float, nullable=False),
    Column("host", Text),
    Column("registered_at", Float),
    Column("seen_at", Float),
    Column("started_at", Float),
    Column("why_on", Text, nullable=False, default="", server_default=""),
    Column("busy", JSON, nullable=False, default=list, server_default="[]"),  # what it said of itself last
    Column("drain_token", String(32)),
    Column("drain_since", Float),
    Column("drain_reason", Text),
    Column("drain_by", String(255)),
    Column("answer", JSON(none_as_null=True)),
    Column("kept_at", Float),  # when it was busy, or silent, and therefore a drain of it was given up
    Column("disk", JSON(none_as_null=True)),
    Column("notice", JSON(none_as_null=True)),
    Column("refused", Text),
    Column("price", String(32)),  # a decimal number
    Column("notes", JSON, nullable=False, default=dict, server_default="{}"),  # how far the controller is with it
    Index("ix_machines_pool", "pool"),
    Index("ix_machines_host", "host"),
)

holds = Table(
    "holds",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("pool", String(64), nullable=False),
    Column("instance", String(32)),
    Column("until", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("made_by", String(255), nullable=False),
    Column("made_at", Float, nullable=False),
    Column("released_at", Float),
    Column("released_by", String(255)),
    Index("ix_holds_pool_until", "pool", "until"),
    sqlite_autoincrement=True,
)

wishes = Table(  # what people ask the controller to do
    "wishes",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("pool", String(64), nullable=False),
    Column("instance", String(32)),
    Column("kind", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("made_by", String(255), nullable=False),
    Column("made_at", Float, nullable=False),
    Column("done_at", Float),
    Column("outcome", Text),
    Index("ix_wishes_pool_kind_made_at", "pool", "kind", "made_at"),
    sqlite_autoincrement=True,
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("pool", String(64), nullable=False),
    Column("instance", String(32)),
    Column("action", String(16), nullable=False),
    Column("code", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("made_by", String(255), nullable=False),
    Column("data", JSON, nullable=False),
    Index("ix_decisions_pool_instance_id", "pool", "instance", "id"),
    Index("ix_decisions_pool_id", "pool", "id"),
    sqlite_autoincrement=True,
)

intervals = Table(  # the times for which machines are billed
    "intervals",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("instance", String(32), nullable=False),
    Column("pool", String(64), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("price", String(32)),
    Column("cause", Text, nullable=False, default="", server_default=""),
    Index("ix_intervals_instance_started_at", "instance", "started_at"),
    Index("ix_intervals_pool_started_at", "pool", "started_at"),
    sqlite_autoincrement=True,
)

shortages = Table(  # instances and types for which EC2 had no capacity
    "shortages",
    metadata,
    Column("pool", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("until", Float, nullable=False),
    Column("text", Text, nullable=False),
)

controllers = Table(  # one row a pool: when it was last looked after
    "controllers",
    metadata,
    Column("pool", String(64), primary_key=True),
    Column("seen_at", Float, nullable=False),
    Column("asked_at", Float),
    Column("problem", Text),
)

counts = Table(  # one row each: what is counted since the records began, whatever of it was removed since
    "counts",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
)

heartbeats = Table(  # one row each: when sweeper and comparer were last heard of, and what the comparer has put off
    "heartbeats",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("seen_at", Float, nullable=False),
    Column("put_off", JSON, nullable=False),
)
