"""The schema, as numbered SQL files; a package, so that every kind of install finds them."""
