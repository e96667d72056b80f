"""RefQSR: similar patches of one image share the work; a few references at high bits, all others at low."""
