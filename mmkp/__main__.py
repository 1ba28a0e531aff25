"""`python -m mmkp` is `mmkp`."""

from mmkp.cli import main

main()
