"""What guards each row of docs/reliability.md: the text that is taken out, and the test that must fail without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """A piece of a file, there exactly once, and what stands in its place when the defence is taken out."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Defence:
    """One defence of one row, in words, and the test (its node id) that fails without it."""

    row: str
    words: str
    test: str
    edits: tuple[Edit, ...]

    @property
    def key(self) -> str:
        """Name it among all."""
        return f"{self.row} {self.words}"


def guard(row: str, words: str, test: str, file: str, old: str, new: str, *more: Edit) -> Defence:
    """Make a defence that is one edit, or one and some more that would stand in for it."""
    return Defence(row, words, test, (Edit(file, old, new), *more))


LOAD = "tests/chaos/test_load.py"
WORKERS = "tests/chaos/test_workers.py"
ENDS = "tests/chaos/test_ends.py"
RINGS = "tests/contract/test_rings.py"
BELL = "tests/contract/test_doorbell.py"
OUTAGE = "tests/integration/test_engine_outage.py"
TAKEOVER = "tests/integration/test_pipeline_takeover.py"
CAPACITY = "tests/chaos/test_capacity.py"

TASKS = "jobs/adapters/sql_tasks.py"
INTERRUPTIONS = "jobs/adapters/sql_interruptions.py"
DRAINS = "jobs/adapters/sql_drains.py"
STOPPING = "jobs/stopping.py"
UNANSWERED = Edit(DRAINS, "            if not (answered or silent):\n", "            if False:\n")
CALLS = Edit("jobs/adapters/ec2.py", "            if model.name not in allowed:\n", "            if False:\n")
FENCE = Edit(
    "jobs/adapters/sql_moves.py",
    "    if row is None or row.attempt != attempt or row.state != S.RUNNING:\n",
    "    if row is None:\n",
)
AWAY = (
    "            if now - self._away > ENGINE_AWAY_SECONDS:\n                raise\n            return None\n",
    "            raise\n",
)

