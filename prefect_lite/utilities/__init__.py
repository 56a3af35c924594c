"""Named after Prefect's module of the same name; see ``annotations``."""
