"""The command line and plots."""
