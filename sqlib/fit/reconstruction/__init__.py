"""Rounding and activation steps learned block by block (BRECQ, QDrop)."""
