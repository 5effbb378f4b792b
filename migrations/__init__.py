"""The schema, as numbered SQL files; the package exists so that every kind of install finds them."""
