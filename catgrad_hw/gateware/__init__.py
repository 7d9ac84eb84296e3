"""Amaranth components: the core, specialised to a schedule."""
