"""The engine: devices, precision, prefetch, several processes, compiled networks."""