DEFENCES: tuple[Defence, ...] = (
    guard(
        "A1",
        "a write transaction takes its lock when it begins",
        "tests/contract/test_submissions.py::test_a01_processes_that_submit_at_once[sqlite]",
        "jobs/adapters/sql_engine.py",
        '_patiently(lambda: raw.execute("BEGIN IMMEDIATE"))',
        'raw.execute("BEGIN DEFERRED")',
    ),
    guard(
        "A2",
        "the key is looked up again in the transaction that writes the run",
        "tests/contract/test_store_runs.py::test_a02_fifty_submissions_with_one_key_at_once_are_one_run[sqlite]",
        "jobs/adapters/sql_submissions.py",
        "        if row is not None and row.created_at >= now - IDEMPOTENCY_SECONDS:\n",
        "        if False:\n",
    ),
    guard(
        "A3",
        "a page is read by its key, and no further than its end",
        "tests/contract/test_store_lists.py::test_a03_ten_thousand_runs",
        "jobs/adapters/sql_run_reads.py",
        "                query = query.where(runs.c.id < before)\n"
        "            rows = list(connection.execute(query.order_by(runs.c.id.desc()).limit(limit + 1)))\n",
        "                query = query.offset(10_001 - before)\n"
        "            rows = list(connection.execute(query.order_by(runs.c.id.desc()).limit(limit + 1)))\n",
    ),
    guard(
        "A3",
        "each way to narrow the list has its index",
        "tests/contract/test_store_lists.py::test_a03_the_few_of_one_user_among_them",
        "jobs/adapters/sql_schema.py",
        '    Index("ix_runs_user_id", "user", "id"),\n',
        "",
    ),
    guard(
        "A4",
        "what was printed last is taken when the container has ended",
        f"{LOAD}::test_a04_million_lines",
        "runner/follow.py",
        "            self.engine.remove(self.name)\n        self.traces.take_rest()\n",
        "            self.engine.remove(self.name)\n",
    ),
    guard(
        "A4",
        "the web keeps no more than the end of a log",
        "tests/service/test_long_logs.py::test_a04_following_a_long_log_takes_little_memory",
        "web/hub.py",
        "                while self._tail_size > TAIL:\n",
        "                while False:\n",
    ),
    guard(
        "A5",
        "a log is read in pieces of a MiB",
        "tests/integration/test_pipeline_log.py::test_a05_a_line_of_50_mb_costs_no_memory",
        "runner/traces.py",
        "min(LOG_READ, self.log_room())",
        "self.log_room()",
    ),
    guard(
        "A6",
        "one reader of the store for all viewers",
        "tests/service/test_api_stream.py::test_a06_one_reader_serves_all_viewers",
        "web/stream.py",
        "                kept = self._channel.frame(task, offset)\n",
        "                kept = None\n",
    ),
    guard(
        "A7",
        "a slot that died is started again",
        f"{LOAD}::test_a07_many_short_runs_with_kills",
        "jobs/supervisor.py",
        "            if now >= self._due:\n                self.start()\n            return\n",
        "            if now >= self._due and not (self._started and self.program.died):\n"
        "                self.start()\n            return\n",
    ),
    guard(
        "A7",
        "what an attempt opened is closed when it ends",
        "tests/integration/test_pipeline_handles.py::test_a07_attempts_leave_nothing_open",
        "runner/execution.py",
        "        finally:\n            follower.close()\n",
        "        finally:\n",
    ),
    guard(
        "A8",
        "the higher priority is claimed first",
        f"{LOAD}::test_a01_a08_many_runs_from_many_clients",
        "jobs/adapters/sql_best.py",
        ".order_by(tasks.c.priority.desc(), func.coalesce(_BUSY.c.n, 0), ",
        ".order_by(func.coalesce(_BUSY.c.n, 0), ",
    ),
    guard(
        "B1",
        "a container that was left is gone on with",
        f"{WORKERS}::test_b01_worker_slot",
        "jobs/worker.py",
        "live=live[0] if live is not None and live[2] == self._place.host else None,",
        "live=None,",
    ),
    guard(
        "B1",
        "a lease that is not renewed runs out",
        f"{WORKERS}::test_b01_worker_with_all_its_slots",
        "jobs/sweeper.py",
        "            if self._store.tasks.expire(task, sighting.attempt, sighting.renewals):\n",
        "            if False:\n",
    ),
    guard(
        "B2",
        "a claim gives only the units that are left",
        f"{WORKERS}::test_b02_worker_slot_and_its_container",
        TASKS,
        ".where(units.c.task == task, units.c.state == UnitState.TODO.value)\n            .order_by(units.c.position)",
        ".where(units.c.task == task)\n            .order_by(units.c.position)",
    ),
    guard(
        "B3",
        "bytes of the log and how far they were read are written together",
        "tests/chaos/test_trials.py::test_b03_everything_happens[1]",
        "jobs/adapters/sql_ledger.py",
        "                self._advance(connection, task, source[0], log_offset=source[1])\n",
        "                pass\n",
    ),
    guard(
        "B4",
        "a slot that hears nothing looks into the records",
        f"{RINGS}::test_b04_a_ring_that_died_with_its_hearer",
        "jobs/worker.py",
        "                    self._doorbell.listen(place.pool, seconds=LISTEN_SECONDS, stop=self.drain)\n",
        "                    while not self.drain.is_set() and not self._doorbell.listen(\n"
        "                        place.pool, seconds=LISTEN_SECONDS, stop=self.drain\n"
        "                    ):\n"
        "                        pass\n",
    ),
    guard(
        "B5",
        "a container that never began is not followed",
        f"{TAKEOVER}::test_b05_one_that_was_created_and_never_started_is_replaced",
        "runner/execution.py",
        '        began = state is None or state.status != "created"\n',
        "        began = True\n",
    ),
    guard(
        "B6",
        "what was taken before is not taken again",
        f"{TAKEOVER}::test_b06_one_that_ended_meanwhile_is_taken_once[3]",
        "runner/traces.py",
        "log_offset, mark_offset = self.recorder.offsets(self.execution)",
        "log_offset, mark_offset = 0, 0",
    ),
    guard(
        "B7",
        "every write is compared with the present attempt",
        "tests/contract/test_store_tasks.py::test_b07_a_stale_attempt_can_write_nothing[memory-taken over-mark]",
        FENCE.file,
        FENCE.old,
        FENCE.new,
    ),
    guard(
        "B7",
        "who comes back learns that his lease is another's",
        f"{WORKERS}::test_b07_worker_that_hangs_and_comes_back",
        TASKS,
        '            if changed.rowcount != 1:\n                raise Fenced(f"task {task}: attempt {attempt} lost its lease")\n',
        "",
        FENCE,
    ),
    guard(
        "B8",
        "a worker that ends leaves its containers running",
        f"{WORKERS}::test_b08_nobody_there_for_a_while",
        "runner/execution.py",
        "        if to_be_stored or isinstance(error, (Drained, Fenced, EngineUnavailable, StoreUnavailable)):\n",
        "        if to_be_stored or isinstance(error, (Fenced, EngineUnavailable, StoreUnavailable)):\n",
    ),
    guard(
        "B9",
        "who listens outlives Redis",
        f"{BELL}::test_b09_a_killed_redis_is_heard_again_when_it_is_back",
        "jobs/adapters/rq_doorbell.py",
        "                time.sleep(SLICE_SECONDS)\n                return True\n",
        "                raise\n",
    ),
    guard(
        "B10",
        "what was accepted rings by the records, not by its submission",
        f"{RINGS}::test_b10_a_run_that_was_accepted_without_redis",
        "jobs/sweeper.py",
        "            if not self._doorbell.ring(pool, task):\n",
        "            if True:\n",
    ),
    guard(
        "B11",
        "what is queued rings again after a while",
        f"{RINGS}::test_b11_rings_that_were_taken_away",
        INTERRUPTIONS,
        ".where(or_(tasks.c.rung_at.is_(None), tasks.c.rung_at < now - every))",
        ".where(tasks.c.rung_at.is_(None))",
    ),
    guard(
        "B12",
        "a ring that is refused is told, and breaks nothing",
        f"{BELL}::test_b12_a_full_redis_refuses_the_ring_and_leaves_nothing_half_written[sqlite]",
        "jobs/adapters/rq_doorbell.py",
        '            log.warning("doorbell.silent", pool=pool, error=str(error))\n            return False\n',
        "            raise\n",
    ),
    guard(
        "B13",
        "nobody waits for an answer for ever",
        "tests/chaos/test_redis.py::test_b13_road_to_redis_that_swallows_everything",
        "jobs/adapters/rq_doorbell.py",
        "        socket_timeout=10,\n",
        "        socket_timeout=None,\n",
    ),
    guard(
        "B14",
        "without an engine a run goes on by its files",
        f"{OUTAGE}::test_b14_dockerd_killed_with_live_restore",
        "runner/follow.py",
        *AWAY,
    ),
    guard(
        "B15",
        "who was asked to end, and not by us, is no failing branch",
        f"{OUTAGE}::test_b15_dockerd_restarted_without_live_restore[kill]",
        "runner/follow.py",
        "        if ending.stopped:\n",
        "        if False:\n",
    ),
    guard(
        "B15",
        "an end without an exit file is the world's",
        f"{OUTAGE}::test_b15_the_host_of_engine_and_container_came_back",
        "runner/follow.py",
        "        if code is None or code >= KILLED or state.error:\n",
        "        if code is None:\n",
    ),
    guard(
        "B16",
        "a question that was not answered is asked again",
        f"{OUTAGE}::test_b16_connections_that_are_cut_again_and_again",
        "runner/follow.py",
        *AWAY,
    ),
    guard(
        "B17",
        "a name that is taken is the container that was asked for",
        f"{OUTAGE}::test_b17_a_create_that_is_asked_twice_gives_the_one_container",
        "runner/adapters/docker_engine.py",
        "            if not (isinstance(cause, APIError) and cause.status_code == 409):\n                raise\n",
        "            raise\n",
    ),
    guard(
        "B18",
        "the kernel is asked what ended a script",
        "tests/integration/test_pipeline_limits.py::test_b18_too_much_memory_is_the_branchs_fault_and_names_the_limit",
        "runner/follow.py",
        "        memory = self._out_of_memory() if ending.code != 0 and self._ran_out_of_memory() else None\n",
        "        memory = None\n",
    ),
    guard(
        "B19",
        "door and probe are asked before a branch is blamed",
        "tests/chaos/test_data.py::test_b19_server_killed_in_mid_unit",
        "runner/execution.py",
        "        self._blame_the_world(ended.since, ended.at, ended.watched)\n",
        "        return\n",
    ),
    guard(
        "B20",
        "the role of an execution is shut out at its end, with its sessions",
        "tests/chaos/test_data.py::test_b20_transaction_of_an_execution_that_is_gone",
        "runner/execution.py",
        "                out.source.shut(out.role)  #",
        "                pass  #",
    ),
    guard(
        "B21",
        "it is remembered that the disk was full",
        "tests/chaos/test_disk.py::test_b21_full_in_mid_run[bytes]",
        "runner/execution.py",
        "        if self._room is not None and self._room.was_full(since):\n",
        "        if False:\n",
    ),
    guard(
        "B22",
        "all times are by the records' clock",
        "tests/chaos/test_clock.py::test_b22_clock_of_a_worker_is_an_hour_off[-3600]",
        "jobs/adapters/sql_engine.py",
        '        """Give the store\'s clock; with SQLite that is the client\'s."""\n        if self.is_sqlite:\n',
        '        """Give the store\'s clock; with SQLite that is the client\'s."""\n        if True:\n',
    ),
    guard(
        "B23",
        "whoever follows a container looks for a cancellation",
        f"{ENDS}::test_b23_cancel[run]",
        "jobs/recorder.py",
        "        if self._cancelled:\n",
        "        if False:\n",
    ),
    guard(
        "B24",
        "three attempts without progress are enough",
        f"{ENDS}::test_b24_run_that_kills_its_worker",
        "jobs/run.py",
        "    if fruitless >= BUDGET_WITHOUT_PROGRESS:\n",
        "    if False:\n",
    ),
    guard(
        "C1",
        "the confirmation of a stop looks at everything again",
        f"{CAPACITY}::test_c1_every_step_with_many_seeds_in_memory[6]",
        DRAINS,
        "            if row is None or row.drain_token != token or _keeps(connection, row, now, silent=silent) is not None:\n",
        "            if row is None:\n",
        UNANSWERED,
    ),
    guard(
        "C1",
        "a machine whose stop is confirmed claims nothing",
        f"{CAPACITY}::test_c1_work_arrives_at_every_step_of_the_stop[confirmed-1]",
        DRAINS,
        "        if row.state == MachineState.STOPPING.value:\n            return False\n        if row.drain_token",
        "        if row.drain_token",
    ),
    guard(
        "C1",
        "a stop that was confirmed and never sent is gone on with, or taken back",
        f"{CAPACITY}::test_c1_work_arrives_at_every_step_of_the_stop[confirmed-0]",
        "jobs/controller.py",
        "            self._stopping.go_on(one.machine, wanted=wanted)\n",
        "            pass\n",
    ),
    guard(
        "C1",
        "the machine itself is asked, and silence is taken for busy",
        "tests/service/test_controller.py::test_c1_a_machine_that_does_not_answer_or_is_busy_stays_on",
        "jobs/capacity.py",
        "        if answer is None or answer.at < settled:\n",
        "        if False:\n",
        UNANSWERED,
    ),
    guard(
        "C2",
        "a stop without an answer of EC2 just before is none",
        f"{CAPACITY}::test_c2_ec2_is_down_empty_slow_or_throttled[down at the last moment]",
        STOPPING,
        "            self._failed(machine, error)  # it goes on draining: work that arrives is taken\n            return\n",
        "            self._failed(machine, error)\n",
    ),
    guard(
        "C2",
        "a machine that EC2 does not show is taken for busy",
        f"{CAPACITY}::test_c2_ec2_is_down_empty_slow_or_throttled[empty]",
        "jobs/reconciling.py",
        "                self._missing(machine, now)\n",
        "                pass\n",
    ),
    guard(
        "C3",
        "a stop that failed is asked for again",
        f"{CAPACITY}::test_c3_stop_instances_fails[500]",
        STOPPING,
        "            if again is not None and again.state is MachineState.STOPPING and again.drain == drain:\n",
        "            if False:\n",
    ),
    guard(
        "C3",
        "before it is asked for again, EC2 is looked at",
        f"{CAPACITY}::test_c3_stop_instances_fails[answer lost]",
        STOPPING,
        "        if seen is None or seen.state is not MachineState.RUNNING or started:\n",
        "        if seen is None:\n",
    ),
    guard(
        "C4",
        "a machine that is stopping is none that can be started",
        f"{CAPACITY}::test_c4_work_comes_while_the_machine_is_stopping",
        "jobs/capacity.py",
        "        stopped = [m for m in self.ours if m.machine.state is MachineState.STOPPED]\n",
        "        stopped = [m for m in self.ours if m.machine.state in (MachineState.STOPPED, MachineState.STOPPING)]\n",
        Edit(
            "jobs/capacity.py",
            "            case MachineState.STOPPING:\n                return self._nothing(",
            "            case MachineState.STOPPING:\n"
            "                return self.starts.get(machine.instance) or self._nothing(",
        ),
        Edit(
            "jobs/adapters/sql_starts.py",
            "row.state != MachineState.STOPPED.value",
            "row.state not in (MachineState.STOPPED.value, MachineState.STOPPING.value)",
        ),
    ),
    guard(
        "C5",
        "a tag that says production says no",
        f"{CAPACITY}::test_c5_a_machine_that_is_none_of_ours[production]",
        "jobs/cloud.py",
        '        if f"{key.strip()}={value.strip()}".casefold() in refused:\n',
        "        if False:\n",
    ),
    guard(
        "C5",
        "the tag has to name this pool",
        f"{CAPACITY}::test_c5_a_machine_that_is_none_of_ours[other pool]",
        "jobs/cloud.py",
        "    if marker != expected.pool:\n",
        "    if False:\n",
    ),
    guard(
        "C5",
        "credentials and machine have to be those of the account",
        f"{CAPACITY}::test_c5_a_machine_that_is_none_of_ours[other account]",
        "jobs/cloud.py",
        "    if account != expected.account:\n",
        "    if False:\n",
        Edit("jobs/cloud.py", "    if seen.account != expected.account:\n", "    if False:\n"),
    ),
    guard(
        "C6",
        "a drain is confirmed once",
        f"{CAPACITY}::test_c6_two_sweepers_at_once",
        DRAINS,
        "    if row.state != MachineState.RUNNING.value:\n",
        "    if row.state not in (MachineState.RUNNING.value, MachineState.STOPPING.value):\n",
    ),
    guard(
        "C6",
        "a machine that drains begins no other drain",
        f"{CAPACITY}::test_c6_two_sweepers_at_once",
        DRAINS,
        "            if row is None or row.drain_token is not None or _keeps(",
        "            if row is None or _keeps(",
    ),
    guard(
        "C6",
        "who records a start first asks for it",
        f"{CAPACITY}::test_c6_two_sweepers_at_once",
        "jobs/adapters/sql_starts.py",
        "            if row is None or row.state != MachineState.STOPPED.value or row.refused is not None:\n",
        "            if row is None or row.refused is not None:\n",
    ),
    guard(
        "C7",
        "whoever holds a machine is asked for when it is decided, and when it is confirmed",
        f"{CAPACITY}::test_c7_a_hold_and_a_start_by_hand_are_respected_until_released",
        "jobs/capacity.py",
        "        return max(holds, key=lambda hold: hold.until, default=None)\n",
        "        return None\n",
        Edit(
            DRAINS,
            '        return "held", f"{hold.made_by} keeps it awake until {at(hold.until):%Y-%m-%d %H:%M} UTC."\n',
            "        return None\n",
        ),
    ),
    guard(
        "C7",
        "a start that is none of ours holds the machine",
        f"{CAPACITY}::test_c7_a_hold_and_a_start_by_hand_are_respected_until_released",
        "jobs/reconciling.py",
        "            self._started_by_hand(seen)\n",
        "            pass\n",
    ),
    guard(
        "C8",
        "a call that is not on the list is not let out",
        "tests/contract/test_cloud.py::test_c8_a_call_that_is_not_on_the_list_never_leaves[terminate_instances]",
        CALLS.file,
        CALLS.old,
        CALLS.new,
    ),
    guard(
        "C8",
        "the same where the code asked for one",
        f"{CAPACITY}::test_c8_the_whole_life_of_a_pool_takes_no_forbidden_call",
        CALLS.file,
        'self._doing.stop_instances(InstanceIds=[instance])["StoppingInstances"]',
        'self._doing.terminate_instances(InstanceIds=[instance])["TerminatingInstances"]',
        CALLS,
    ),
)
