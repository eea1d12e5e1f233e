"""One sender each: bytes and headers in, values out, no I/O."""
