"""Loading: from a name to a folder that has been looked through, before anything of it runs."""
