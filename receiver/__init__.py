"""A hook comes in: validated, queued durably, acknowledged."""
