"""Weights that make up for the rounding of weights and inputs, layer by layer."""
