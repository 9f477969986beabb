"""Decompression of client data with a limit on the decompressed size."""

import zlib

GZIP = 31
"""zlib `wbits` for the gzip format (RFC 1952)."""
ZLIB = 15
"""zlib `wbits` for the zlib format (RFC 1950), which HTTP calls deflate."""


def inflated(data: bytes, wbits: int, max_bytes: int) -> tuple[bytes, bool]:
    """Decompresses a stream.

    Args:
        data: compressed stream.
        wbits: `GZIP` or `ZLIB`.
        max_bytes: decompression stops after one byte more than this.

    Returns:
        The decompressed bytes, and whether the data is exactly one complete stream.

    Raises:
        zlib.error: the data is not a valid stream.
    """
    decompressor = zlib.decompressobj(wbits)
    return decompressor.decompress(data, max_bytes + 1), decompressor.eof and not decompressor.unused_data
