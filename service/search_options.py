"""The options of a search, the same for the client, the command line and Python code in this process."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from whatwhere.indexer.boxes import Box


@dataclass(frozen=True)
class SearchOptions:
    """What to search for within the query, and how; every default is the server's.

    `region` is a box, or several: the content of any of them is searched for. `mask` is an encoded picture, stretched
    over the query: what is light in it is searched for. `factors` and `avoided_factors` are indices of the query's
    factors, as `explain` returns them: search for these alone, or without these.

    `page_size` is the number of results (0: 10; at most 100), `page_token` that of the next page. The first
    `expansion_count` results are added to the query, the first `localize_count` get a box; both are at most 20. `exact`
    localizes by new forward passes. `min_score` is a cosine from -1 to 1. `filter` follows AIP-160, for example
    `label = "boat" AND width_px > 1000`.
    """

    region: Box | Sequence[Box] | None = None
    mask: bytes = b""
    factors: Iterable[int] = ()
    avoided_factors: Iterable[int] = ()
    descriptor: str | None = None
    page_size: int = 0
    page_token: str = ""
    expansion_count: int = 0
    localize_count: int = 0
    exact: bool = False
    min_score: float | None = None
    filter: str = ""

    @property
    def boxes(self) -> Sequence[Box]:
        """The region as a list of boxes, empty if the whole picture is searched for."""
        if self.region is None:
            return ()
        return (self.region,) if isinstance(self.region, Box) else self.region
