"""Stores models: the `.sct` container, its layouts (where values sit) and codecs (how one is written)."""

from secateur.formats.container import LIMIT, Measured, Section, levels, measure, pack, pack_levels, sections, unpack

__all__ = ["LIMIT", "Measured", "Section", "levels", "measure", "pack", "pack_levels", "sections", "unpack"]
