"""The engine: devices, precision, data loading, out-of-memory handling, distributed training, compiled networks."""
