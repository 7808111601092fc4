"""Export trained networks to formats that other programs run. Each export is verified against its run."""
