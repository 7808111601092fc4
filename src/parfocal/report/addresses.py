"""Pictures inside a page: an address that holds the bytes themselves, so that nothing is asked of any server."""

import base64


def data_uri(image_format: str, data: bytes) -> str:
    """Return the address of a picture of a kind such as `jpeg` or `svg+xml`."""
    return f"data:image/{image_format};base64,{base64.b64encode(data).decode()}"
