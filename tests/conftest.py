"""What every test shares: a Hypothesis profile for busy machines, and servers that start when a test asks."""

from hypothesis import HealthCheck, settings

settings.register_profile("dedupstore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dedupstore")

pytest_plugins = ["tests.support.servers"]
