"""The implementation of the command-line tools."""
