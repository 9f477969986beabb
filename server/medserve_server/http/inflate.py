"""Decompression of what clients send, bounded before anything is allocated."""

import zlib

GZIP = 31
"""`wbits` of zlib for the format of gzip (RFC 1952)."""
ZLIB = 15
"""`wbits` of zlib for its own format (RFC 1950), which HTTP calls deflate."""


def inflated(data: bytes, wbits: int, max_bytes: int) -> tuple[bytes, bool]:
    """Decompresses a stream.

    Args:
        data: The stream.
        wbits: `GZIP` or `ZLIB`.
        max_bytes: Decompression stops one byte beyond these.

    Returns:
        The decompressed bytes, and whether the data is exactly one whole stream.

    Raises:
        zlib.error: The data is no such stream.
    """
    decompressor = zlib.decompressobj(wbits)
    return decompressor.decompress(data, max_bytes + 1), decompressor.eof and not decompressor.unused_data
