"""The queue of clips that were asked for, and the worker that makes them."""

from i2v_lab.jobs.runner import DIED, JobRunner, JobStatus, environment
from i2v_lab.store.jobs import forecast

__all__ = ["DIED", "JobRunner", "JobStatus", "environment", "forecast"]
