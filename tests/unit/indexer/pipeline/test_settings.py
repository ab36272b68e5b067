"""The settings of reading: one value, of which every worker gets its share."""

from dataclasses import fields, replace

import pytest

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.pipeline.settings import IndexSettings, ReadSettings

SETTINGS = IndexSettings(
    limits=ImageLimits(max_pixels=10),
    retry_failed=True,
    exif=True,
    exif_gps=True,
    checksum=True,
    max_requests_per_second=10.0,
)


@pytest.mark.parametrize("name", [field.name for field in fields(ReadSettings)])
def test_every_setting_of_reading_arrives(name: str) -> None:
    """None keeps its default."""
    assert getattr(SETTINGS.reading(), name) == getattr(SETTINGS, name) != getattr(ReadSettings(), name)


def test_workers_share_the_request_rate() -> None:
    """All else is the same for each of them."""
    assert SETTINGS.reading().for_one_of(4) == replace(SETTINGS.reading(), max_requests_per_second=2.5)


def test_without_a_request_rate_workers_have_none() -> None:
    """No limit stays no limit."""
    assert ReadSettings().for_one_of(4) == ReadSettings()


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_request_rate_is_above_zero_and_finite(rate: float) -> None:
    """The error names the setting."""
    with pytest.raises(InvalidRequest, match="requests per second is out of range") as raised:
        ReadSettings(max_requests_per_second=rate).remote()

    assert raised.value.field == "rate"
