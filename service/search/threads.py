"""Set the number of threads that the numeric libraries use in the calling thread.

OpenMP stores this number per calling thread, and starts a separate team of threads for each of them.
"""

import torch

from whatwhere.indexer.vectors.index import use_threads as use_threads_for_vectors


def use_threads(count: int) -> None:
    """Let the network and vector searches use `count` threads when the calling thread uses them."""
    torch.set_num_threads(count)
    use_threads_for_vectors(count)
