import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Descriptor(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DESCRIPTOR_UNSPECIFIED: _ClassVar[Descriptor]
    DESCRIPTOR_WHAT: _ClassVar[Descriptor]
    DESCRIPTOR_WHAT_AND_WHERE: _ClassVar[Descriptor]
    DESCRIPTOR_MAC: _ClassVar[Descriptor]
    DESCRIPTOR_R_MAC: _ClassVar[Descriptor]
    DESCRIPTOR_CROW: _ClassVar[Descriptor]
    DESCRIPTOR_GEM: _ClassVar[Descriptor]
    DESCRIPTOR_FUSED: _ClassVar[Descriptor]

class Localization(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOCALIZATION_UNSPECIFIED: _ClassVar[Localization]
    LOCALIZATION_STORED: _ClassVar[Localization]
    LOCALIZATION_EXACT: _ClassVar[Localization]
DESCRIPTOR_UNSPECIFIED: Descriptor
DESCRIPTOR_WHAT: Descriptor
DESCRIPTOR_WHAT_AND_WHERE: Descriptor
DESCRIPTOR_MAC: Descriptor
DESCRIPTOR_R_MAC: Descriptor
DESCRIPTOR_CROW: Descriptor
DESCRIPTOR_GEM: Descriptor
DESCRIPTOR_FUSED: Descriptor
LOCALIZATION_UNSPECIFIED: Localization
LOCALIZATION_STORED: Localization
LOCALIZATION_EXACT: Localization

class Box(_message.Message):
    __slots__ = ("x_min", "y_min", "x_max", "y_max")
    X_MIN_FIELD_NUMBER: _ClassVar[int]
    Y_MIN_FIELD_NUMBER: _ClassVar[int]
    X_MAX_FIELD_NUMBER: _ClassVar[int]
    Y_MAX_FIELD_NUMBER: _ClassVar[int]
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    def __init__(self, x_min: _Optional[float] = ..., y_min: _Optional[float] = ..., x_max: _Optional[float] = ..., y_max: _Optional[float] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("name", "uri", "duplicate_uris", "width_px", "height_px", "byte_count", "mime_type", "sha256", "create_time", "metadata", "metadata_json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_URIS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MIME_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    uri: str
    duplicate_uris: _containers.RepeatedScalarFieldContainer[str]
    width_px: int
    height_px: int
    byte_count: int
    mime_type: str
    sha256: str
    create_time: _timestamp_pb2.Timestamp
    metadata: _struct_pb2.Struct
    metadata_json: str
    def __init__(self, name: _Optional[str] = ..., uri: _Optional[str] = ..., duplicate_uris: _Optional[_Iterable[str]] = ..., width_px: _Optional[int] = ..., height_px: _Optional[int] = ..., byte_count: _Optional[int] = ..., mime_type: _Optional[str] = ..., sha256: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., metadata_json: _Optional[str] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("image", "score", "box")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    image: Image
    score: float
    box: Box
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., score: _Optional[float] = ..., box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class SearchImagesRequest(_message.Message):
    __slots__ = ("image_content", "image", "region", "descriptor", "page_size", "page_token", "expansion_count", "localize_count", "min_score", "localization", "filter", "more_regions", "mask", "concepts", "avoided_concepts")
    IMAGE_CONTENT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPANSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    LOCALIZE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    LOCALIZATION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MORE_REGIONS_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    AVOIDED_CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    image_content: bytes
    image: str
    region: Box
    descriptor: Descriptor
    page_size: int
    page_token: str
    expansion_count: int
    localize_count: int
    min_score: float
    localization: Localization
    filter: str
    more_regions: _containers.RepeatedCompositeFieldContainer[Box]
    mask: bytes
    concepts: _containers.RepeatedScalarFieldContainer[int]
    avoided_concepts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, image_content: _Optional[bytes] = ..., image: _Optional[str] = ..., region: _Optional[_Union[Box, _Mapping]] = ..., descriptor: _Optional[_Union[Descriptor, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., expansion_count: _Optional[int] = ..., localize_count: _Optional[int] = ..., min_score: _Optional[float] = ..., localization: _Optional[_Union[Localization, str]] = ..., filter: _Optional[str] = ..., more_regions: _Optional[_Iterable[_Union[Box, _Mapping]]] = ..., mask: _Optional[bytes] = ..., concepts: _Optional[_Iterable[int]] = ..., avoided_concepts: _Optional[_Iterable[int]] = ...) -> None: ...

class SearchImagesResponse(_message.Message):
    __slots__ = ("hits", "next_page_token", "region_fallback", "kept_factor_count")
    HITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REGION_FALLBACK_FIELD_NUMBER: _ClassVar[int]
    KEPT_FACTOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    next_page_token: str
    region_fallback: bool
    kept_factor_count: int
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., region_fallback: _Optional[bool] = ..., kept_factor_count: _Optional[int] = ...) -> None: ...

class GetImageRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetImageResponse(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: Image
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class ListImagesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "filter")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    filter: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ...) -> None: ...

class ListImagesResponse(_message.Message):
    __slots__ = ("images", "next_page_token")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    next_page_token: str
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class SampleImagesRequest(_message.Message):
    __slots__ = ("count", "filter")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    count: int
    filter: str
    def __init__(self, count: _Optional[int] = ..., filter: _Optional[str] = ...) -> None: ...

class SampleImagesResponse(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ...) -> None: ...

class GetImageContentRequest(_message.Message):
    __slots__ = ("name", "size_px")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_PX_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_px: int
    def __init__(self, name: _Optional[str] = ..., size_px: _Optional[int] = ...) -> None: ...

class GetImageContentResponse(_message.Message):
    __slots__ = ("content", "mime_type")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MIME_TYPE_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    mime_type: str
    def __init__(self, content: _Optional[bytes] = ..., mime_type: _Optional[str] = ...) -> None: ...

class Heatmap(_message.Message):
    __slots__ = ("height", "width", "values", "png")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    values: bytes
    png: bytes
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., values: _Optional[bytes] = ..., png: _Optional[bytes] = ...) -> None: ...

class Factor(_message.Message):
    __slots__ = ("index", "energy_share", "box", "heatmap", "colour", "similar")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ENERGY_SHARE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_FIELD_NUMBER: _ClassVar[int]
    COLOUR_FIELD_NUMBER: _ClassVar[int]
    SIMILAR_FIELD_NUMBER: _ClassVar[int]
    index: int
    energy_share: float
    box: Box
    heatmap: Heatmap
    colour: str
    similar: _containers.RepeatedCompositeFieldContainer[SimilarFactor]
    def __init__(self, index: _Optional[int] = ..., energy_share: _Optional[float] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., heatmap: _Optional[_Union[Heatmap, _Mapping]] = ..., colour: _Optional[str] = ..., similar: _Optional[_Iterable[_Union[SimilarFactor, _Mapping]]] = ...) -> None: ...

class SimilarFactor(_message.Message):
    __slots__ = ("image", "factor", "score", "box")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    image: Image
    factor: int
    score: float
    box: Box
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., factor: _Optional[int] = ..., score: _Optional[float] = ..., box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class ExplainImageRequest(_message.Message):
    __slots__ = ("image_content", "image", "heatmap_size_px", "similar_count")
    IMAGE_CONTENT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_SIZE_PX_FIELD_NUMBER: _ClassVar[int]
    SIMILAR_COUNT_FIELD_NUMBER: _ClassVar[int]
    image_content: bytes
    image: str
    heatmap_size_px: int
    similar_count: int
    def __init__(self, image_content: _Optional[bytes] = ..., image: _Optional[str] = ..., heatmap_size_px: _Optional[int] = ..., similar_count: _Optional[int] = ...) -> None: ...

class ExplainImageResponse(_message.Message):
    __slots__ = ("factors", "image")
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    factors: _containers.RepeatedCompositeFieldContainer[Factor]
    image: Image
    def __init__(self, factors: _Optional[_Iterable[_Union[Factor, _Mapping]]] = ..., image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class CompareImagesRequest(_message.Message):
    __slots__ = ("image_content", "image", "images", "rank", "localization", "heatmap_size_px")
    IMAGE_CONTENT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    LOCALIZATION_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_SIZE_PX_FIELD_NUMBER: _ClassVar[int]
    image_content: bytes
    image: str
    images: _containers.RepeatedScalarFieldContainer[str]
    rank: int
    localization: Localization
    heatmap_size_px: int
    def __init__(self, image_content: _Optional[bytes] = ..., image: _Optional[str] = ..., images: _Optional[_Iterable[str]] = ..., rank: _Optional[int] = ..., localization: _Optional[_Union[Localization, str]] = ..., heatmap_size_px: _Optional[int] = ...) -> None: ...

class CompareImagesResponse(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[ComparedImage]
    def __init__(self, images: _Optional[_Iterable[_Union[ComparedImage, _Mapping]]] = ...) -> None: ...

class ComparedImage(_message.Message):
    __slots__ = ("image", "factors")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    image: Image
    factors: _containers.RepeatedCompositeFieldContainer[Factor]
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., factors: _Optional[_Iterable[_Union[Factor, _Mapping]]] = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("generation", "image_count", "backbone", "rank", "descriptors", "publish_time", "latest_generation")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_TIME_FIELD_NUMBER: _ClassVar[int]
    LATEST_GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: int
    image_count: int
    backbone: str
    rank: int
    descriptors: _containers.RepeatedScalarFieldContainer[Descriptor]
    publish_time: _timestamp_pb2.Timestamp
    latest_generation: int
    def __init__(self, generation: _Optional[int] = ..., image_count: _Optional[int] = ..., backbone: _Optional[str] = ..., rank: _Optional[int] = ..., descriptors: _Optional[_Iterable[_Union[Descriptor, str]]] = ..., publish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., latest_generation: _Optional[int] = ...) -> None: ...
