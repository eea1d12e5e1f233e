"""Where a bucket is: two stores of the configuration may be one cloud under two names. Pure."""

from urllib.parse import urlsplit


def place(endpoint: str | None, bucket: str) -> str:
    """Return what is the same for every name and address of one bucket, like "hb.vkcloud-storage.ru/photos".

    `endpoint` None is AWS.
    """
    if endpoint is None:
        return f"aws/{bucket}"
    parts = urlsplit(endpoint)
    return f"{parts.netloc.lower()}{parts.path.rstrip('/')}/{bucket}"
