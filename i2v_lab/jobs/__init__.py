"""The queue of clips and sweeps that were asked for, and the worker process that makes them."""

from i2v_lab.jobs.runner import DIED, JobRunner, JobStatus, environment, shared_runner

__all__ = ["DIED", "JobRunner", "JobStatus", "environment", "shared_runner"]
