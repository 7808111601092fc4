"""Speed, measured side by side in one process; figures are kept in `results/` with the machine they come from."""
