"""Training with the quantizers in the loop; `sqlib.fit.train_quantized` is the function."""
