"""Fixtures for all tests; each kind of service has a file of its own."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))

pytest_plugins = ["fixtures_bench"]
SERVICES = [
    "fixtures_docker",
    "fixtures_ec2",
    "fixtures_engine",
    "fixtures_postgres",
    "fixtures_registry",
    "fixtures_s3",
    "fixtures_store",
]
# How many examples a property is tried with. `make test` asks for the thorough profile, `make unit` for none.
EXAMPLES = {"quick": 20, "thorough": 100}


def pytest_configure(config: pytest.Config) -> None:
    """Load what starts services where it is wanted: importing their clients takes as long as half of the unit tests."""
    asked = [Path(config.invocation_params.dir, argument.split("::")[0]).resolve() for argument in config.args]
    if not all(path.is_relative_to(TESTS / "unit") for path in asked):
        for name in SERVICES:
            if name in sys.modules:  # the conftest of a folder that was asked for by its name has it already
                config.pluginmanager.register(sys.modules[name], name)
            else:
                config.pluginmanager.import_plugin(name)
    if config.getoption("--hypothesis-profile"):
        register_profiles()  # Hypothesis itself chooses among them, later


def pytest_collection(session: pytest.Session) -> None:
    """Be quick where no profile is asked for; the process that only hands tests to others needs none."""
    manager = session.config.pluginmanager
    if not session.config.getoption("--hypothesis-profile") and not manager.hasplugin("dsession"):
        register_profiles()
        from hypothesis import settings

        settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """Spare the collector what stays to the end: to go through all tests and modules again takes a tenth of the time."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_unconfigure() -> None:
    gc.unfreeze()  # extensions look at their own end whether anything was left


def register_profiles() -> None:
    from hypothesis import HealthCheck, settings

    # How long the machine takes to make an example says nothing of the product.
    quiet = [HealthCheck.too_slow]
    for name, examples in EXAMPLES.items():
        settings.register_profile(name, max_examples=examples, deadline=None, suppress_health_check=quiet)
