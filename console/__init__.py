"""The operator's side: the `hookmirror` command."""
