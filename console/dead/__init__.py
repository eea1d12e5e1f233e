"""`hookmirror dead ...`: one file a concern; the group is in `group`."""
