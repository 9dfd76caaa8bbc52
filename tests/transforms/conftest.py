from hypothesis import HealthCheck, settings

# The cores are shared, so time says nothing; what was found once is written down as a case of its own.
settings.register_profile(
    "transforms",
    deadline=None,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("transforms")
