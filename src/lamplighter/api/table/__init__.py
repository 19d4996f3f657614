"""The entries of the operation table, one file a group of resources."""
