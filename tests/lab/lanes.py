"""The lanes of the route that most tests have."""

from common.queue.port import Kind, Lane

LIVE, BULK = Lane("r"), Lane("r", Kind.BULK)
