"""Objects that several endpoints share."""

from typing import Any, Literal

from pydantic import Field

from api.wire.fields import NULLABLE, WireModel

Status = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]


class File(WireModel):
    """A file that can be fetched."""

    url: str = Field(description="Where the file is: an address, or a data URI in sync mode.")
    content_type: str | None = Field(None, description="Its media type.")
    file_name: str | None = Field(None, description="Its name.")
    file_size: int | None = Field(None, description="Its size in bytes.")
    file_data: str | None = Field(
        None, description="Never sent.", json_schema_extra={"format": "binary"}
    )


class Image(File):
    """A picture that can be fetched."""

    width: int | None = Field(None, description="Width in pixels.")
    height: int | None = Field(None, description="Height in pixels.")


class QueueStatus(WireModel):
    """Where a request of the queue stands."""

    status: Status
    request_id: str = Field(description="Id of the request.")
    response_url: str | None = Field(None, description="Where its result is.")
    status_url: str | None = Field(None, description="Where its status is.")
    cancel_url: str | None = Field(None, description="Where it is cancelled.")
    logs: list[dict[str, Any]] | None = Field(
        None, description="What happened so far; null unless asked for.", json_schema_extra=NULLABLE
    )
    metrics: dict[str, Any] | None = Field(None, description="How long it took.")
    queue_position: int | None = Field(None, description="How many requests start before it.")
