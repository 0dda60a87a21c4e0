"""The queue of clips and sweeps that were asked for, and the worker process that makes them."""

from i2v_lab.jobs.runner import DIED, JobRunner, JobStatus, environment, shared_runner
from i2v_lab.store.jobs import forecast

__all__ = ["DIED", "JobRunner", "JobStatus", "environment", "forecast", "shared_runner"]
