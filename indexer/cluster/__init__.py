"""Describing on several machines: Ray Data's workers describe chunks and write shards, one process records them.

Ray is an extra, imported where it is used: nothing of this package but its settings is needed to index here.
"""

from indexer.cluster.importing import import_running
from indexer.cluster.settings import ClusterSettings, choose_cluster
from indexer.cluster.work import Arrived, Work

__all__ = ["Arrived", "ClusterSettings", "Work", "choose_cluster", "import_running"]
