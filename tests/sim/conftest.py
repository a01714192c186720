from __future__ import annotations

import pytest

from tests.sim.simnode import Simulation


@pytest.fixture
def simulate():
    """Makes simulations and closes them: ``simulate(seed=…, link=…)``."""
    made = []

    def make(**options):
        made.append(Simulation(**options))
        return made[-1]

    yield make
    for simulation in made:
        simulation.close()
