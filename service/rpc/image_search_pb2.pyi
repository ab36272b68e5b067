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
    __slots__ = ("name", "uri", "duplicate_uris", "width_px", "height_px", "byte_count", "mime_type", "sha256", "create_time", "metadata")
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
    def __init__(self, name: _Optional[str] = ..., uri: _Optional[str] = ..., duplicate_uris: _Optional[_Iterable[str]] = ..., width_px: _Optional[int] = ..., height_px: _Optional[int] = ..., byte_count: _Optional[int] = ..., mime_type: _Optional[str] = ..., sha256: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("image_content", "image", "region", "descriptor", "page_size", "page_token", "expansion_count", "localize_count", "min_score", "localization", "filter")
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
    def __init__(self, image_content: _Optional[bytes] = ..., image: _Optional[str] = ..., region: _Optional[_Union[Box, _Mapping]] = ..., descriptor: _Optional[_Union[Descriptor, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., expansion_count: _Optional[int] = ..., localize_count: _Optional[int] = ..., min_score: _Optional[float] = ..., localization: _Optional[_Union[Localization, str]] = ..., filter: _Optional[str] = ...) -> None: ...

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
