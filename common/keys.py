"""Where a value of the configuration is, and how that is called. Pure."""

Keys = tuple[str | int, ...]
"""Where a value is: ("stores", "mcs", "region"), ("routes", 0, "source")."""

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

LISTS = {"routes": "route", "stack_routes": "stack route"}


def place(keys: Keys) -> str:
    """Return where `keys` lead to, as people say it: "the first route: source", "stores.mcs.region"."""
    if len(keys) > 1 and keys[0] in LISTS and isinstance(keys[1], int):
        number = keys[1]
        kind = LISTS[str(keys[0])]
        which = f"the {ORDINALS[number]} {kind}" if number < len(ORDINALS) else f"{kind} number {number + 1}"
        return ": ".join(filter(None, [which, place(keys[2:])]))
    if keys and isinstance(keys[-1], int):
        return f"{place(keys[:-1])}, entry {keys[-1] + 1}"
    return ".".join(map(str, keys))
