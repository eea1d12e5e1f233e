"""`hookmirror hooks ...`: the webhooks of the source buckets."""
