"""Reports of finished runs: the page, its figures, tables, the model card and the lab report."""
