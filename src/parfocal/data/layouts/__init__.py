"""One file for each family of label files; `parfocal.data.readers` is their door."""
