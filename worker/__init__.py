"""A task is done: taken off the queue, replicated, settled."""
