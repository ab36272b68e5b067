from whatwhere.service.rpc import image_search_pb2 as _image_search_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RefreshCollectionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RefreshCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: _image_search_pb2.Collection
    def __init__(self, collection: _Optional[_Union[_image_search_pb2.Collection, _Mapping]] = ...) -> None: ...
