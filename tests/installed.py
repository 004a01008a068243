"""What another package would add by its entry points, without installing one."""

from importlib import metadata


def install(monkeypatch, group, name, value):
    """Have `value` (module:attribute) found under a name of a group of entry points."""
    found = metadata.entry_points

    def entry_points(**wanted):
        point = metadata.EntryPoint(name, value, group)
        if any(getattr(point, key) != expected for key, expected in wanted.items()):
            return found(**wanted)
        return metadata.EntryPoints([*found(**wanted), point])

    monkeypatch.setattr("aft_lens.registry.entry_points", entry_points)
