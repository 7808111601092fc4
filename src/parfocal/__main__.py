"""`python -m parfocal` does what the command `parfocal` does."""

from parfocal.commands import main

main()
