"""The verbs of the command line that are more than a few lines; `mmkp.cli` registers them."""
