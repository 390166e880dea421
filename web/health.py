"""Health and metrics, for monitors."""

from __future__ import annotations

import time
from collections import Counter as Counted
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, g, make_response, request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.machines import MachineState
from web import asking
from web import queries as q
from web import schemas as s
from web.api import answer

if TYPE_CHECKING:
    from jobs.service import Service
    from web.hub import Hub

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Tell whether runs can be accepted and done: 200, or 503 with the problems in words."""
    asking.query(q.NoQuery)
    problems = asking.service().healthy()
    return answer(s.HealthOut(healthy=not problems, problems=problems), 503 if problems else 200)


class PoolCollector(Collector):
    """Reads pools and viewers when a monitor asks."""

    def __init__(self, service: Service, hub: Hub) -> None:
        self._service = service
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        queued = GaugeMetricFamily("seatrial_tasks_queued", "Tasks that wait for a slot", labels=["pool"])
        running = GaugeMetricFamily("seatrial_tasks_running", "Tasks that run", labels=["pool"])
        slots = GaugeMetricFamily("seatrial_slots", "Slots that the settings give a pool", labels=["pool"])
        workers = GaugeMetricFamily("seatrial_workers", "Workers that were seen lately", labels=["pool"])
        machines = GaugeMetricFamily("seatrial_machines", "Machines of a pool by state", labels=["pool", "state"])
        alarms = GaugeMetricFamily("seatrial_machine_alarms", "What is wrong with a pool's machines", labels=["pool"])
        for pool in self._service.capacity():
            its = self._service.pool_machines(pool.name)
            if its is not None:
                states = Counted(one.now.machine.state.value for one in its.machines)
                for state in MachineState:
                    machines.add_metric([pool.name, state.value], states[state.value])
                alarms.add_metric([pool.name], sum(len(one.alarms) for one in its.machines))
            queued.add_metric([pool.name], pool.queued)
            running.add_metric([pool.name], pool.running)
            slots.add_metric([pool.name], pool.slots)
            workers.add_metric([pool.name], len(pool.workers))
        viewers = GaugeMetricFamily("seatrial_viewers", "Connections that follow a run", value=self._hub.viewers)
        words = "Writes that were refused because another attempt holds the task"
        refused = CounterMetricFamily("seatrial_refused", words, value=self._service.refused())
        yield from (queued, running, slots, workers, machines, alarms, viewers, refused)


def register(app: Flask, service: Service, hub: Hub) -> None:
    """Count requests and their durations, and serve them at /metrics."""
    registry = CollectorRegistry()
    registry.register(PoolCollector(service, hub))
    requests = Counter("seatrial_requests", "Answered requests", ["endpoint", "method", "status"], registry=registry)
    seconds = Histogram(
        "seatrial_request_seconds",
        "Time to the first byte",
        ["endpoint"],
        registry=registry,
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    )

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        endpoint = request.endpoint or "none"
        method = request.method if request.method in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        requests.labels(endpoint, method, response.status_code).inc()
        seconds.labels(endpoint).observe(time.perf_counter() - g.get("began", time.perf_counter()))
        return response

    @app.get("/metrics")
    def metrics() -> Response:
        response = make_response(generate_latest(registry))
        response.mimetype = "text/plain"
        return response
