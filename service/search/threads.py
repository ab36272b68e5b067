"""How many threads the numeric libraries may use, chosen by each thread that calls them for itself.

OpenMP keeps that number for each thread, and starts a team of its own for each.
"""

import torch

from whatwhere.indexer.vectors.index import use_threads as use_threads_for_vectors


def use_threads(count: int) -> None:
    """Let the network and searches, when they are called from this thread, use so many."""
    torch.set_num_threads(count)
    use_threads_for_vectors(count)
