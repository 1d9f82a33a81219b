"""Catalogues: what Lab says, in other languages; English is the source."""
