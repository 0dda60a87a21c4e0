"""Clips on a pool of workers: several GPUs, several machines, by Ray. Ray is imported only where a cluster is asked for.

with open_pool(store, settings) as pool:
    pool.ask(Task(1, params))
    while pool.busy:
        for task, record in pool.step():
            ...
"""

from i2v_lab.cluster.connect import find_cluster, open_pool
from i2v_lab.cluster.place import Place, WorkerState
from i2v_lab.cluster.pool import Pool

__all__ = ["Place", "Pool", "WorkerState", "find_cluster", "open_pool"]
